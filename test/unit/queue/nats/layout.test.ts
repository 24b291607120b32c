import assert from "node:assert/strict";
import { suite, test } from "node:test";
import type { Msg } from "@nats-io/transport-node";
import {
  decodePayload,
  deliveryOf,
  encodePayload,
  infoOf,
  keyFilter,
  Layout,
  newKey,
  partsOf,
  withInfo,
} from "../../../../src/queue/nats/layout.ts";

const call = { lane: "call", fn: "web.dev", callId: "any *>. text\r\n" } as const;

/** Whether a subject fits a filter, as the server has it. */
function fits(subject: string, filter: string): boolean {
  const wanted = filter.split(".");
  const tokens = subject.split(".");
  return tokens.length === wanted.length && wanted.every((token, i) => token === "*" || token === tokens[i]);
}

suite("the queue's subjects and messages", () => {
  test("a key is made of tokens, and says what it is of", () => {
    const key = newKey(call);
    assert.match(key, /^call\.web\.dev\.[0-9a-f]{24}\.[0-9a-f]{32}$/);
    assert.notEqual(newKey(call), key);
    const { lane, fn } = partsOf(key);
    assert.deepEqual([lane, fn], ["call", "web.dev"]);
    const layout = new Layout("napd");
    assert.equal(layout.keyOf(layout.subject("messages", key)), key);
  });

  for (const [filter, isRight] of [
    [{}, true],
    [{ fn: "web.dev" }, true],
    [{ fn: "web.other" }, false],
    [{ namespace: "dev" }, true],
    [{ namespace: "web" }, false],
    [{ callId: call.callId }, true],
    [{ callId: "another" }, false],
    [{ fn: "web.dev", callId: call.callId }, true],
  ] as const)
    test(`a key ${isRight ? "fits" : "does not fit"} ${JSON.stringify(filter)}`, () => {
      assert.equal(fits(newKey(call), keyFilter(filter)), isRight);
    });

  test("a consumer's name leads back to its function", () => {
    const layout = new Layout("napd");
    for (const fn of ["web.dev", "a-b--c.d-1"])
      assert.deepEqual(layout.consumerOf(layout.consumer("callback", fn)), { lane: "callback", fn });
    for (const other of ["mine", "call_web", "other_web_dev"]) assert.equal(layout.consumerOf(other), undefined);
  });

  test("a delivery's place is in the subject of its ack, of servers old and new", () => {
    const placeOf = (reply: string) => deliveryOf({ reply } as Msg);
    const place = { seq: 41, deliveries: 3 };
    assert.deepEqual(placeOf("$JS.ACK.napd-messages.call_web_dev.3.41.7.1795269119549164578.0"), place);
    assert.deepEqual(placeOf("$JS.ACK._.hash.napd-messages.call_web_dev.3.41.7.1795269119549164578.0"), place);
    assert.deepEqual(placeOf("$JS.ACK.hub.hash.napd-messages.call_web_dev.3.41.7.1795269119549164578.0.token"), place);
  });

  test("what is told in a header, and a payload, come back as they were", () => {
    const info = { callId: "a\r\nb: c", target: "/ü\u0000", bytes: 0 };
    assert.deepEqual(infoOf(withInfo(info)), info);
    const headers = ["X-Ü", "w\u00e9rt", "Empty", ""];
    const body = new Uint8Array([0, 255, 13, 10]);
    const back = decodePayload(encodePayload(headers, body));
    assert.deepEqual([back.headers, [...back.body]], [headers, [...body]]);
  });
});
