import { basename, resolve } from "node:path";
import { isName, nameRule } from "../base/names.ts";
import type { BuildAllOptions } from "./build.ts";
import { sourcesOf } from "./build-context.ts";
import { type BuildFlags, buildOptionsOf } from "./build-flags.ts";
import { type BuildLine, openBuildLine } from "./build-job.ts";
import type { Context } from "./context.ts";
import { type Done, deployOne, type Subject } from "./deploy.ts";
import { deploymentOf, deploymentOfFlags, type FunctionFlags } from "./deployment.ts";
import { Failure, wrongUsage } from "./failure.ts";
import type { StackFlags } from "./flags.ts";
import type { Gateway } from "./gateway.ts";
import { baseFor, guessFolder } from "./guess.ts";
import { tagged } from "./image-tag.ts";
import { folderRecipe, hasLayer, lacks, type Recipe, siteRecipe, templateRecipe } from "./recipe.ts";
import { chosen, readStack, type StackFunction } from "./stack.ts";
import { findStackFile } from "./stack-file.ts";
import { ensureTemplates } from "./template-pull.ts";
import { isDockerfile, ownTemplates, requireTemplate, type Template } from "./templates.ts";
import { packAndDeploy, type Step, type UpOptions } from "./up.ts";

/** A function that `nap up` brings from its files to a gateway, as often as it is asked to. */
export interface Job extends Subject {
  /** Files and folders that it is made of, absolute: when one changes, it is to be done again. */
  readonly sources: readonly string[];
  /** How it is done, where that was found out rather than said. */
  readonly remark?: string;
  run(gateway: Gateway, tell: (text: string) => void): Promise<JobDone>;
}

export interface JobDone extends Done {
  readonly image?: string;
  readonly steps?: readonly Step[];
  readonly notes?: readonly string[];
}

export interface Plan {
  readonly jobs: readonly Job[];
  /** The stack file's gateway. */
  readonly gateway?: string;
  /** Absolute: when it changes, the plan is another. */
  readonly file?: string;
}

export interface PlanFlags extends StackFlags, FunctionFlags, Omit<BuildFlags, "builder"> {
  lang?: string;
  base?: string;
  process?: string;
  /** False: nothing is built, everything is packed; a name: everything is built, by this one. */
  builder?: string | false;
}

/** What all jobs of a plan share. */
interface Shared {
  readonly context: Context;
  readonly flags: PlanFlags;
  readonly options: UpOptions;
  readonly build: BuildAllOptions;
  readonly line: BuildLine;
}

/** The functions of the stack file or, where a folder is named or there is no stack file, that of the folder. */
export async function planUp(
  context: Context,
  folder: string | undefined,
  flags: PlanFlags,
  options: UpOptions,
): Promise<Plan> {
  const file = folder === undefined ? await findStackFile(context, flags.yaml) : undefined;
  if (folder !== undefined && flags.yaml) throw wrongUsage("give a folder or a stack file, not both");
  const share = (copy: readonly string[]): Shared => {
    const build = { ...buildOptionsOf({ ...flags, builder: "" }, copy), quiet: true };
    return { context, flags, options, build, line: openBuildLine(context, flags.builder, build, options) };
  };
  if (file === undefined) return { jobs: [await folderJob(share([]), folder ?? ".")] };
  const { base, process, lang } = flags;
  if (base || process || lang) throw wrongUsage("--base, --process and --lang are for a folder, not for a stack file");
  const stack = await readStack(context, file, flags.envsubst);
  const functions = await tagged(context, chosen(stack, flags), flags.tag);
  if (functions.length === 0) throw new Failure(`${file} has no functions`);
  const made = functions.filter((f) => !isMadeElsewhere(f));
  await ensureTemplates(context, made, flags.disableStackPull ? [] : stack.templates);
  const shared = share(stack.copy);
  const jobs = await Promise.all(functions.map((f) => stackJob(shared, f)));
  return {
    jobs,
    ...(stack.gateway && { gateway: stack.gateway }),
    ...(!/^https?:/.test(file) && { file: resolve(context.cwd, file) }),
  };
}

