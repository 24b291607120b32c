import { formatBytes } from "../base/quantities.ts";
import { refused } from "./answers.ts";
import { differences } from "./compare.ts";
import { type ComposedImage, type Composition, composeImage, isSuperseded } from "./compose.ts";
import type { Context } from "./context.ts";
import { type DeployOptions, type Done, deployOne } from "./deploy.ts";
import type { Deployment } from "./deployment.ts";
import type { Gateway } from "./gateway.ts";
import { packLayer } from "./pack.ts";
import { tellPull } from "./pull-progress.ts";
import type { Recipe } from "./recipe.ts";
import { type FunctionStatus, functionPath } from "./status.ts";

/** A function that is made of a folder and deployed, again and again. */
export interface PackedFunction {
  readonly context: Context;
  readonly name: string;
  readonly namespace?: string | undefined;
  /** Name of its image, without a tag. */
  readonly repository: string;
  readonly recipe: () => Promise<Recipe>;
  readonly deployment: (image: string, recipe: Recipe) => Promise<Deployment>;
}

export interface UpOptions extends Omit<DeployOptions, "json"> {
  readonly deploy: boolean;
  /** Pushes what a builder made to its registry. */
  readonly push: boolean;
  /** Asks whether there is a newer base. */
  readonly pull: boolean;
}

/** What a step of it took. */
export interface Step {
  readonly step: string;
  readonly ms: number;
}

/** A clock that is read at the end of each step. */
export class Steps {
  readonly all: Step[] = [];
  #began = performance.now();

  end(step: string): void {
    const now = performance.now();
    this.all.push({ step, ms: Math.round(now - this.#began) });
    this.#began = now;
  }
}

/** From the folder to a function that can be called; what is there already is left alone. */
export async function packAndDeploy(
  gateway: Gateway,
  f: PackedFunction,
  options: UpOptions,
  tell: (text: string) => void,
): Promise<Done & { readonly steps: readonly Step[]; readonly notes: readonly string[]; readonly image: string }> {
  const steps = new Steps();
  tell("packing");
  const recipe = await f.recipe();
  const layer = await packLayer(recipe.files, recipe.owner);
  steps.end(`packed ${recipe.files.size} files, ${formatBytes(layer.size)}`);
  const { repository, namespace } = f;
  const { base, changes, notes } = recipe;
  const { pull } = options;
  const composition = { repository, namespace, base, changes, layer, pull };
  const { image, name, sent } = await composeTelling(f.context, gateway, composition, tell);
  steps.end(sent ? "sent and composed" : "composed");
  const about = { steps: steps.all, notes, image: name };
  if (!options.deploy) return { state: "made", how: name, ...about };

  const wanted = await f.deployment(name, recipe);
  const before = await statusOf(gateway, f);
  if (before && runs(before, wanted, image)) return { state: "ready", how: "unchanged", ...about };
  const done = await deployOne(f.context, gateway, wanted, options, tell);
  steps.end(`${done.how}${options.wait ? ", ready" : ""}`);
  if (before && options.wait && isSuperseded(before.image, name)) await forget(gateway, f, before.image);
  return { ...done, ...about };
}

/** On a terminal, says meanwhile how far the base is. */
async function composeTelling(
  { stderr }: Context,
  gateway: Gateway,
  composition: Composition,
  tell: (text: string) => void,
): ReturnType<typeof composeImage> {
  const { base: image, namespace } = composition;
  using _ = stderr.isTTY ? tellPull(gateway, { image, namespace }, tell) : undefined;
  return await composeImage(gateway, composition, tell);
}

async function statusOf(gateway: Gateway, { name, namespace }: PackedFunction): Promise<FunctionStatus | undefined> {
  const reply = await gateway.request("GET", functionPath(name), { query: { namespace: namespace || undefined } });
  if (reply.status === 404) return undefined;
  if (reply.status !== 200) throw refused(gateway.url, reply);
  return JSON.parse(reply.text);
}

/** Whether that very function is there, of that very content, and well. */
function runs(status: FunctionStatus, wanted: Deployment, image: ComposedImage): boolean {
  const well = status.state === undefined || ["Ready", "Asleep", "Stopped"].includes(status.state);
  return well && image.usedBy.includes(wanted.service) && differences(wanted, status, "all").length === 0;
}

/** The image that this one took the place of; who still uses it keeps it, and napd's collection does the rest. */
async function forget(gateway: Gateway, { namespace }: PackedFunction, name: string): Promise<void> {
  await gateway.request("DELETE", "/system/images", { query: { name, namespace: namespace || undefined } });
}
