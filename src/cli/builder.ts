import { basename } from "node:path";
import type { Context } from "./context.ts";
import { Failure, wrongUsage } from "./failure.ts";
import { findProgram, runProgram } from "./program.ts";

/** In the order in which they are looked for. */
const kinds = ["buildah", "docker", "nerdctl", "podman"] as const;
export type BuilderKind = (typeof kinds)[number];

/** A program that makes images of Dockerfiles, and holds them. */
export interface Builder {
  readonly kind: BuilderKind;
  readonly program: string;
}

/**
 * What tells whether it can work: buildah and podman reach their storage, docker and nerdctl the engine behind them. A
 * client without an engine is no builder.
 */
const probes: Readonly<Record<BuilderKind, readonly string[]>> = {
  buildah: ["images", "--quiet"],
  docker: ["version", "--format", "{{.Server.Version}}"],
  nerdctl: ["version", "--format", "{{.Server.Components}}"],
  podman: ["images", "--quiet"],
};
const probeTimeoutMs = 15_000;

const remedy = "install buildah (Debian: apt-get install buildah), or take nap up, which can do without a builder";

/**
 * The builder that is named, by `--builder` or `NAP_BUILDER`, as it is; else the first that works.
 * @param among - those that will do.
 */
export async function findBuilder(
  context: Context,
  wanted = context.env.NAP_BUILDER,
  among: readonly BuilderKind[] = kinds,
): Promise<Builder> {
  if (wanted) {
    const program = await findProgram(context, wanted);
    if (!program) throw new Failure(`builder ${wanted} is not installed; ${remedy}`);
    return { kind: kindOf(wanted), program };
  }
  const reasons: string[] = [];
  for (const kind of among) {
    const program = await findProgram(context, kind);
    if (!program) continue;
    const { code, tail } = await runProgram(context, program, probes[kind], { timeoutMs: probeTimeoutMs });
    if (code === 0) return { kind, program };
    reasons.push(`${kind} does not work: ${tail.at(-1) ?? `it ended with ${code}`}`);
  }
  if (reasons.length === 0) reasons.push(`there is none of ${among.join(", ")} here`);
  throw new Failure(`${reasons.join("; ")}; ${remedy}`);
}

function kindOf(name: string): BuilderKind {
  const kind = kinds.find((k) => basename(name).includes(k));
  if (!kind) throw wrongUsage(`builder ${name} is none of ${kinds.join(", ")}`);
  return kind;
}
