import assert from "node:assert/strict";
import { suite, test } from "node:test";
import type { ListedImage } from "../../../../src/host/containerd/images.ts";
import { chooseUnused, groupImages, importedLabel, isUsed, pinLabel } from "../../../../src/host/image/unused.ts";

const digest = (letter: string) => `sha256:${letter.repeat(64)}`;

/** A record of an image; `minutes` after the epoch it was written last. */
function record(name: string, letter: string, minutes: number, labels: Record<string, string> = {}): ListedImage {
  const at = { seconds: String(minutes * 60), nanos: 5e6 };
  const target = { media_type: "", digest: digest(letter), size: "1" };
  return { name, labels, target, created_at: { seconds: "0", nanos: 0 }, updated_at: at };
}

const pin = (letter: string, minutes: number) =>
  record(`h/r@${digest(letter)}`, letter, minutes, { [pinLabel]: "true" });
const imported = { [importedLabel]: "true" };

interface Row {
  says: string;
  records: ListedImage[];
  /** Letters of digests that functions run. */
  used?: string[];
  /** Minutes: what was used later stays. */
  before?: number;
  /** First name of each that may go, in order. */
  go: string[];
}

const rows: Row[] = [
  { says: "none", records: [], go: [] },
  {
    says: "the one unused for the longest time goes first",
    records: [record("b:1", "b", 20), record("a:1", "a", 10), record("c:1", "c", 30)],
    go: ["a:1", "b:1", "c:1"],
  },
  {
    says: "what is used stays, with every name of it, in whatever repository",
    records: [record("a:1", "a", 10), record("elsewhere/a:2", "a", 10), pin("a", 10), record("b:1", "b", 20)],
    used: ["a"],
    go: ["b:1"],
  },
  {
    says: "the pin of a version that a function may go back to stays, though no tag points to it",
    records: [pin("a", 10), pin("b", 20)],
    used: ["a"],
    go: [`h/r@${digest("b")}`],
  },
  {
    says: "the youngest of its names is the age of an image",
    records: [record("a:1", "a", 10), record("a:2", "a", 50), record("b:1", "b", 20)],
    go: ["b:1", "a:1"],
  },
  {
    says: "what was used a moment ago stays",
    records: [record("a:1", "a", 10), record("b:1", "b", 20)],
    before: 15,
    go: ["a:1"],
  },
  {
    says: "what can be fetched again goes before what was imported",
    records: [record("a:1", "a", 10, imported), record("b:1", "b", 20), record("c:1", "c", 5, imported)],
    go: ["b:1", "c:1", "a:1"],
  },
];

suite("unused images", () => {
  for (const { says, records, used = [], before = 1e9, go } of rows)
    test(says, () => {
      const needed = used.map((letter) => ({ namespace: "fn", image: `h/r@${digest(letter)}`, by: "web" }));
      const chosen = chooseUnused(groupImages("fn", records), {
        before: before * 60_000,
        isNeeded: (group) => isUsed(group, needed),
      });
      assert.deepEqual(
        chosen.map((group) => group.names[0]),
        go,
      );
    });

  test("a function of another namespace keeps nothing here", () => {
    const [group] = groupImages("fn", [record("a:1", "a", 10)]);
    assert.equal(isUsed(group!, [{ namespace: "other", image: `h/r@${digest("a")}`, by: "web" }]), false);
  });
});
