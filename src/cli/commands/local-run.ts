import { once } from "node:events";
import { stat } from "node:fs/promises";
import { type AddressInfo, createServer } from "node:net";
import { join } from "node:path";
import { isName, nameRule } from "../../base/names.ts";
import { parseCpu, parseMemory } from "../../base/quantities.ts";
import { buildAll } from "../build.ts";
import { type BuildFlags, buildFlags, buildOptionsOf, functionsToBuild } from "../build-flags.ts";
import { findBuilder } from "../builder.ts";
import { Failure, wrongUsage } from "../failure.ts";
import { onOff, pairs, repeated, type StackFlags, stackFlags, wholeNumber } from "../flags.ts";
import type { Define } from "../main.ts";
import { print, remark } from "../output.ts";
import { runInForeground, runProgram } from "../program.ts";
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

/** Engines that run a container with a port; buildah only makes images. */
const engines = ["docker", "podman", "nerdctl"] as const;

/** docker refuses containers with less memory. */
const leastMemory = 6 * 2 ** 20;

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
    if (builder.kind === "buildah")
      throw wrongUsage("buildah runs no functions; take docker, podman or nerdctl, or nap up for a napd");
    await ensureTemplates(context, [f], flags.disableStackPull ? [] : wanted.templates);
    const args = await runArguments(f, flags, port);
    if (flags.print) return print(context, [builder.kind, ...args].map(quoted).join(" "));
    if (flags.build) await buildAll(context, builder, [f], buildOptionsOf(flags, wanted.copy));
    // of an earlier run that was not ended well
    await runProgram(context, builder.program, ["rm", "-f", f.name]);
    remark(context, `${f.name} answers on http://127.0.0.1:${port}; Ctrl-C ends it`);
    const code = await runInForeground(context, builder.program, args);
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

  /** As contracts/cli.md §2.12 has them. */
  async function runArguments(f: StackFunction, flags: Flags, port: number): Promise<string[]> {
    const fprocess = f.fprocess ?? (f.lang ? (await findTemplate(context, f.lang))?.fprocess : undefined);
    const env = {
      ...(await environmentOf(context, f)),
      ...pairs(flags.env, "--env"),
      OPENFAAS_NAME: f.name,
      OPENFAAS_NAMESPACE: f.namespace ?? "openfaas-fn",
      jwt_auth_local: "true",
      ...(fprocess && { fprocess }),
    };
    return [
      "run",
      ...["--name", f.name, "--rm", "-i", `-p=${port}:8080`],
      ...(flags.network ? [`--network=${flags.network}`] : []),
      ...Object.entries(env).map(([key, value]) => `-e=${key}=${value}`),
      ...(f.readOnly ? ["--read-only"] : []),
      ...memory("--memory", f.limits?.memory),
      ...memory("--memory-reservation", f.requests?.memory),
      ...cpus(f.limits?.cpu),
      ...(await secretVolume(f)),
      f.image,
    ];
  }

  /** Secrets are the files of `./.secrets`. */
  async function secretVolume({ secrets }: StackFunction): Promise<string[]> {
    if (secrets.length === 0) return [];
    const dir = join(context.cwd, ".secrets");
    for (const name of secrets)
      if (!(await stat(join(dir, name)).catch(() => undefined)))
        throw new Failure(`secret ${name} is not there: put it into the file .secrets/${name}`);
    return [`--volume=${dir}:/var/openfaas/secrets:ro`];
  }
};

function memory(flag: string, quantity: string | undefined): string[] {
  if (!quantity) return [];
  const bytes = parseMemory(quantity);
  if (bytes === undefined) throw new Failure(`${quantity} is no amount of memory, such as 128Mi`);
  return [`${flag}=${Math.max(bytes, leastMemory)}`];
}

function cpus(quantity: string | undefined): string[] {
  if (!quantity) return [];
  const cores = parseCpu(quantity);
  if (cores === undefined) throw new Failure(`${quantity} is no amount of CPU, such as 500m`);
  return [`--cpus=${cores}`];
}

const quoted = (word: string): string => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`);

async function anyPort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}
