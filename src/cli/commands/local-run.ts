import { once } from "node:events";
import { stat } from "node:fs/promises";
import { type AddressInfo, createServer } from "node:net";
import { join } from "node:path";
import { isName, nameRule } from "../../base/names.ts";
import { buildAll } from "../build.ts";
import { type BuildFlags, buildFlags, buildOptionsOf, functionsToBuild } from "../build-flags.ts";
import { findBuilder } from "../builder.ts";
import { Failure, wrongUsage } from "../failure.ts";
import { onOff, pairs, repeated, type StackFlags, stackFlags, wholeNumber } from "../flags.ts";
import type { Define } from "../main.ts";
import { print, remark } from "../output.ts";
import { type RunPlan, runCalls, runImage } from "../run-image.ts";
import { environmentOf, type StackFunction } from "../stack.ts";
import { ensureTemplates } from "../template-pull.ts";
import { findTemplate } from "../templates.ts";

interface Flags extends StackFlags, BuildFlags {
  port: number;
  network?: string;
  env: string[];
  print?: boolean;
  build: boolean;
}

/** In the order in which they are looked for; buildah last, which has no networks of its own. */
const engines = ["docker", "podman", "nerdctl", "buildah"] as const;

export const define: Define = (command, context) => {
  buildFlags(stackFlags(command))
    .description("run a function of the stack file in a container of this machine, without a gateway")
    .argument("[function]", "needed where the stack file has several")
    .option("-p, --port <port>", "where it answers; 0 for any", wholeNumber, 8080)
    .option("--network <name>", "of the engine")
    .option("--print", "say what would be run, and run nothing");
  repeated(command, "-e, --env <key=value>", "environment variable");
  onOff(command, "build", "build the image first").action(async (name: string | undefined, flags: Flags) => {
    const wanted = await functionsToBuild(context, flags);
    const f = chosenOne(wanted.functions, name);
    if (flags.port > 65_535 || flags.port < 0) throw wrongUsage(`--port ${flags.port}: it is a number up to 65535`);
    const port = flags.port || (await anyPort());
    const builder = await findBuilder(context, flags.builder, engines);
    if (builder.kind === "buildah" && flags.network)
      throw wrongUsage("--network: buildah runs functions on this machine's own network only");
    await ensureTemplates(context, [f], flags.disableStackPull ? [] : wanted.templates);
    const plan = await planOf(f, flags, port);
    if (flags.build && !flags.print) await buildAll(context, builder, [f], buildOptionsOf(flags, wanted.copy));
    const calls = await runCalls(context, builder, plan);
    if (flags.print) {
      const lines = builder.kind === "buildah" ? [calls.before[1]!, calls.run, ...calls.after] : [calls.run];
      for (const args of lines) print(context, [builder.kind, ...args].map(quoted).join(" "));
      return;
    }
    remark(context, `${f.name} answers on http://127.0.0.1:${port}; Ctrl-C ends it`);
    const code = await runImage(context, builder, calls);
    if (code !== 0 && !context.signal.aborted) throw new Failure(`${f.name} ended with ${code}`);
  });

  function chosenOne(functions: readonly StackFunction[], name: string | undefined): StackFunction {
    const found = functions.filter((f) => name === undefined || f.name === name);
    if (found.length === 1 && !isName(found[0]!.name))
      throw new Failure(`"${found[0]!.name}" is no name of a function: it must be ${nameRule}`);
    if (found.length === 1) return found[0]!;
    if (name !== undefined) throw new Failure(`the stack file has no function ${name} that is built`);
    throw wrongUsage(`say which function: ${functions.map((f) => f.name).join(", ")}`);
  }

  async function planOf(f: StackFunction, flags: Flags, port: number): Promise<RunPlan> {
    const fprocess = f.fprocess ?? (f.lang ? (await findTemplate(context, f.lang))?.fprocess : undefined);
    const env = {
      ...(await environmentOf(context, f)),
      ...pairs(flags.env, "--env"),
      OPENFAAS_NAME: f.name,
      OPENFAAS_NAMESPACE: f.namespace ?? "openfaas-fn",
      jwt_auth_local: "true",
      ...(fprocess && { fprocess }),
    };
    const { name, image, readOnly, limits = {}, requests = {} } = f;
    const secrets = await secretsOf(f);
    return {
      ...{ name, image, port, env, readOnly, limits, requests },
      ...(flags.network && { network: flags.network }),
      ...(secrets && { secrets }),
    };
  }

  /** Secrets are the files of `./.secrets`. */
  async function secretsOf({ secrets }: StackFunction): Promise<string | undefined> {
    const dir = join(context.cwd, ".secrets");
    for (const name of secrets)
      if (!(await stat(join(dir, name)).catch(() => undefined)))
        throw new Failure(`secret ${name} is not there: put it into the file .secrets/${name}`);
    return secrets.length > 0 ? dir : undefined;
  }
};

const quoted = (word: string): string => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`);

async function anyPort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}
