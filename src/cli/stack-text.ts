import { stringify } from "yaml";
import { Failure } from "./failure.ts";
import { isMap, parseText } from "./yaml.ts";

/** A new function of a stack file. */
export interface Entry {
  readonly name: string;
  readonly lang: string;
  readonly handler: string;
  readonly image: string;
  readonly limits: Readonly<Record<string, string>>;
  readonly requests: Readonly<Record<string, string>>;
}

/** A stack file with one function, as other clients write it. */
export const newStackText = (gateway: string, entry: Entry): string =>
  `version: 1.0\nprovider:\n  name: openfaas\n  gateway: ${gateway}\nfunctions:\n${entryText(entry, "  ")}\n`;

/** The file with the function behind the others; everything else stays as it is written. */
export function addFunction(file: string, text: string, entry: Entry): string {
  const old = functionsOf(file, text);
  if (entry.name in old) throw new Failure(`${file} has a function ${entry.name} already`);
  const lines = text.split("\n");
  const start = lines.findIndex((line) => /^functions:\s*(#.*)?$/.test(line));
  if (start < 0) throw new Failure(`${file} must have a line "functions:" with a function a line below it`);
  let end = lines.findIndex((line, i) => i > start && /^[^\s#-]/.test(line));
  if (end < 0) end = lines.length;
  // blank lines and comments before the next key are that key's; at the end of the file they stay above
  while (end < lines.length && /^(#.*|\s*)$/.test(lines[end - 1]!)) end--;
  const indent = lines.slice(start + 1, end).find((line) => /^\s+[^\s#]/.test(line));
  const added = entryText(entry, /^\s+/.exec(indent ?? "  ")![0]).split("\n");
  // one blank line before it, unless it is the first, and one behind it
  const before = lines.slice(0, end);
  while (before.at(-1)?.trim() === "") before.pop();
  const rest = lines.slice(end);
  while (rest[0]?.trim() === "") rest.shift();
  const result = [
    ...before,
    ...(before.length === start + 1 ? [] : [""]),
    ...added,
    ...(rest.length > 0 ? rest : [""]),
  ];
  const made = result.join("\n");
  const names = Object.keys(functionsOf(file, made));
  if (names.length !== Object.keys(old).length + 1 || !names.includes(entry.name))
    throw new Failure(`${file} is written in a way that nap cannot add to; add the function ${entry.name} by hand`);
  return made;
}

function functionsOf(file: string, text: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = parseText(text);
  } catch (e) {
    throw new Failure(`${file}: ${(e as Error).message}`);
  }
  const functions = isMap(value) ? (value.functions ?? {}) : undefined;
  if (functions === "") return {};
  if (!isMap(functions)) throw new Failure(`${file} is no stack file: it has no map of functions`);
  return functions;
}

/** Ends with a blank line. */
function entryText({ name, lang, handler, image, limits, requests }: Entry, indent: string): string {
  const scalar = (value: string) => stringify(value, { lineWidth: 0 }).trimEnd();
  const map = (key: string, values: Readonly<Record<string, string>>) =>
    Object.keys(values).length === 0
      ? []
      : [`${indent}${key}:`, ...Object.entries(values).map(([k, v]) => `${indent.repeat(2)}${k}: ${scalar(v)}`)];
  const keys = [
    `lang: ${scalar(lang)}`,
    `handler: ${scalar(handler)}`,
    `image: ${scalar(image)}`,
    ...map("requests", requests).map((line) => line.slice(indent.length)),
    ...map("limits", limits).map((line) => line.slice(indent.length)),
  ];
  return [`${indent}${name}:`, ...keys.map((line) => indent.repeat(2) + line), ""].join("\n");
}
