import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { suite, test } from "node:test";
import { substitute } from "../../../src/cli/envsubst.ts";

const { envsubst } = JSON.parse(readFileSync(`${import.meta.dirname}/../../cases/cli-wire.json`, "utf8")) as {
  envsubst: { results: Record<string, string> };
};

suite("variables in a stack file", () => {
  for (const [written, becomes] of Object.entries(envsubst.results))
    test(`${written} becomes ${becomes}`, () => {
      const replaced = () => substitute(written, { SET: "Hello", EMPTY: "" });
      if (becomes.startsWith("ERR ")) assert.throws(replaced);
      else assert.equal(replaced(), becomes);
    });
});
