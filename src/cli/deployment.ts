import type { Command } from "commander";
import type { Context } from "./context.ts";
import { Failure, wrongUsage } from "./failure.ts";
import { pairs, repeated } from "./flags.ts";
import { environmentOf, type StackFunction } from "./stack.ts";
import { findTemplate, isDockerfile } from "./templates.ts";

type Text = Record<string, string>;

/** Body of a deploy; contracts/api.md §2.1. What is empty is left out, except labels and annotations. */
export interface Deployment {
  service: string;
  image: string;
  namespace?: string;
  envProcess?: string;
  envVars?: Text;
  constraints?: string[];
  secrets?: string[];
  labels: Text;
  annotations: Text;
  limits?: Text;
  requests?: Text;
  readOnlyRootFilesystem?: true;
}

/** Flags that say how a function is to be, or change what a stack file says. */
export interface FunctionFlags {
  name?: string;
  image?: string;
  namespace?: string;
  fprocess?: string;
  env: string[];
  label: string[];
  annotation: string[];
  constraint: string[];
  secret: string[];
  readonly?: boolean;
  cpuLimit?: string;
  cpuRequest?: string;
  memoryLimit?: string;
  memoryRequest?: string;
}

export function functionFlags(command: Command): Command {
  command
    .option("--name <name>", "function")
    .option("--image <image>", "image")
    .option("--fprocess <command>", "process");
  repeated(command, "-e, --env <key=value>", "environment variable");
  repeated(command, "-l, --label <key=value>", "label");
  repeated(command, "--annotation <key=value>", "annotation");
  repeated(command, "--constraint <constraint>", "constraint");
  repeated(command, "--secret <name>", "secret that the function reads");
  return command
    .option("--readonly", "root file system that the function cannot write to")
    .option("--cpu-limit <quantity>", "such as 500m")
    .option("--cpu-request <quantity>", "such as 100m")
    .option("--memory-limit <quantity>", "such as 128Mi")
    .option("--memory-request <quantity>", "such as 64Mi");
}

/** The body in the order and with the gaps that clients send it with. */
function compose(parts: {
  service: string;
  image: string;
  namespace?: string | undefined;
  envProcess?: string | undefined;
  envVars: Text;
  constraints: readonly string[];
  secrets: readonly string[];
  labels: Text;
  annotations: Text;
  limits: Text;
  requests: Text;
  readOnly: boolean;
}): Deployment {
  const { service, image, namespace, envProcess, constraints, secrets } = parts;
  const resources = ({ memory, cpu, ...others }: Text): Text => ({
    ...(memory && { memory }),
    ...(cpu && { cpu }),
    ...others,
  });
  const [limits, requests] = [resources(parts.limits), resources(parts.requests)];
  return {
    service,
    image,
    ...(namespace && { namespace }),
    ...(envProcess && { envProcess }),
    ...(!isEmpty(parts.envVars) && { envVars: sorted(parts.envVars) }),
    ...(constraints.length > 0 && { constraints: [...constraints] }),
    ...(secrets.length > 0 && { secrets: [...new Set(secrets)] }),
    labels: sorted(parts.labels),
    annotations: sorted(parts.annotations),
    ...(!isEmpty(limits) && { limits }),
    ...(!isEmpty(requests) && { requests }),
    ...(parts.readOnly && { readOnlyRootFilesystem: true }),
  };
}

const isEmpty = (map: Text): boolean => Object.keys(map).length === 0;
const sorted = (map: Text): Text => Object.fromEntries(Object.entries(map).sort(([a], [b]) => (a < b ? -1 : 1)));

const resourcesOf = (memory: string | undefined, cpu: string | undefined): Text => ({
  ...(memory && { memory }),
  ...(cpu && { cpu }),
});

const environmentOfFlags = (flags: FunctionFlags): Text => {
  const env = pairs(flags.env, "--env");
  const empty = Object.entries(env).find(([, value]) => value === "");
  if (empty) throw wrongUsage(`--env ${empty[0]}=: an empty value is possible in a stack file only`);
  return env;
};

/** From flags alone; `base` is what a store says, whose labels and annotations win. */
export function deploymentOfFlags(flags: FunctionFlags, base: Partial<StackFunction> = {}): Deployment {
  const service = flags.name ?? base.name;
  const image = flags.image ?? base.image;
  if (!service || !image) throw wrongUsage("give --image and --name, or a stack file by -f");
  return compose({
    service,
    image,
    namespace: flags.namespace,
    envProcess: flags.fprocess ?? base.fprocess,
    envVars: { ...base.environment, ...environmentOfFlags(flags) },
    constraints: flags.constraint,
    secrets: flags.secret,
    labels: { ...pairs(flags.label, "--label"), ...base.labels },
    annotations: { ...pairs(flags.annotation, "--annotation"), ...base.annotations },
    limits: resourcesOf(flags.memoryLimit, flags.cpuLimit),
    requests: resourcesOf(flags.memoryRequest, flags.cpuRequest),
    readOnly: flags.readonly ?? base.readOnly ?? false,
  });
}

/** From a function of a stack file, with flags over it. */
export async function deploymentOf(
  context: Context,
  f: StackFunction,
  flags: FunctionFlags,
  readTemplate: boolean,
): Promise<Deployment> {
  if (f.image === "") throw new Failure(`function ${f.name} of the stack file has no image`);
  return compose({
    service: f.name,
    image: f.image,
    namespace: flags.namespace || f.namespace,
    envProcess: flags.fprocess ?? f.fprocess ?? (readTemplate ? await templateProcess(context, f) : undefined),
    envVars: { ...(await environmentOf(context, f)), ...environmentOfFlags(flags) },
    constraints: f.constraints ?? flags.constraint,
    secrets: [...flags.secret, ...f.secrets],
    labels: { ...f.labels, ...pairs(flags.label, "--label") },
    annotations: { ...f.annotations, ...pairs(flags.annotation, "--annotation") },
    limits: { ...f.limits, ...resourcesOf(flags.memoryLimit, flags.cpuLimit) },
    requests: { ...f.requests, ...resourcesOf(flags.memoryRequest, flags.cpuRequest) },
    readOnly: flags.readonly || f.readOnly,
  });
}

/** The process of the template that a function is built with. */
async function templateProcess(context: Context, { name, lang }: StackFunction): Promise<string | undefined> {
  if (!lang || isDockerfile(lang)) return undefined;
  const template = await findTemplate(context, lang);
  if (template) return template.fprocess;
  throw new Failure(
    `function ${name} has no fprocess, and template/${lang}/template.yml is not there to look it up; nap template pull fetches templates, --no-read-template deploys without`,
  );
}
