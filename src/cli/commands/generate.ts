import { stringify } from "yaml";
import { type Deployment, deploymentOf, deploymentOfFlags } from "../deployment.ts";
import { wrongUsage } from "../failure.ts";
import { type StackFlags, stackFlags } from "../flags.ts";
import type { Define } from "../main.ts";
import { printJson } from "../output.ts";
import { chosen, readStack } from "../stack.ts";
import { findStackFile } from "../stack-file.ts";
import { findInStore, platformName, readStore, storeBase } from "../store.ts";

interface Flags extends StackFlags {
  api: string;
  namespace: string;
  fromStore?: string;
  url?: string;
  builtin?: boolean;
  arch?: string;
  json?: boolean;
}

const noFlags = { env: [], label: [], annotation: [], constraint: [], secret: [] };
const knative = "serving.knative.dev/v1";

export const define: Define = (command, context) => {
  stackFlags(command)
    .description("functions of a stack file as objects of Kubernetes, on standard output")
    .option("--api <version>", `openfaas.com/v1 or ${knative}`, "openfaas.com/v1")
    .option("-n, --namespace <name>", "namespace where the stack file has none", "openfaas-fn")
    .option("--from-store <function>", "a function of the store instead of a stack file")
    .option("-u, --url <url>", "functions.json of the store")
    .option("--builtin", "the store that comes with nap")
    .option("--arch <platform>", "x86_64, arm64 or armhf, for --from-store")
    .option("-j, --json", "as JSON")
    .action(async (flags: Flags) => {
      if (flags.api !== "openfaas.com/v1" && flags.api !== knative) throw wrongUsage(`--api ${flags.api} is not known`);
      const wanted = (await deployments(flags)).sort((a, b) => (a.service < b.service ? -1 : 1));
      const objects = wanted.map((d) =>
        flags.api === knative ? knativeService(d, flags.namespace) : openfaasFunction(d, flags.namespace),
      );
      if (flags.json) return printJson(context, objects);
      for (const object of objects) context.stdout.write(`---\n${stringify(object, { lineWidth: 0 })}`);
    });

  async function deployments(flags: Flags): Promise<Deployment[]> {
    if (flags.fromStore !== undefined) {
      const found = findInStore(await readStore(context, flags), flags.fromStore, platformName(flags.arch));
      return [deploymentOfFlags(noFlags, storeBase(found))];
    }
    const file = await findStackFile(context, flags.yaml);
    if (file === undefined) throw wrongUsage("there is no stack file; name one by -f");
    const stack = await readStack(context, file, flags.envsubst);
    return Promise.all(chosen(stack, flags).map((f) => deploymentOf(context, f, noFlags, false)));
  }
};

const openfaasFunction = (d: Deployment, namespace: string) => {
  const { service, envVars, envProcess, ...spec } = d;
  const environment = { ...envVars, ...(envProcess && { fprocess: envProcess }) };
  return {
    apiVersion: "openfaas.com/v1",
    kind: "Function",
    metadata: { name: service, namespace: d.namespace ?? namespace },
    spec: {
      name: service,
      image: spec.image,
      ...(Object.keys(environment).length > 0 && { environment }),
      ...(Object.keys(spec.labels).length > 0 && { labels: spec.labels }),
      ...(Object.keys(spec.annotations).length > 0 && { annotations: spec.annotations }),
      ...(spec.limits && { limits: spec.limits }),
      ...(spec.requests && { requests: spec.requests }),
      ...(spec.constraints && { constraints: spec.constraints }),
      ...(spec.secrets && { secrets: spec.secrets }),
      ...(spec.readOnlyRootFilesystem && { readOnlyRootFilesystem: true }),
    },
  };
};

function knativeService(d: Deployment, namespace: string) {
  const env = Object.entries({ ...d.envVars, ...(d.envProcess && { fprocess: d.envProcess }) });
  const secrets = d.secrets ?? [];
  return {
    apiVersion: knative,
    kind: "Service",
    metadata: {
      name: d.service,
      namespace: d.namespace ?? namespace,
      ...(Object.keys(d.labels).length > 0 && { labels: d.labels }),
      ...(Object.keys(d.annotations).length > 0 && { annotations: d.annotations }),
    },
    spec: {
      template: {
        spec: {
          containers: [
            {
              image: d.image,
              ...(env.length > 0 && { env: env.map(([name, value]) => ({ name, value })) }),
              ...((d.limits || d.requests) && { resources: { limits: d.limits, requests: d.requests } }),
              ...(secrets.length > 0 && {
                volumeMounts: secrets.map((name) => ({
                  name,
                  mountPath: `/var/openfaas/secrets/${name}`,
                  subPath: name,
                  readOnly: true,
                })),
              }),
            },
          ],
          ...(secrets.length > 0 && { volumes: secrets.map((name) => ({ name, secret: { secretName: name } })) }),
        },
      },
    },
  };
}
