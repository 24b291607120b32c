import { parseCpu, parseMemory } from "../base/quantities.ts";
import type { Builder } from "./builder.ts";
import type { Context } from "./context.ts";
import { Failure } from "./failure.ts";
import { canonical } from "./image-name.ts";
import { runInForeground, runProgram } from "./program.ts";

/** An image that is to run as a function on this machine, without a gateway. */
export interface RunPlan {
  readonly name: string;
  readonly image: string;
  /** Where it answers. */
  readonly port: number;
  readonly env: Readonly<Record<string, string>>;
  readonly network?: string;
  readonly readOnly: boolean;
  readonly limits: Readonly<Record<string, string>>;
  readonly requests: Readonly<Record<string, string>>;
  /** Folder of its secrets. */
  readonly secrets?: string;
}

/** docker refuses containers with less memory. */
const leastMemory = 6 * 2 ** 20;
const cleanUpMs = 30_000;

/** The command lines: what clears an earlier run away, what runs, and what clears this one away. */
export interface RunCalls {
  readonly before: readonly (readonly string[])[];
  readonly run: readonly string[];
  readonly after: readonly (readonly string[])[];
}

/** As contracts/cli.md §2.12 has it; buildah has no ports of its own, so there the function is on the host's network. */
export async function runCalls(context: Context, builder: Builder, plan: RunPlan): Promise<RunCalls> {
  const { name, image, port, env, network, readOnly, limits, requests, secrets } = plan;
  const volume = secrets === undefined ? [] : [`--volume=${secrets}:/var/openfaas/secrets:ro`];
  if (builder.kind === "buildah") {
    const container = `nap-${name}`;
    const all = { ...env, port: String(port), metrics_port: "0" };
    const variables = Object.entries(all).map(([key, value]) => `--env=${key}=${value}`);
    const command = await commandOf(context, builder, image);
    return {
      before: [
        ["rm", container],
        ["from", "--pull=false", "--name", container, canonical(image)],
      ],
      run: ["run", "--network=host", ...variables, ...volume, container, "--", ...command],
      after: [["rm", container]],
    };
  }
  const run = [
    "run",
    ...["--name", name, "--rm", "-i", `-p=${port}:8080`],
    ...(network ? [`--network=${network}`] : []),
    ...Object.entries(env).map(([key, value]) => `-e=${key}=${value}`),
    ...(readOnly ? ["--read-only"] : []),
    ...memory("--memory", limits.memory),
    ...memory("--memory-reservation", requests.memory),
    ...cpus(limits.cpu),
    ...volume,
    builder.kind === "docker" ? image : canonical(image),
  ];
  return { before: [["rm", "-f", name]], run, after: [] };
}

/** Runs it until it ends or Ctrl-C ends it; leaves no container. The exit code. */
export async function runImage(context: Context, { program }: Builder, calls: RunCalls): Promise<number> {
  for (const args of calls.before) await runProgram(context, program, args);
  try {
    return await runInForeground(context, program, calls.run);
  } finally {
    const later = { ...context, signal: AbortSignal.timeout(cleanUpMs) };
    for (const args of calls.after) await runProgram(later, program, args);
  }
}

/** What the image runs, which buildah wants to be told. */
async function commandOf(context: Context, { program }: Builder, image: string): Promise<string[]> {
  const { code, stdout } = await runProgram(context, program, ["inspect", "--type", "image", canonical(image)]);
  if (code !== 0) throw new Failure(`image ${image} is not there; build it first`);
  const { OCIv1 } = JSON.parse(stdout) as { OCIv1?: { config?: { Entrypoint?: string[]; Cmd?: string[] } } };
  const command = [...(OCIv1?.config?.Entrypoint ?? []), ...(OCIv1?.config?.Cmd ?? [])];
  if (command.length === 0) throw new Failure(`image ${image} has neither an ENTRYPOINT nor a CMD`);
  return command;
}

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
