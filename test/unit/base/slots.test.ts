import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { Slots } from "../../../src/base/slots.ts";

const stays = new AbortController().signal;

/** Enters under a name; `entered` has the names in the order in which they came in. */
function hall(count: number) {
  const slots = new Slots(count);
  const entered: string[] = [];
  const places = new Map<string, Disposable>();
  const enter = (name: string, urgent = false, signal = stays, owner: object = {}) =>
    slots.enter(owner, urgent, signal).then((place) => {
      entered.push(name);
      places.set(name, place);
    });
  const leave = async (name: string) => {
    places.get(name)![Symbol.dispose]();
    await turn();
  };
  return { slots, entered, enter, leave };
}

suite("slots", () => {
  test("let so many in, and the next when one leaves, in the order in which they came", async () => {
    const { entered, enter, leave } = hall(2);
    for (const name of ["a", "b", "c", "d"]) void enter(name);
    await turn();
    assert.deepEqual(entered, ["a", "b"]);
    await leave("b");
    assert.deepEqual(entered, ["a", "b", "c"]);
    await leave("b"); // twice is once
    assert.deepEqual(entered, ["a", "b", "c"]);
    await leave("a");
    assert.deepEqual(entered, ["a", "b", "c", "d"]);
  });

  test("let those in a hurry and the others take turns", async () => {
    const { entered, enter, leave } = hall(1);
    for (const name of ["first", "slow 1", "slow 2", "slow 3"]) void enter(name);
    for (const name of ["quick 1", "quick 2"]) void enter(name, true);
    await turn();
    for (let i = 0; i < 5; i++) await leave(entered.at(-1)!);
    assert.deepEqual(entered, ["first", "quick 1", "slow 1", "quick 2", "slow 2", "slow 3"]);
  });

  test("let somebody forward who is suddenly in a hurry", async () => {
    const { slots, entered, enter, leave } = hall(1);
    const owner = {};
    void enter("first");
    for (const name of ["slow 1", "slow 2"]) void enter(name);
    void enter("called", false, stays, owner);
    slots.hurry(owner);
    await turn();
    await leave("first");
    assert.deepEqual(entered, ["first", "called"]);
  });

  test("forget who gives up waiting", async () => {
    const { entered, enter, leave } = hall(1);
    const reason = new Error("changed my mind");
    const giving = new AbortController();
    await enter("first");
    const gone = assert.rejects(enter("gone", false, giving.signal), reason);
    void enter("last");
    giving.abort(reason);
    await gone;
    await assert.rejects(enter("never", false, AbortSignal.abort(reason)), reason);
    await leave("first");
    assert.deepEqual(entered, ["first", "last"]);
  });
});
