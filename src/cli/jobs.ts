import { basename, resolve } from "node:path";
import { isName, nameRule } from "../base/names.ts";
import { sourcesOf } from "./build-context.ts";
import type { Context } from "./context.ts";
import { type Done, deployOne, type Subject } from "./deploy.ts";
import { deploymentOf, deploymentOfFlags, type FunctionFlags } from "./deployment.ts";
import { Failure, wrongUsage } from "./failure.ts";
import type { StackFlags } from "./flags.ts";
import type { Gateway } from "./gateway.ts";
import { baseFor, guessFolder } from "./guess.ts";
import { folderRecipe, hasLayer, lacks, type Recipe, templateRecipe } from "./recipe.ts";
import { chosen, readStack, type StackFunction } from "./stack.ts";
import { findStackFile } from "./stack-file.ts";
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

export interface PlanFlags extends StackFlags, FunctionFlags {
  lang?: string;
  base?: string;
  process?: string;
  /** False: nothing is built, everything is packed. */
  builder?: string | false;
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
  if (file === undefined) return { jobs: [await folderJob(context, folder ?? ".", flags, options)] };
  const { base, process, lang } = flags;
  if (base || process || lang) throw wrongUsage("--base, --process and --lang are for a folder, not for a stack file");
  const stack = await readStack(context, file, flags.envsubst);
  const functions = chosen(stack, flags);
  if (functions.length === 0) throw new Failure(`${file} has no functions`);
  const jobs = await Promise.all(functions.map((f) => stackJob(context, f, stack.copy, flags, options)));
  return {
    jobs,
    ...(stack.gateway && { gateway: stack.gateway }),
    ...(!/^https?:/.test(file) && { file: resolve(context.cwd, file) }),
  };
}

/** Where the watchdog serves by itself no process says that it is wanted. */
const annotationsFor = ({ process }: Recipe): Record<string, string> =>
  process === undefined ? { "napd.watchdog": "inject" } : {};

async function folderJob(context: Context, given: string, flags: PlanFlags, options: UpOptions): Promise<Job> {
  const folder = resolve(context.cwd, given);
  const stackFile = await findStackFile({ ...context, cwd: folder }, undefined);
  if (stackFile) throw wrongUsage(`${given} has a ${stackFile}: run nap up in there, or name it by -f`);
  const name = flags.name ?? nameOf(folder);
  const { namespace } = flags;
  const { recipe, remark } = await folderRecipes(context, folder, flags);
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
            const annotations = annotationsFor(made);
            const all = { ...flags, name, image, ...(fprocess && { fprocess }) };
            return deploymentOfFlags(all, { annotations });
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
): Promise<{ recipe: () => Promise<Recipe>; remark: string }> {
  const process = flags.process ?? flags.fprocess;
  if (flags.lang) return ofTemplate(flags.lang, `template ${flags.lang}`);
  if (process) return ofScript(process, flags.base ?? baseFor(process), `runs ${process}`);
  const guessed = await guessFolder(folder, { mayBuild: flags.builder !== false });
  if (guessed.kind === "builder")
    throw new Failure(
      `${folder} wants a builder: ${guessed.why}; make a stack file with lang: dockerfile, or --no-builder takes the folder as it is`,
    );
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
    const recipe = () => templateRecipe(context, template, folder, [], base);
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

async function stackJob(
  context: Context,
  f: StackFunction,
  copy: readonly string[],
  flags: PlanFlags,
  options: UpOptions,
): Promise<Job> {
  const subject = { name: f.name, namespace: flags.namespace || f.namespace };
  const extras = [...copy, ...f.environmentFiles].map((path) => resolve(context.cwd, path));
  if (f.skipBuild || (!f.lang && !f.handler)) {
    const run = async (gateway: Gateway, tell: (text: string) => void): Promise<JobDone> => {
      if (!options.deploy) return { state: "skipped", how: "it is not built" };
      return deployOne(context, gateway, await deploymentOf(context, f, flags, true), options, tell);
    };
    return { ...subject, sources: extras, run };
  }
  const { template, handler } = await sourcesOf(context, f);
  const why = await wantsBuilder(f, template, handler);
  if (why !== undefined || !template || !hasLayer(template))
    throw new Failure(`function ${f.name} wants a builder: ${why}`);
  return {
    ...subject,
    sources: [handler, ...extras, ...(template.dir.startsWith(ownTemplates) ? [] : [template.dir])],
    run: (gateway, tell) =>
      packAndDeploy(
        gateway,
        {
          ...{ context, ...subject, repository: f.image === "" ? f.name : repositoryOf(f.image) },
          recipe: () => templateRecipe(context, template, handler, copy),
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

/** Why a function cannot be packed; undefined when it can. */
async function wantsBuilder(
  f: StackFunction,
  template: Template | undefined,
  handler: string,
): Promise<string | undefined> {
  if (isDockerfile(f.lang) || !template) return "it has a Dockerfile";
  if (!hasLayer(template)) return `template ${template.name} has only a Dockerfile`;
  if (Object.keys(f.buildArgs).length + f.buildOptions.length + Object.keys(f.buildSecrets).length > 0)
    return "it has build_args, build_options or build_secrets";
  return lacks(handler);
}
