import type { Context } from "./context.ts";
import { type Colour, coloured, forOutput, harmless } from "./output.ts";
import { cut, pad, widthOf } from "./width.ts";

export interface StatusLines {
  /** What a thing is doing. */
  set(name: string, text: string): void;
  /** What became of it: in a word, if there is one, and in more. */
  end(name: string, text: string, mark?: Mark): void;
}

/** A word in a colour. */
export interface Mark {
  readonly word: string;
  readonly colour: Colour;
}

/**
 * One line for each of several things that happen at once. On a terminal the lines stay where they are, change, and
 * tell the seconds; elsewhere, where they do not fit, and where others write in between (`mayLive` is false), a thing
 * gets a line when it ends.
 */
export function statusLines(context: Context, names: readonly string[], mayLive = true): StatusLines {
  const { stderr } = context;
  const width = Math.max(...names.map(widthOf));
  const columns = stderr.columns ?? 80;
  const isLive = mayLive && stderr.isTTY && columns > width + 10 && names.length < (stderr.rows ?? 24);
  const texts = new Map(names.map((name) => [name, ""]));
  const marks = new Map<string, Mark | undefined>();
  const underWay = new Set(names);
  const began = performance.now();
  let drawn = false;

  const wordOf = (name: string): string => {
    const mark = marks.get(name);
    return mark ? `${coloured(context, stderr, mark.colour, mark.word)} ` : "";
  };

  /** What others say may hold anything; the word before it is ours. */
  function draw(): void {
    const seconds = Math.floor((performance.now() - began) / 1000);
    const lines = names.map((name) => {
      const isOver = !underWay.has(name);
      const text = harmless(texts.get(name)!.split("\n")[0]!) + (isOver || seconds === 0 ? "" : ` (${seconds} s)`);
      const room = columns - width - 3 - (marks.get(name)?.word.length ?? -1) - 1;
      return `\x1b[2K${pad(name, width)}  ${wordOf(name)}${widthOf(text) > room ? cut(text, room) : text}\n`;
    });
    stderr.write((drawn ? `\x1b[${names.length}A` : "") + lines.join(""));
    drawn = true;
  }
  const clock = isLive ? setInterval(draw, 1000).unref() : undefined;

  return {
    set(name, text) {
      texts.set(name, text);
      if (isLive) draw();
    },
    end(name, text, mark) {
      texts.set(name, text);
      marks.set(name, mark);
      underWay.delete(name);
      if (underWay.size === 0) clearInterval(clock);
      if (isLive) draw();
      else stderr.write(`${pad(name, width)}  ${wordOf(name)}${forOutput(stderr, text)}\n`);
    },
  };
}
