import { readFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { join, resolve } from "node:path";
import { type BuildOptions, buildArgsOf, buildCall, type Call, type ImagePlan } from "./build-arguments.ts";
import { assembleContext, type BuildContext } from "./build-context.ts";
import type { Builder } from "./builder.ts";
import type { Context } from "./context.ts";
import { Failure } from "./failure.ts";
import { remark } from "./output.ts";
import { runProgram } from "./program.ts";
import type { StackFunction } from "./stack.ts";
import { statusLines } from "./status-lines.ts";
import { ownWatchdogImage, watchdogArgument } from "./watchdog-image.ts";

/** What building takes of a function. */
export type BuildableFunction = Pick<
  StackFunction,
  "name" | "lang" | "handler" | "image" | "buildArgs" | "buildOptions" | "buildSecrets"
>;

export interface BuildAllOptions extends BuildOptions {
  /** Paths that go into every function's handler folder. */
  readonly copy: readonly string[];
  /** How many at once. */
  readonly parallel?: number;
  /** Nothing of what the builder says. */
  readonly quiet?: boolean;
  /** All of what the builder says. */
  readonly verbose?: boolean;
}

/** How one thing that was worked on ended. */
export interface Outcome {
  readonly name: string;
  readonly image?: string;
  readonly status: string;
  readonly seconds: number;
  readonly error?: string;
}

/** What is done for one function; `tell` changes its line. The end is the line's last text. */
export type Work<F> = (f: F, tell: (text: string) => void) => Promise<{ status: string; text: string }>;

/** Makes the contexts and images of all; fails with what went wrong when every one has ended. */
export async function buildAll(
  context: Context,
  builder: Builder,
  functions: readonly BuildableFunction[],
  options: BuildAllOptions,
): Promise<Outcome[]> {
  const watchdog = sharedWatchdog(context, builder, options);
  return forEach(context, functions, options, "built", async (f, tell) => {
    await buildOne(context, builder, f, options, watchdog, tell);
    return { status: "built", text: f.image };
  });
}

/** Makes the context and the image of one; the builder holds it afterwards. */
export async function buildOne(
  context: Context,
  builder: Builder,
  f: BuildableFunction,
  options: BuildAllOptions,
  watchdog: () => Promise<string | undefined>,
  tell: (text: string) => void,
): Promise<void> {
  tell("assembling");
  const made = await assembleContext(context, f, options.copy);
  const plan = await planOf(context, f, made, options, watchdog);
  tell("building");
  const onLine = speaker(context, f, options, tell);
  await runCall(context, builder, buildCall(builder, plan, context.env), made.dir, onLine);
}

/** Makes the contexts of all and leaves them there. */
export async function assembleAll(
  context: Context,
  functions: readonly BuildableFunction[],
  options: BuildAllOptions,
): Promise<Outcome[]> {
  return forEach(context, functions, options, "assembled", async (f) => {
    await assembleContext(context, f, options.copy);
    return { status: "assembled", text: `build/${f.name}` };
  });
}

/** Everything that a builder must know of a function whose context stands. */
export async function planOf(
  context: Context,
  f: BuildableFunction,
  { dir, template }: BuildContext,
  options: BuildOptions,
  watchdog: () => Promise<string | undefined>,
): Promise<ImagePlan> {
  const dockerfile = await readFile(join(dir, "Dockerfile"), "utf8").catch(() => {
    throw new Failure(`${f.name} has no Dockerfile; nap up deploys without one where the template says how`);
  });
  const buildArgs = buildArgsOf(f, options, template);
  const wantsWatchdog = watchdogArgument.test(dockerfile) && buildArgs.WATCHDOG_IMAGE === undefined;
  const image = wantsWatchdog ? await watchdog() : undefined;
  return {
    ...options,
    image: f.image,
    buildArgs: { ...buildArgs, ...(image && { WATCHDOG_IMAGE: image }) },
    secrets: Object.fromEntries(
      Object.entries(f.buildSecrets).map(([id, file]) => [id, resolve(context.cwd, file)] as const),
    ),
    mountSsh: template?.mountSsh ?? false,
  };
}

/** The image with the watchdog, made by whoever asks first. */
export function sharedWatchdog(
  context: Context,
  builder: Builder,
  options: { quiet?: boolean },
): () => Promise<string | undefined> {
  let image: Promise<string | undefined> | undefined;
  return () => {
    image ??= ownWatchdogImage(context, builder, () => {
      if (!options.quiet) remark(context, "putting the watchdog into an image, once");
    });
    return image;
  };
}

/** Runs a builder; fails with the end of what it said. */
export async function runCall(
  context: Context,
  { kind, program }: Builder,
  { args, env = {}, mayFail }: Call,
  cwd: string,
  onLine: (line: string) => void = () => {},
): Promise<void> {
  const { code, tail } = await runProgram(context, program, args, { cwd, env, onLine });
  context.signal.throwIfAborted();
  if (code === 0 || mayFail) return;
  throw new Failure(`${kind} ${args[0]} ended with ${code}\n${tail.map((line) => `    ${line}`).join("\n")}`);
}

/** Where lines of a builder go. */
export function speaker(
  context: Context,
  { name }: { name: string },
  { quiet, verbose }: { quiet?: boolean; verbose?: boolean },
  tell: (text: string) => void,
): (line: string) => void {
  if (verbose) return (line) => remark(context, `${name} | ${line}`);
  return quiet ? () => {} : tell;
}

/**
 * Works on all, a few at a time, with a line each. `done` is the word for those that succeeded. Fails when one failed,
 * with the reasons in full behind the lines.
 */
export async function forEach<F extends { name: string; image: string }>(
  context: Context,
  all: readonly F[],
  options: { readonly parallel?: number; readonly quiet?: boolean; readonly verbose?: boolean },
  done: string,
  work: Work<F>,
): Promise<Outcome[]> {
  if (all.length === 0) return [];
  const { parallel = Math.min(4, availableParallelism()), quiet = false, verbose = false } = options;
  const { stderr } = context;
  const names = all.map((f) => f.name);
  const lines = statusLines(context, names, !quiet && !verbose);
  const waiting = all.map((f, at) => ({ f, at }));
  const outcomes: Outcome[] = [];

  async function one({ f, at }: { f: F; at: number }): Promise<void> {
    const began = performance.now();
    const seconds = () => Math.round((performance.now() - began) / 100) / 10;
    try {
      const { status, text } = await work(f, (said) => lines.set(f.name, said));
      if (!quiet) lines.end(f.name, `${text} (${seconds().toFixed(1)} s)`, { word: status, colour: "green" });
      outcomes[at] = { name: f.name, image: f.image, status, seconds: seconds() };
    } catch (e) {
      // what the file system refuses is this function's failure, too
      if (!(e instanceof Failure) && !(e as NodeJS.ErrnoException).code?.startsWith("E")) throw e;
      const { message } = e as Error;
      lines.end(f.name, message.split("\n")[0]!, { word: "failed", colour: "red" });
      outcomes[at] = { name: f.name, image: f.image, status: "failed", seconds: seconds(), error: message };
    }
  }
  const worker = async () => {
    for (let next = waiting.shift(); next; next = waiting.shift()) await one(next);
  };
  await Promise.all(Array.from({ length: Math.min(parallel, all.length) }, worker));
  const failed = outcomes.filter((o) => o.error !== undefined);
  if (failed.length === 0) return outcomes;
  // a line has only the first words of a reason
  const reasons = failed.filter((o) => stderr.isTTY || o.error!.includes("\n")).map((o) => `\n${o.name}: ${o.error}`);
  throw new Failures(
    `${failed.length} of ${all.length} not ${done}: ${failed.map((o) => o.name).join(", ")}${reasons.join("")}`,
    outcomes,
  );
}

/** Some failed; the outcomes of all. */
export class Failures extends Failure {
  readonly outcomes: readonly Outcome[];

  constructor(message: string, outcomes: readonly Outcome[]) {
    super(message);
    this.outcomes = outcomes;
  }
}
