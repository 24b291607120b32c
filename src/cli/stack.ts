import { isUtf8 } from "node:buffer";
import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { refused } from "./answers.ts";
import type { Context } from "./context.ts";
import { globToRegExp, substitute } from "./envsubst.ts";
import { Failure, wrongUsage } from "./failure.ts";
import type { StackFlags } from "./flags.ts";
import { connect } from "./gateway.ts";
import { isMap, parseText, text, textList, textMap } from "./yaml.ts";

type Text = Record<string, string>;

/** One function of a stack file; contracts/cli.md §1.3. */
export interface StackFunction {
  name: string;
  lang?: string;
  handler?: string;
  /** With a tag: `:latest` where the file has none. */
  image: string;
  fprocess?: string;
  namespace?: string;
  environment: Text;
  environmentFiles: string[];
  secrets: string[];
  constraints?: string[];
  labels: Text;
  annotations: Text;
  limits?: Text;
  requests?: Text;
  readOnly: boolean;
  /** Neither built nor pushed. */
  skipBuild: boolean;
  buildArgs: Text;
  /** Names of the template's. */
  buildOptions: string[];
  /** Files by the id under which a build sees them. */
  buildSecrets: Text;
}

export interface Stack {
  gateway?: string;
  /** In the file's order. */
  functions: StackFunction[];
  /** Paths that go into every function's handler folder. */
  copy: string[];
  /** Where templates come from; without source from the store. */
  templates: TemplateSource[];
}

export interface TemplateSource {
  name: string;
  source?: string;
}

/** @param file - a path or a URL. */
export async function readStack(context: Context, file: string, envsubst: boolean): Promise<Stack> {
  const raw = await readText(context, file);
  const fail = (why: string) => new Failure(`${file}: ${why}`);
  let value: unknown;
  try {
    value = parseText(envsubst ? substitute(raw, context.env) : raw);
  } catch (e) {
    throw fail((e as Error).message);
  }
  if (!isMap(value)) throw fail("it is no stack file: it has no provider and functions");
  if (value.version !== undefined && value.version !== "1.0")
    throw fail(`version ${value.version} is not known; write version: 1.0, or leave it away`);
  const provider = isMap(value.provider) ? value.provider : {};
  if (provider.name !== "openfaas") throw fail('its provider must be named; write "provider: {name: openfaas}"');
  const functions = value.functions ?? {};
  if (!isMap(functions)) throw fail("functions must be a map of names");
  const configuration = isMap(value.configuration) ? value.configuration : {};
  return {
    ...(text(provider.gateway) && { gateway: text(provider.gateway)! }),
    functions: Object.entries(functions).map(([name, f]) => parseFunction(name, f, fail)),
    copy: textList(configuration.copy, "configuration.copy"),
    templates: parseTemplates(configuration.templates, fail),
  };
}

/** The functions that --filter or --regex choose. */
export function chosen(stack: Stack, { filter, regex }: Pick<StackFlags, "filter" | "regex">): StackFunction[] {
  if (filter && regex) throw wrongUsage("give --filter or --regex, not both");
  if (!filter && !regex) return stack.functions;
  let pattern: RegExp;
  try {
    pattern = filter ? globToRegExp(filter) : new RegExp(regex!);
  } catch (e) {
    throw wrongUsage(`--regex: ${(e as Error).message}`);
  }
  const found = stack.functions.filter((f) => pattern.test(f.name));
  if (found.length === 0) throw new Failure(`no function of the stack file matches ${filter ?? regex}`);
  return found;
}

/** What `environment` and the files beside it come to; later files win. */
export async function environmentOf(context: Context, f: StackFunction): Promise<Text> {
  const all = { ...f.environment };
  for (const file of f.environmentFiles) {
    const value = parseText(await readText(context, file));
    Object.assign(all, textMap(isMap(value) ? value.environment : undefined, `${file}: environment`));
  }
  return all;
}

async function readText(context: Context, file: string): Promise<string> {
  if (/^https?:\/\//.test(file)) {
    const reply = await connect(context, { url: file, timeoutMs: 120_000 }).request("GET", "");
    if (reply.status !== 200) throw refused(file, reply);
    return reply.text;
  }
  const bytes = await readFile(resolve(context.cwd, file)).catch((e: NodeJS.ErrnoException) => {
    throw new Failure(e.code === "ENOENT" ? `${file} does not exist` : `${file} cannot be read: ${e.message}`);
  });
  if (!isUtf8(bytes)) throw new Failure(`${file} is not in UTF-8; convert it, for example by iconv -t UTF-8`);
  return bytes.toString();
}

function parseTemplates(value: unknown, fail: (why: string) => Failure): TemplateSource[] {
  if (value === undefined || value === null || value === "") return [];
  if (!Array.isArray(value)) throw fail("configuration.templates must be a list");
  return value.map((entry) => {
    const name = isMap(entry) ? text(entry.name) : undefined;
    if (name === undefined) throw fail("each of configuration.templates must have a name");
    const source = text(entry.source);
    return { name, ...(source && { source }) };
  });
}

const isOn = (value: unknown): boolean => /^(true|yes|on)$/i.test(String(value));

function parseFunction(name: string, value: unknown, fail: (why: string) => Failure): StackFunction {
  if (!isMap(value)) throw fail(`function ${name} has no keys`);
  const image = text(value.image) ?? "";
  const constraints = textList(value.constraints, `${name}.constraints`);
  const limits = textMap(value.limits, `${name}.limits`);
  const requests = textMap(value.requests, `${name}.requests`);
  const optional = {
    lang: text(value.lang),
    handler: text(value.handler),
    fprocess: text(value.fprocess),
    namespace: text(value.namespace),
    constraints: constraints.length > 0 ? constraints : undefined,
    limits: Object.keys(limits).length > 0 ? limits : undefined,
    requests: Object.keys(requests).length > 0 ? requests : undefined,
  };
  return {
    name,
    image: image === "" || /[:@][^/]*$/.test(image) ? image : `${image}:latest`,
    environment: textMap(value.environment, `${name}.environment`),
    environmentFiles: textList(value.environment_file, `${name}.environment_file`),
    secrets: textList(value.secrets, `${name}.secrets`),
    labels: textMap(value.labels, `${name}.labels`),
    annotations: textMap(value.annotations, `${name}.annotations`),
    readOnly: isOn(value.readonly_root_filesystem),
    skipBuild: isOn(value.skip_build),
    buildArgs: textMap(value.build_args, `${name}.build_args`),
    buildOptions: textList(value.build_options, `${name}.build_options`),
    buildSecrets: textMap(value.build_secrets, `${name}.build_secrets`),
    ...(Object.fromEntries(Object.entries(optional).filter(([, v]) => v !== undefined)) as Partial<StackFunction>),
  };
}