/** It has an image that is only to be deployed. */
const isMadeElsewhere = (f: StackFunction): boolean => f.skipBuild || (!f.lang && !f.handler);

/**
 * Where the watchdog serves by itself no process says that it is wanted. Where it passes calls on, the function is ready
 * when it listens itself: so a version that does not come up never takes the place of one that runs.
 */
const annotationsFor = ({ process, changes }: Recipe): Record<string, string> => ({
  ...(process === undefined && { "napd.watchdog": "inject" }),
  ...(changes.env?.mode === "http" && { "com.openfaas.ready.http.path": "/_/ready" }),
});

async function folderJob(shared: Shared, given: string): Promise<Job> {
  const { context, flags, options } = shared;
  const folder = resolve(context.cwd, given);
  const stackFile = await findStackFile({ ...context, cwd: folder }, undefined);
  if (stackFile) throw wrongUsage(`${given} has a ${stackFile}: run nap up in there, or name it by -f`);
  const name = flags.name ?? nameOf(folder);
  if (!isName(name)) throw wrongUsage(`--name ${name}: it must be ${nameRule}`);
  const { namespace } = flags;
  const found = await folderRecipes(context, folder, flags);
  if ("dockerfile" in found)
    return buildJob(shared, dockerFunction(name, folder, flags.image), folder, found.dockerfile);
  const { recipe, remark } = found;
  return {
    name,
    namespace,
    remark,
    sources: [folder],
    run: (gateway, tell) =>
      packAndDeploy(
        gateway,
        {
          ...{ context, name, namespace, recipe, repository: flags.image ? repositoryOf(flags.image) : name },
          deployment: async (image, made) => {
            const fprocess = flags.fprocess ?? made.process;
            const ours = Object.entries(annotationsFor(made)).map(([key, value]) => `${key}=${value}`);
            const annotation = [...ours, ...flags.annotation];
            return deploymentOfFlags({ ...flags, name, image, annotation, ...(fprocess && { fprocess }) });
          },
        },
        options,
        tell,
      ),
  };
}

/** What a folder is made into: as the flags say, else by its files. */
async function folderRecipes(
  context: Context,
  folder: string,
  flags: PlanFlags,
): Promise<{ recipe: () => Promise<Recipe>; remark: string } | { dockerfile: string }> {
  const { process, lang } = flags;
  if (lang) return ofTemplate(lang, `template ${lang}`);
  if (process) return ofScript(process, flags.base ?? baseFor(process), `runs ${process}`);
  const guessed = await guessFolder(folder, { mayBuild: flags.builder !== false });
  if (guessed.kind === "builder") return { dockerfile: guessed.why };
  if (guessed.kind === "site")
    return { recipe: () => siteRecipe(context, folder, flags.base), remark: `${guessed.why}, served by the watchdog` };
  if (guessed.kind === "template") return ofTemplate(guessed.lang, guessed.why);
  return ofScript(guessed.process, flags.base ?? guessed.base, guessed.why);

  function ofScript(command: string, base: string, why: string) {
    return {
      recipe: () => folderRecipe(context, folder, { base, process: command }),
      remark: `${why}, on ${base}`,
    };
  }

  async function ofTemplate(lang: string, why: string) {
    const template = await requireTemplate(context, lang);
    if (!hasLayer(template))
      throw new Failure(`template ${lang} does not say how it is used without a builder (layer)`);
    const base = flags.base ?? template.layer.base;
    const recipe = () => templateRecipe(context, template, { handler: folder, copy: [], base, starters: false });
    return { recipe, remark: `${why}, on ${base}` };
  }
}

