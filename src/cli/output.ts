import { stripVTControlCharacters, styleText } from "node:util";
import type { Context, Output } from "./context.ts";

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

/** The text in a colour, on a terminal whose user did not object (no-color.org). */
export function coloured({ env }: Context, out: Output, colour: Colour, text: string): string {
  const wanted = out.isTTY && !env.NO_COLOR && env.TERM !== "dumb";
  return wanted ? styleText(colour, text, { validateStream: false }) : text;
}

export const print = ({ stdout }: Context, text: string): void => void stdout.write(`${text}\n`);
export const printJson = ({ stdout }: Context, value: unknown): void =>
  void stdout.write(`${JSON.stringify(value, null, 2)}\n`);
/** A remark that is no part of the result. */
export const remark = ({ stderr }: Context, text: string): void => void stderr.write(`${forOutput(stderr, text)}\n`);

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
  const widths = header.map((title, i) => Math.max(title.length, ...cells.map((row) => row[i]!.length)));
  const room = stdout.isTTY ? (stdout.columns ?? 80) : Number.POSITIVE_INFINITY;
  const total = () => widths.reduce((sum, w) => sum + w + 2, -2);
  while (total() > room) {
    const widest = widths.indexOf(Math.max(...widths));
    if (widths[widest]! <= 8) break;
    widths[widest]! = Math.max(8, widths[widest]! - (total() - room));
  }
  const numeric = header.map((_, i) => rows.length > 0 && rows.every((row) => typeof row[i] === "number"));
  const line = (row: readonly string[]) =>
    row
      .map((cell, i) => {
        const cut = cell.length > widths[i]! ? `${cell.slice(0, widths[i]! - 1)}…` : cell;
        return numeric[i] ? cut.padStart(widths[i]!) : cut.padEnd(widths[i]!);
      })
      .join("  ")
      .trimEnd();
  print(context, coloured(context, stdout, "bold", line(header)));
  for (const row of cells) print(context, line(row));
}

/**
 * One line for each of several things that happen at once. On a terminal the lines stay where they are and change;
 * elsewhere a thing gets a line when it ends.
 */
export function statusLines(
  context: Context,
  names: readonly string[],
): { set(name: string, text: string): void; end(name: string, text: string): void } {
  const { stderr } = context;
  const texts = new Map(names.map((name) => [name, ""]));
  const width = Math.max(...names.map((name) => name.length));
  const live = stderr.isTTY && (stderr.columns ?? 80) > width + 10;
  let drawn = false;
  const draw = () => {
    const up = drawn ? `\x1b[${names.length}A` : "";
    drawn = true;
    const fit = (text: string) =>
      stripVTControlCharacters(text).length > (stderr.columns ?? 80) - width - 3
        ? `${stripVTControlCharacters(text).slice(0, (stderr.columns ?? 80) - width - 4)}…`
        : text;
    stderr.write(
      up + names.map((name) => `\x1b[2K${name.padEnd(width)}  ${fit(texts.get(name)!.split("\n")[0]!)}\n`).join(""),
    );
  };
  return {
    set: (name, text) => {
      texts.set(name, text);
      if (live) draw();
    },
    end: (name, text) => {
      texts.set(name, text);
      if (live) draw();
      else stderr.write(`${name.padEnd(width)}  ${forOutput(stderr, text)}\n`);
    },
  };
}
