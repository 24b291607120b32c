import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { ImagesInUse } from "../../../src/functions/images-in-use.ts";
import type { Row } from "../../../src/functions/managed.ts";
import { gate } from "../../fakes/platform.ts";

const use = { namespace: "fn", image: "pin" };
const version = (image: string) => ({ spec: { name: "web", namespace: "fn", image }, image });
const row = (image: string, previous: string | null = null): Row => ({
  ...{ name: "web", namespace: "fn", generation: 2, replicas: 1, failure: null, stopped: false, createdAt: 0 },
  version: version(image),
  previous: previous === null ? null : { version: version(previous), generation: 1 },
});

/** Images with a store of pins, whose releases take until `open` is called. */
function shelf() {
  const images = new ImagesInUse(() => []);
  const pins = new Set<string>();
  const { opened, open } = gate();
  let prepared = 0;
  return {
    images,
    pins,
    open,
    prepared: () => prepared,
    prepare: () =>
      images.prepare("fn", async () => {
        prepared++;
        await turn();
        pins.add("pin");
        return "pin";
      }),
    release: (rows: Row[] = []) =>
      images.release(use, rows, async () => {
        await opened;
        pins.delete("pin");
      }),
  };
}

suite("an image", () => {
  test("that nobody needs is let go of", async () => {
    const s = shelf();
    s.pins.add("pin");
    s.open();
    await s.release([row("other")]);
    assert.deepEqual([...s.pins], []);
  });

  for (const [what, rows] of [
    ["a function", [row("pin")]],
    ["the version that a function may go back to", [row("other", "pin")]],
  ] as const)
    test(`of ${what} stays`, async () => {
      const s = shelf();
      s.pins.add("pin");
      s.open();
      await s.release([...rows]);
      assert.deepEqual([...s.pins], ["pin"]);
    });

  test("of a deploy under way stays until that has ended", async () => {
    const s = shelf();
    s.open();
    {
      using _ = await s.prepare();
      assert.deepEqual(s.images.list(), [{ ...use, by: null }]);
      await s.release();
      assert.deepEqual([...s.pins], ["pin"]);
    }
    await s.release();
    assert.deepEqual([...s.pins], []);
  });

  test("that is being let go of while a deploy prepares it is prepared again", async () => {
    const s = shelf();
    s.pins.add("pin");
    const released = s.release();
    const preparing = s.prepare();
    await turn();
    await turn();
    s.open();
    using _ = await preparing;
    await released;
    assert.deepEqual([[...s.pins], s.prepared()], [["pin"], 2]);
  });

  test("that was let go of between the two is prepared again too", async () => {
    const s = shelf();
    s.open();
    const preparing = s.prepare();
    const released = s.release();
    using _ = await preparing;
    await released;
    assert.deepEqual([[...s.pins], s.prepared()], [["pin"], 2]);
  });

  test("that was let go of before is prepared once", async () => {
    const s = shelf();
    s.open();
    await s.release();
    using _ = await s.prepare();
    assert.deepEqual([[...s.pins], s.prepared()], [["pin"], 1]);
  });
});
