import { isUtf8 } from "node:buffer";
import { styleText } from "node:util";
import type { Context, Output } from "./context.ts";
import { cut, pad, widthOf } from "./width.ts";

/**
 * Text of functions and gateways for a terminal: whatever could move its cursor, colour it or make it answer is shown
 * as `\x1b` instead. Line ends and tabs stay.
 */
export const harmless = (text: string): string =>
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what it is about
  text.replace(/[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]/g, (c) => {
    const code = c.charCodeAt(0).toString(16);
    return code.length > 2 ? `\\u${code}` : `\\x${code.padStart(2, "0")}`;
  });

/** As `harmless`, but only where a terminal is. */
export const forOutput = (out: Output, text: string): string => (out.isTTY ? harmless(text) : text);

export type Colour = "red" | "green" | "yellow" | "dim" | "bold";

/**
 * The text in a colour: on a terminal whose user did not object (no-color.org), and wherever FORCE_COLOR wants it,
 * which wins, as in Node itself.
 */
export function coloured({ env }: Context, out: Output, colour: Colour, text: string): string {
  const wanted = env.FORCE_COLOR
    ? !/^(0|false)$/.test(env.FORCE_COLOR)
    : out.isTTY && !env.NO_COLOR && env.TERM !== "dumb";
  return wanted ? styleText(colour, text, { validateStream: false }) : text;
}

export const print = ({ stdout }: Context, text: string): void => void stdout.write(`${text}\n`);
export const printJson = ({ stdout }: Context, value: unknown): void =>
  void stdout.write(`${JSON.stringify(value, null, 2)}\n`);
/** A body in JSON: text as text, anything else in base64. */
export function bodyAsJson(bytes: Buffer): { body: string } | { bodyBase64: string } {
  return isUtf8(bytes) ? { body: bytes.toString() } : { bodyBase64: bytes.toString("base64") };
}
/** What a command has done: as a sentence, or as JSON if that is asked for. */
export const printDone = (context: Context, { json }: { json?: boolean }, done: unknown, sentence: string): void =>
  json ? printJson(context, done) : print(context, forOutput(context.stdout, sentence));
/** A remark that is no part of the result. */
export const remark = ({ stderr }: Context, text: string): void => void stderr.write(`${forOutput(stderr, text)}\n`);

/** Columns are made no narrower than this. */
const leastColumn = 8;

/**
 * A table with a header, columns two blanks apart, numbers to the right. On a terminal that is too narrow the widest
 * columns lose their ends, marked by `…`; elsewhere nothing is cut, because a program may be reading.
 */
export function printTable(
  context: Context,
  header: readonly string[],
  rows: readonly (readonly (string | number)[])[],
): void {
  const { stdout } = context;
  const cells = rows.map((row) => row.map((cell) => forOutput(stdout, String(cell)).replace(/[\n\t]/g, " ")));
  const widest = (i: number) => cells.reduce((most, row) => Math.max(most, widthOf(row[i]!)), header[i]!.length);
  const widths = header.map((_, i) => widest(i));
  const numeric = header.map((_, i) => rows.length > 0 && rows.every((row) => typeof row[i] === "number"));
  let excess = widths.reduce((sum, w) => sum + w + 2, -2) - (stdout.isTTY ? (stdout.columns ?? 80) : Infinity);
  for (; excess > 0; excess--) {
    const longest = Math.max(...widths.filter((_, i) => !numeric[i]));
    if (longest <= leastColumn) break;
    widths[widths.findIndex((w, i) => w === longest && !numeric[i])]!--;
  }
  const line = (row: readonly string[]) =>
    row
      .map((cell, i) => {
        const shown = cut(cell, widths[i]!);
        return numeric[i] ? " ".repeat(widths[i]! - widthOf(shown)) + shown : pad(shown, widths[i]!);
      })
      .join("  ")
      .trimEnd();
  print(context, coloured(context, stdout, "bold", line(header)));
  for (const row of cells) print(context, line(row));
}
