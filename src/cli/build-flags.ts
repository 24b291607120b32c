import type { Command } from "commander";
import { type BuildAllOptions, Failures, type Outcome } from "./build.ts";
import type { Context } from "./context.ts";
import { wrongUsage } from "./failure.ts";
import { pairs, repeated, type StackFlags, wholeNumber } from "./flags.ts";
import { referenceOf } from "./image-name.ts";
import { type TagMode, tagFlag, tagged } from "./image-tag.ts";
import { printJson } from "./output.ts";
import { chosen, readStack, type StackFunction, type TemplateSource } from "./stack.ts";
import { findStackFile } from "./stack-file.ts";

/** Of `build`, and of all that build on their way. */
export interface BuildFlags {
  builder?: string;
  cache: boolean;
  squash?: boolean;
  pull?: boolean;
  parallel?: number;
  buildArg: string[];
  buildOption: string[];
  buildLabel: string[];
  copyExtra: string[];
  disableStackPull?: boolean;
  tag: TagMode;
  quiet?: boolean;
  verbose?: boolean;
}

export const builderFlag = (command: Command): Command =>
  command.option("--builder <name>", "buildah, docker, nerdctl or podman; else NAP_BUILDER, else the first that works");

export const parallelFlag = (command: Command): Command =>
  command.option("--parallel <n>", "how many at once", (text) => {
    const n = wholeNumber(text);
    if (n < 1) throw wrongUsage("--parallel: at least 1");
    return n;
  });

export function buildFlags(command: Command): Command {
  builderFlag(command);
  command
    .option("--no-cache", "take no steps of earlier builds")
    .option("--squash", "put all new layers into one")
    .option("--pull", "look for newer base images");
  parallelFlag(command);
  repeated(command, "-b, --build-arg <key=value>", "argument of the Dockerfile");
  repeated(command, "-o, --build-option <name>", "packages that the template has under this name");
  repeated(command, "--build-label <key=value>", "label of the image");
  repeated(command, "--copy-extra <path>", "what goes into the handler folder as well");
  return command
    .option("--disable-stack-pull", "do not fetch templates from where the stack file says")
    .addOption(tagFlag())
    .option("-q, --quiet", "nothing but failures")
    .option("-v, --verbose", "all that the builder says");
}

export const buildOptionsOf = (flags: BuildFlags, copy: readonly string[]) =>
  ({
    noCache: !flags.cache,
    squash: flags.squash ?? false,
    pull: flags.pull ?? false,
    buildArgs: pairs(flags.buildArg, "--build-arg"),
    buildOptions: flags.buildOption,
    buildLabels: pairs(flags.buildLabel, "--build-label"),
    copy: [...copy, ...flags.copyExtra],
    ...(flags.parallel !== undefined && { parallel: flags.parallel }),
    quiet: flags.quiet ?? false,
    verbose: flags.verbose ?? false,
  }) satisfies BuildAllOptions;

/** What is to be built, pushed or run. */
export interface Wanted {
  /** Of those that --filter or --regex choose; without those with `skip_build`. */
  readonly functions: readonly StackFunction[];
  readonly copy: readonly string[];
  readonly templates: readonly TemplateSource[];
  readonly gateway?: string;
}

export interface OneFunction {
  image?: string;
  name?: string;
  handler?: string;
  lang?: string;
}

/** One function by flags, where an image is among them and no stack file is named; else those of the stack file. */
export async function functionsToBuild(
  context: Context,
  flags: StackFlags & OneFunction & { tag: TagMode },
): Promise<Wanted> {
  const { image, name, handler, lang } = flags;
  const file = image && !flags.yaml ? undefined : await findStackFile(context, flags.yaml);
  if (file === undefined) {
    if (!image || !name || !handler || !lang)
      throw wrongUsage("there is no stack file; name one by -f, or give --image, --name, --handler and --lang");
    const one: StackFunction = {
      name,
      lang,
      handler,
      image: /[:@][^/]*$/.test(image) ? image : `${image}:latest`,
      environment: {},
      environmentFiles: [],
      secrets: [],
      labels: {},
      annotations: {},
      readOnly: false,
      skipBuild: false,
      buildArgs: {},
      buildOptions: [],
      buildSecrets: {},
    };
    referenceOf(one.image);
    return { functions: await tagged(context, [one], flags.tag), copy: [], templates: [] };
  }
  const stack = await readStack(context, file, flags.envsubst);
  const functions = chosen(stack, flags).filter((f) => !f.skipBuild);
  for (const { name, image } of functions) {
    if (image === "") throw wrongUsage(`function ${name} of ${file} has no image`);
    referenceOf(image); // before a builder takes it for something else
  }
  return {
    functions: await tagged(context, functions, flags.tag),
    copy: stack.copy,
    templates: stack.templates,
    ...(stack.gateway && { gateway: stack.gateway }),
  };
}

/** The outcomes as JSON, where that is asked for, also when some failed. */
export async function reported(
  context: Context,
  { json }: { json?: boolean },
  work: Promise<readonly Outcome[]>,
): Promise<void> {
  try {
    const outcomes = await work;
    if (json) printJson(context, outcomes);
  } catch (e) {
    if (json && e instanceof Failures) printJson(context, e.outcomes);
    throw e;
  }
}
