import { open, readdir } from "node:fs/promises";
import { join } from "node:path";
import { Failure } from "./failure.ts";

/** What a folder without a stack file is taken for. */
export type Guess =
  | { readonly kind: "template"; readonly lang: string; readonly why: string }
  | { readonly kind: "script"; readonly process: string; readonly base: string; readonly why: string }
  | { readonly kind: "site"; readonly why: string }
  | { readonly kind: "builder"; readonly why: string };

/** Images with the programs that scripts are for. */
const bases: Readonly<Record<string, string>> = {
  sh: "docker.io/library/alpine:3",
  ash: "docker.io/library/alpine:3",
  bash: "docker.io/library/bash:5",
  node: "docker.io/library/node:24-alpine",
  python: "docker.io/library/python:3-alpine",
  python3: "docker.io/library/python:3-alpine",
  perl: "docker.io/library/perl:5-slim",
  ruby: "docker.io/library/ruby:3-alpine",
  php: "docker.io/library/php:8-cli-alpine",
};
/** For programs that need no other. */
const plainBase = bases.sh!;

const interpreters: readonly (readonly [ending: RegExp, interpreter: string])[] = [
  [/\.sh$/, "sh"],
  [/\.bash$/, "bash"],
  [/\.[mc]?[jt]s$/, "node"],
  [/\.py$/, "python3"],
  [/\.pl$/, "perl"],
  [/\.rb$/, "ruby"],
  [/\.php$/, "php"],
];

/** Handlers that our templates call, by what they are called. */
const handlers: readonly (readonly [name: RegExp, lang: string])[] = [
  [/^handler\.[mc]?ts$/, "typescript"],
  [/^handler\.[mc]?js$/, "node"],
  [/^handler\.py$/, "python3"],
  [/^handler\.sh$/, "bash"],
];

/** Names that say which of several scripts is meant, the likeliest first. */
const mainNames = ["index", "main", "function", "app"];

/** The image for a process, by the program that it begins with. */
export function baseFor(process: string): string {
  const program = process.split(" ")[0]!;
  return bases[program.slice(program.lastIndexOf("/") + 1)] ?? plainBase;
}

export interface GuessOptions {
  /** Whether something that wants a builder may be the answer. */
  readonly mayBuild: boolean;
}

/** By the names of the files in a folder, and how scripts begin. Fails saying what would have been understood. */
export async function guessFolder(folder: string, { mayBuild }: GuessOptions): Promise<Guess> {
  const entries = await readdir(folder, { withFileTypes: true }).catch((e: NodeJS.ErrnoException) => {
    throw new Failure(`${folder} ${e.code === "ENOENT" ? "does not exist" : `cannot be read: ${e.message}`}`);
  });
  const names = entries
    .filter((e) => (e.isFile() || e.isSymbolicLink()) && !e.name.startsWith("."))
    .map((e) => e.name)
    .sort();
  return guess(names, (name) => firstLine(join(folder, name)), { mayBuild });
}

/** As `guessFolder`, of names; `head` gives a file's first line. */
export async function guess(
  names: readonly string[],
  head: (name: string) => Promise<string>,
  { mayBuild }: GuessOptions,
): Promise<Guess> {
  if (mayBuild && names.includes("Dockerfile")) return { kind: "builder", why: "it has a Dockerfile" };
  for (const [form, lang] of handlers) {
    const name = names.find((n) => form.test(n));
    if (name) return { kind: "template", lang, why: `${name}: a handler of template ${lang}` };
  }
  if (names.includes("index.html")) return { kind: "site", why: "index.html: a site of files" };
  const scripts: { name: string; interpreter: string }[] = [];
  for (const name of names) {
    const interpreter = interpreterIn(await head(name)) ?? interpreters.find(([ending]) => ending.test(name))?.[1];
    if (interpreter && !/\.(test|spec|config)\./.test(name)) scripts.push({ name, interpreter });
  }
  const chosen =
    scripts.length === 1
      ? scripts[0]
      : mainNames.flatMap((main) => scripts.filter(({ name }) => name.replace(/\..*/, "") === main))[0];
  if (!chosen)
    throw new Failure(
      `${scripts.length > 1 ? `which of ${scripts.map((s) => s.name).join(", ")} is to run` : "what is to run there"} is not clear: it takes handler.sh, handler.js, handler.ts, handler.py, index.html, one script, or --process COMMAND`,
    );
  const { name, interpreter } = chosen;
  if (/\s/.test(name)) throw new Failure(`"${name}" has a blank in its name, at which the watchdog would split it`);
  const process = `${interpreter} ${name}`;
  const why = `${name}: run by ${interpreter.split(" ")[0]} for each call, from standard input to standard output`;
  return { kind: "script", process, base: baseFor(interpreter), why };
}

/** `#!/usr/bin/env python3 -u` and `#!/bin/sh -e`: the program, by its name alone, with its arguments. */
function interpreterIn(line: string): string | undefined {
  const words = /^#!\s*(\S+(?:\s+\S+)*)\s*$/.exec(line)?.[1]?.split(/\s+/) ?? [];
  const program = (word: string | undefined) => word?.slice(word.lastIndexOf("/") + 1);
  if (program(words[0]) === "env") words.splice(0, words[1] === "-S" ? 2 : 1);
  const [first, ...rest] = words;
  return first === undefined ? undefined : [program(first), ...rest].join(" ");
}

async function firstLine(file: string): Promise<string> {
  await using handle = await open(file).catch(() => undefined);
  if (!handle) return "";
  const { buffer, bytesRead } = await handle.read(Buffer.alloc(256), 0, 256, 0).catch(() => ({
    buffer: Buffer.alloc(0),
    bytesRead: 0,
  }));
  return buffer.toString("latin1", 0, bytesRead).split(/\r?\n/, 1)[0]!;
}
