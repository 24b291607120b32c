import { parse } from "yaml";
import { Failure } from "./failure.ts";

type Text = Record<string, string>;

/** Scalars stay as they are written, so that `010` and `on` do not become 10 and true; null is null. */
export const parseText = (yaml: string): unknown =>
  parse(yaml, { schema: "failsafe", customTags: ["null"], merge: true, logLevel: "error" });

export const isMap = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);
export const text = (value: unknown): string | undefined =>
  typeof value === "string" && value !== "" ? value : undefined;

export function textMap(value: unknown, what: string): Text {
  if (value === undefined || value === null || value === "") return {};
  if (!isMap(value)) throw new Failure(`${what} must be a map`);
  return Object.fromEntries(
    Object.entries(value).map(([key, v]) => {
      if (v !== null && typeof v !== "string") throw new Failure(`${what}.${key} must be a text`);
      return [key, v ?? ""];
    }),
  );
}

export function textList(value: unknown, what: string): string[] {
  if (value === undefined || value === null || value === "") return [];
  if (!Array.isArray(value) || value.some((v) => typeof v !== "string"))
    throw new Failure(`${what} must be a list of texts`);
  return value;
}
