/** Bytes on the wire: what is ambiguous reaches nobody, and what is not reaches the right one as the right thing. */
import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { accepted, refused } from "../../cases/edge-requests.ts";
import { call, openTestGateway, recorder, type Seen } from "../../support/gateway.ts";

/** Beyond it, byte by byte takes too long and shows nothing new. */
const maxBytesOneByOne = 2000;
const next = "GET /function/next HTTP/1.1\r\nHost: napd.example\r\nConnection: close\r\n\r\n";

const text = ({ method, what, body }: Seen) => `${method} ${what}${body === "" ? "" : ` ${body}`}`;

/** Sends bytes on a connection of their own, and `next` behind them; gives what came of it when the gateway has closed. */
async function send(raw: string, oneByOne: boolean) {
  const handlers = recorder();
  await using gateway = await openTestGateway();
  gateway.serve(handlers);
  using caller = await call(gateway.port);
  if (oneByOne)
    for (const byte of raw + next) {
      if (!caller.socket.writable) break;
      caller.socket.write(byte, "latin1");
      await turn();
    }
  else caller.socket.write(raw + next, "latin1");
  await caller.ended;
  return {
    statuses: caller.statuses(),
    answer: caller.text(),
    begun: handlers.seen.length,
    whole: handlers.seen.filter((seen) => seen.whole).map(text),
  };
}

const ways = (raw: string) => (raw.length <= maxBytesOneByOne ? [false, true] : [false]);
const said = (oneByOne: boolean) => (oneByOne ? ", byte by byte" : "");

for (const [group, cases] of Object.entries(refused))
  suite(`refused: ${group}`, { concurrency: 8 }, () => {
    for (const [says, raw, status, begins] of cases)
      for (const oneByOne of ways(raw))
        test(`${says}${said(oneByOne)}: ${status} and closed`, { timeout: 20_000 }, async () => {
          const got = await send(raw, oneByOne);
          assert.deepEqual(got.whole, []);
          if (begins) assert.ok(got.begun <= 1);
          else assert.equal(got.begun, 0);
          assert.deepEqual(got.statuses, [status], got.answer);
          assert.match(got.answer, /^Connection: close\r$/m);
        });
  });

for (const [group, cases] of Object.entries(accepted))
  suite(`accepted: ${group}`, { concurrency: 8 }, () => {
    for (const [says, raw, ...sees] of cases)
      for (const oneByOne of ways(raw))
        test(`${says}${said(oneByOne)}`, { timeout: 20_000 }, async () => {
          const got = await send(raw, oneByOne);
          assert.deepEqual(got.whole, [...sees, "GET f next /"]);
          assert.deepEqual(
            got.statuses,
            got.whole.map(() => 200),
          );
        });
  });

test("there are enough cases, and none twice", () => {
  const raws = [...Object.values(refused), ...Object.values(accepted)].flat().map(([, raw]) => raw);
  assert.ok(raws.length >= 200, `${raws.length}`);
  assert.equal(new Set(raws).size, raws.length);
});
