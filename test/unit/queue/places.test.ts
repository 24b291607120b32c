import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { isAppError } from "../../../src/base/errors.ts";
import { Places } from "../../../src/queue/places.ts";

suite("places in the queue", () => {
  const depth = { lane: "call", fn: "a.fn", queued: 1, running: 1, dead: 5, oldest: null } as const;
  const refused = (places: Places, fn: string, code: "QUEUE_FULL" | "QUEUE_FUNCTION_FULL") =>
    assert.throws(
      () => places.reserve(fn, 3),
      (e) => isAppError(e, code),
    );

  test("a function that has all of its own leaves those of the others", () => {
    const places = new Places(5, [depth]);
    places.reserve("a.fn", 3);
    refused(places, "a.fn", "QUEUE_FUNCTION_FULL");
    places.reserve("b.fn", 3);
    places.reserve("b.fn", 3);
    refused(places, "b.fn", "QUEUE_FULL");
    places.free("a.fn");
    places.reserve("b.fn", 3);
  });

  test("what is there anyway counts, callbacks too, and nothing is refused to it", () => {
    const places = new Places(3, [depth, { ...depth, lane: "callback" }]);
    refused(places, "b.fn", "QUEUE_FULL");
    places.add("a.fn");
    for (let i = 0; i < 5; i++) places.free("a.fn");
    places.reserve("a.fn", 3);
  });
});