function nameOf(folder: string): string {
  const name = basename(folder)
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, "-")
    .replace(/^-+|-+$/g, "")
    .slice(0, 63);
  if (!isName(name)) throw wrongUsage(`${folder} gives no name for a function; --name must be ${nameRule}`);
  return name;
}

/** The name of an image without tag and digest. */
export const repositoryOf = (image: string): string => image.replace(/@.*$/, "").replace(/:[^/:]*$/, "");

async function stackJob(shared: Shared, f: StackFunction): Promise<Job> {
  const { context, flags, options, build } = shared;
  const subject = { name: f.name, namespace: flags.namespace || f.namespace };
  const extras = [...build.copy, ...f.environmentFiles].map((path) => resolve(context.cwd, path));
  if (isMadeElsewhere(f)) {
    const run = async (gateway: Gateway, tell: (text: string) => void): Promise<JobDone> => {
      if (!options.deploy) return { state: "skipped", how: "it is not built" };
      return deployOne(context, gateway, await deploymentOf(context, f, flags, true), options, tell);
    };
    return { ...subject, sources: extras, run };
  }
  const { template, handler } = await sourcesOf(context, f);
  const why = await wantsBuilder(f, template, handler, flags);
  if (why !== undefined || !template || !hasLayer(template)) return buildJob(shared, f, handler, why ?? "", template);
  return {
    ...subject,
    sources: sourcesAt(handler, extras, template),
    run: (gateway, tell) =>
      packAndDeploy(
        gateway,
        {
          ...{ context, ...subject, repository: f.image === "" ? f.name : repositoryOf(f.image) },
          recipe: () => templateRecipe(context, template, { handler, copy: build.copy, starters: true }),
          deployment: async (image, recipe) => {
            const fprocess = f.fprocess ?? recipe.process;
            const annotations = { ...annotationsFor(recipe), ...f.annotations };
            const made = { ...f, image, annotations, ...(fprocess && { fprocess }) };
            return deploymentOf(context, made, flags, false);
          },
        },
        options,
        tell,
      ),
  };
}

function buildJob(shared: Shared, f: StackFunction, handler: string, why: string, template?: Template): Job {
  const { context, flags, build, line } = shared;
  const extras = [...build.copy, ...f.environmentFiles].map((path) => resolve(context.cwd, path));
  return {
    name: f.name,
    namespace: flags.namespace || f.namespace,
    remark: `built, as ${why}`,
    sources: sourcesAt(handler, extras, template),
    run: (gateway, tell) => line.run(f, why, flags, gateway, tell),
  };
}

/** What of a function may change; templates that come with nap do not. */
const sourcesAt = (handler: string, extras: readonly string[], template?: Template): string[] => [
  ...[handler, ...extras],
  ...(template && !template.dir.startsWith(ownTemplates) ? [template.dir] : []),
];

/** A folder with a Dockerfile as a function of a stack file. */
const dockerFunction = (name: string, handler: string, image = name): StackFunction => ({
  ...{ name, handler, lang: "dockerfile", image: /[:@][^/]*$/.test(image) ? image : `${image}:latest` },
  ...{ environment: {}, environmentFiles: [], secrets: [], labels: {}, annotations: {}, readOnly: false },
  ...{ skipBuild: false, buildArgs: {}, buildOptions: [], buildSecrets: {} },
});

/** Why a function is not packed but built; undefined when it is packed. */
async function wantsBuilder(
  f: StackFunction,
  template: Template | undefined,
  handler: string,
  { builder }: PlanFlags,
): Promise<string | undefined> {
  if (isDockerfile(f.lang) || !template) return "it has a Dockerfile";
  if (!hasLayer(template)) return `template ${template.name} has only a Dockerfile`;
  if (builder === false) return undefined;
  if (builder) return "--builder says so";
  if (Object.keys(f.buildArgs).length + f.buildOptions.length + Object.keys(f.buildSecrets).length > 0)
    return "it has build_args, build_options or build_secrets";
  return lacks(handler);
}
