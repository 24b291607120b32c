import { Failure } from "./failure.ts";

/**
 * Replaces `${NAME}` and its variants, as they are recorded in contracts/cli.md §1.5: `$NAME` stays as it is, `$$` is
 * one dollar, and every form with a default (`:-`, `:=`, `=`, `:?`, `:+`) means "when unset or empty".
 */
export function substitute(text: string, env: Readonly<Record<string, string | undefined>>): string {
  let at = 0;

  /** Text up to an unescaped `}` when `inside`, else up to the end. */
  function run(inside: boolean): string {
    let out = "";
    for (;;) {
      if (at >= text.length) {
        if (inside) throw broken("it has no closing brace");
        return out;
      }
      if (inside && text[at] === "}") return out;
      if (text.startsWith("$$", at)) {
        out += "$";
        at += 2;
        // what follows an escaped dollar is text
        if (text[at] === "{") {
          out += "{";
          at++;
        }
      } else if (text.startsWith("${", at)) {
        at += 2;
        out += variable();
      } else out += text[at++];
    }
  }

  function variable(): string {
    const length = text[at] === "#";
    if (length) at++;
    const name = /^\w+/.exec(text.slice(at, at + 256))?.[0];
    if (name === undefined) throw broken("a variable's name is missing");
    at += name.length;
    const value = env[name] ?? "";
    const operator = /^(:[-=?+]|=|:|##?|%%?|\/\/|\/#|\/%|\/|\^\^?|,,?)?/.exec(text.slice(at, at + 2))![0];
    at += operator.length;
    if (text[at] !== "}" && operator === "") throw broken(`\${${name} has no closing brace`);
    const rest = run(true);
    at++;
    return length ? String([...value].length) : apply(value, operator, rest);
  }

  return run(false);
}

const broken = (why: string): Failure =>
  new Failure(`a \${VARIABLE} of the file cannot be replaced: ${why}; write $$ for a dollar, or use --envsubst=false`);

function apply(value: string, operator: string, rest: string): string {
  switch (operator) {
    case ":-":
    case ":=":
    case "=":
    case ":?":
    case ":+":
      return value === "" ? rest : value;
    case ":": {
      const [from, count] = rest.split(":").map(Number);
      return value.slice(from, count === undefined ? undefined : from! + count);
    }
    case "^^":
      return value.toUpperCase();
    case ",,":
      return value.toLowerCase();
    case "^":
      return value.slice(0, 1).toUpperCase() + value.slice(1);
    case ",":
      return value.slice(0, 1).toLowerCase() + value.slice(1);
    case "#":
    case "##":
    case "%":
    case "%%":
      return trimmed(value, operator, rest);
    case "/":
    case "//":
    case "/#":
    case "/%": {
      const [from = "", ...to] = rest.split("/");
      return replaced(value, operator, from, to.join("/"));
    }
    default:
      return value;
  }
}

/** Without the shortest or longest beginning or end that matches the pattern. */
function trimmed(value: string, operator: string, pattern: string): string {
  const matches = globToRegExp(pattern);
  const cuts = Array.from({ length: value.length + 1 }, (_, i) => i);
  const fromStart = operator.startsWith("#");
  const longest = operator.length === 2;
  // a cut after `i` characters; the order decides between shortest and longest
  const order = fromStart === longest ? cuts.reverse() : cuts;
  const cut = order.find((i) => matches.test(fromStart ? value.slice(0, i) : value.slice(i)));
  if (cut === undefined) return value;
  return fromStart ? value.slice(cut) : value.slice(0, cut);
}

function replaced(value: string, operator: string, from: string, to: string): string {
  if (from === "") return value;
  if (operator === "//") return value.split(from).join(to);
  if (operator === "/#") return value.startsWith(from) ? to + value.slice(from.length) : value;
  if (operator === "/%") return value.endsWith(from) ? value.slice(0, value.length - from.length) + to : value;
  return value.replace(from, () => to);
}

/** A pattern in which only `*` is special, for the whole text. */
export const globToRegExp = (pattern: string): RegExp =>
  new RegExp(`^${pattern.replace(/[\\^$.|?+()[\]{}]/g, "\\$&").replaceAll("*", ".*")}$`, "s");
