import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { excess, type Kept, outdated } from "../../../src/logs/retention.ts";

interface Row extends Kept {
  id: string;
}
const log = (id: string, generation: number, more: Partial<Kept> = {}): Row => ({
  ...{ id, live: false, heldBytes: 10, writtenAt: 0, identity: { generation } },
  ...more,
});
const ids = (files: readonly Row[]) => files.map((f) => f.id).join("");

suite("logs of replaced versions", () => {
  const rows: [says: string, files: Row[], outdated: string][] = [
    ["the only one stays", [log("a", 7)], ""],
    ["those of three versions stay, with all their replicas", [log("a", 1), log("b", 1), log("c", 5), log("d", 9)], ""],
    ["those of older ones go", [log("a", 1), log("b", 2), log("c", 5), log("d", 9), log("e", 1)], "ae"],
    [
      "one that runs stays, however old",
      [log("a", 1, { live: true }), log("b", 2), log("c", 5), log("d", 9), log("e", 10)],
      "b",
    ],
    ["none", [], ""],
  ];
  for (const [says, files, expected] of rows) test(says, () => assert.equal(ids(outdated(files)), expected));
});

suite("logs that are too much", () => {
  const all = Number.POSITIVE_INFINITY;
  const rows: [says: string, files: Row[], max: number, remove: string, share: number][] = [
    ["nothing goes while there is room", [log("a", 1), log("b", 2)], 20, "", all],
    [
      "the longest silent goes first, and no more than needed",
      [log("a", 1, { writtenAt: 3 }), log("b", 2, { writtenAt: 1 }), log("c", 3, { writtenAt: 2 })],
      15,
      "bc",
      all,
    ],
    [
      "those that run share what is left when nothing else can go",
      [log("a", 1), log("b", 2, { live: true, heldBytes: 100 }), log("c", 3, { live: true })],
      60,
      "a",
      30,
    ],
    ["no room at all", [log("a", 1), log("b", 2)], 0, "ab", all],
  ];
  for (const [says, files, max, remove, share] of rows)
    test(says, () => {
      const is = excess(files, max);
      assert.deepEqual([ids(is.remove), is.share], [remove, share]);
    });
});
