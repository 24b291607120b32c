/** Whole numbers that Go's uint64 takes. */
const uint64 = /^\d{1,20}$/;
const uint64End = 2n ** 64n;

/**
 * JSON as clients send it: UTF-8, with or without a byte order mark. Fails with a sentence that holds nothing of the
 * text but one character, because the text may be a secret.
 *
 * The number of replicas is a uint64, and `2.0` is none (contracts/api.md §2.1); once parsed, it looks like one. What
 * is written otherwise than in digits becomes NaN, which no check takes for a number.
 */
export function parseJson(bytes: Uint8Array): unknown {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new Error("it is not UTF-8");
  }
  try {
    return JSON.parse(text, exactReplicas);
  } catch (e) {
    if (e instanceof RangeError) throw new Error("it is nested too deeply");
    throw new Error((e as Error).message.replace(/, (\.\.\.)?".*/s, ""));
  }
}

function exactReplicas(this: unknown, key: string, value: unknown, context?: { source: string }): unknown {
  if (typeof value !== "number" || key.toLowerCase() !== "replicas") return value;
  const source = context?.source ?? "";
  return uint64.test(source) && BigInt(source) < uint64End ? value : Number.NaN;
}

/**
 * An object with keys of ours in our spelling: Go clients spell them in any case (contracts/api.md §1.1). Of two
 * spellings of one key the last counts. Other keys, and what is no object, stay as they are.
 */
export function spelled(value: unknown, keys: readonly string[]): unknown {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return value;
  const ours = new Map(keys.map((key) => [key.toLowerCase(), key]));
  return Object.fromEntries(Object.entries(value).map(([key, v]) => [ours.get(key.toLowerCase()) ?? key, v]));
}
