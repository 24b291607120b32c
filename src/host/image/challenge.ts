/** One way to authenticate that a registry offers. */
export interface Challenge {
  /** Lower case: `basic`, `bearer`. */
  readonly scheme: string;
  /** By lower-case name. */
  readonly parameters: Readonly<Record<string, string>>;
}

const token = "[!#$%&'*+.^_`|~0-9A-Za-z-]+";
const parameterForm = new RegExp(`[\\s,]*(${token})\\s*=\\s*(?:"((?:[^"\\\\]|\\\\.)*)"|(${token}))`, "y");
const schemeForm = new RegExp(`[\\s,]*(${token})(?=[\\s,]|$)(?:[ ]+[A-Za-z0-9._~+/-]+=*(?=\\s*(?:,|$)))?`, "y");

/**
 * Reads `WWW-Authenticate`: several challenges in one text, quoted values that hold commas, a bare token68 behind
 * a scheme. What cannot be understood ends the reading; what came before it counts. RFC 9110 §11.6.1.
 */
export function parseChallenges(header: string | readonly string[] | undefined): Challenge[] {
  const text = typeof header === "string" ? header : (header ?? []).join(", ");
  const challenges: { scheme: string; parameters: Record<string, string> }[] = [];
  let at = 0;
  while (at < text.length) {
    parameterForm.lastIndex = at;
    const parameter = parameterForm.exec(text);
    const current = challenges.at(-1);
    if (parameter && current) {
      const [, name, quoted, plain] = parameter;
      current.parameters[name!.toLowerCase()] = plain ?? quoted!.replace(/\\(.)/g, "$1");
      at = parameterForm.lastIndex;
      continue;
    }
    schemeForm.lastIndex = at;
    const scheme = schemeForm.exec(text);
    if (!scheme) break;
    challenges.push({ scheme: scheme[1]!.toLowerCase(), parameters: {} });
    at = schemeForm.lastIndex;
  }
  return challenges;
}
