import { readdir } from "node:fs/promises";
import { refused } from "./answers.ts";
import type { Context } from "./context.ts";
import { Failure, wrongUsage } from "./failure.ts";
import { connect } from "./gateway.ts";
import { ownTemplates, readTemplate } from "./templates.ts";

/** A template of a store; contracts/cli.md §4.6. */
export interface StoreTemplate {
  readonly template: string;
  readonly platform: string;
  readonly language: string;
  /** Whose it is. */
  readonly source: string;
  readonly description: string;
  /** Where git finds it; of our own it is empty. */
  readonly repo: string;
  readonly official: boolean;
  readonly recommended: boolean;
}

export const defaultTemplateStore = "https://raw.githubusercontent.com/openfaas/store/master/templates.json";
/** The `source` of those that come with nap. */
export const own = "nap";
const timeoutMs = 5000;

/** What a store has, recommended ones first, then official ones, then by name. */
export async function readTemplateStore(context: Context, given: string | undefined): Promise<StoreTemplate[]> {
  const url = given ?? context.env.OPENFAAS_TEMPLATE_STORE_URL ?? defaultTemplateStore;
  if (!/^https?:/.test(url) || !URL.canParse(url)) throw wrongUsage(`template store ${url} is no URL`);
  const reply = await connect(context, { url, timeoutMs }).request("GET", "");
  if (reply.status !== 200) throw refused(url, reply);
  let value: unknown;
  try {
    value = JSON.parse(reply.text);
  } catch {
    value = undefined;
  }
  if (!Array.isArray(value)) throw new Failure(`${url} is no template store`);
  return value
    .map(parse)
    .filter((t) => t.template !== "" && t.repo !== "")
    .sort(byRank);
}

/** Those that come with nap, in the store's terms: for every platform, and without a repository. */
export async function ownStore(): Promise<StoreTemplate[]> {
  const names = await readdir(ownTemplates).catch(() => []);
  const all = await Promise.all(names.map((name) => readTemplate(ownTemplates, name)));
  return all
    .filter((t) => t !== undefined)
    .map(({ name, language, description }) => ({
      template: name,
      platform: "",
      language,
      source: own,
      description: description ?? "",
      repo: "",
      official: false,
      recommended: true,
    }))
    .sort(byRank);
}

/** By `NAME` or `SOURCE/NAME`. */
export const findStoreTemplate = (all: readonly StoreTemplate[], name: string): StoreTemplate | undefined =>
  all.find((t) => t.template === name || `${t.source}/${t.template}` === name);

function parse(value: unknown): StoreTemplate {
  const entry = (typeof value === "object" && value !== null ? value : {}) as Record<string, unknown>;
  const text = (key: string) => (typeof entry[key] === "string" ? (entry[key] as string) : "");
  return {
    template: text("template"),
    platform: text("platform"),
    language: text("language"),
    source: text("source"),
    description: text("description"),
    repo: text("repo"),
    // a text, in the format
    official: String(entry.official) === "true",
    recommended: entry.recommended === true,
  };
}

const byRank = (a: StoreTemplate, b: StoreTemplate): number =>
  Number(b.recommended) - Number(a.recommended) ||
  Number(b.official) - Number(a.official) ||
  (a.template < b.template ? -1 : 1);
