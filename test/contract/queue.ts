/**
 * The exam of the queue's seam (src/queue/store.ts): what the dispatcher and the API rely on, wherever messages are
 * kept. A store that other machines share may be a moment late with what it has, so what is taken is waited for.
 */
import assert from "node:assert/strict";
import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { after, before, suite, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { emptyBody, type MessageBodies } from "../../src/queue/bodies.ts";
import type { Message, NewMessage, QueueStore, StoredBody } from "../../src/queue/store.ts";
import { until } from "../fakes/platform.ts";

/** Who sits the exam, on a place of its own. */
export interface Candidate extends AsyncDisposable {
  readonly bodies: MessageBodies;
  /** The one that is open. */
  store(): QueueStore;
  /** Ends the store, and opens it again with what it has. */
  reopen(): Promise<void>;
  /** How many bodies it has that are too large for a message. */
  largeBodies(): Promise<number>;
}

/** A message, of a function of its own unless one is named, so that tests do not meet. */
export function message(callId: string, more: Partial<NewMessage> = {}): NewMessage {
  const plain = { lane: "call", fn: "web.fn", target: "/a?b=ü", headers: ["A", "b"], callback: null } as const;
  return { callId, body: emptyBody, created: Date.now(), ...plain, ...more };
}

/** Sits the exam; `open` is called once, and every test has a function of its own. */
export function queueContract(who: string, open: () => Promise<Candidate>): void {
  suite(`the queue's store: ${who}`, () => {
    let candidate: Candidate;
    before(async () => {
      candidate = await open();
    });
    after(() => candidate[Symbol.asyncDispose]());

    const store = () => candidate.store();

    /** What there is, once there are `count` of them. */
    async function taken(fn: string, count = 1, lane: "call" | "callback" = "call"): Promise<Message[]> {
      const found: Message[] = [];
      await until(`${count} messages can be taken, there are ${found.length}`, async () => {
        const { messages } = await store().take(lane, fn, count - found.length, Date.now());
        found.push(...messages);
        return found.length === count;
      });
      return found;
    }

    const takesNone = async (fn: string) =>
      assert.deepEqual((await store().take("call", fn, 10, Date.now())).messages, []);
    const found = async (callId: string) => store().list({ callId, limit: 100 });
    const states = async (callId: string) => (await found(callId)).map(({ lane, state }) => `${lane} ${state}`);
    const depthOf = async (fn: string) => (await store().depths()).filter((depth) => depth.fn === fn);

    async function large(bytes: number): Promise<{ body: StoredBody; bytes: Buffer }> {
      const content = Buffer.alloc(bytes, "0123456789abcdef-");
      const half = Math.floor(bytes / 2);
      const body = await candidate.bodies.keep(Readable.from([content.subarray(0, half), content.subarray(half)]), 1e8);
      return { body: body!, bytes: content };
    }

    test("gives messages back as they came, the oldest first, to one taker", async () => {
      const fn = "order.fn";
      const body = { bytes: 3, data: new Uint8Array([0, 255, 7]), file: null };
      const first = message("o1", { fn, body, callback: "http://x/", headers: ["X-Ümlaut", "w\u00e9"] });
      await store().put(first);
      await Promise.all(["o2", "o3"].map((id) => store().put(message(id, { fn }))));
      await store().put(message("else", { fn: "else.fn" }));
      const [one] = await taken(fn);
      const { seq, ...rest } = one!;
      assert.equal(typeof seq, "number");
      assert.deepEqual({ ...rest, body: { ...rest.body, data: [...rest.body.data!] } }, {
        ...{ ...first, attempts: 1 },
        body: { bytes: 3, data: [0, 255, 7], file: null },
      } as never);
      const others = await taken(fn, 2);
      assert.deepEqual(others.map(({ callId }) => callId).sort(), ["o2", "o3"]);
      await takesNone(fn);
      assert.equal((await taken("else.fn"))[0]?.callId, "else");
    });

    test("tells when there is more than was asked for, and when something is due", async () => {
      const fn = "due.fn";
      assert.equal((await store().take("call", fn, 1, Date.now())).nextDue, null);
      await store().put(message("d1", { fn }));
      await store().put(message("d2", { fn }));
      const now = Date.now();
      const { messages, nextDue } = await store().take("call", fn, 1, now);
      assert.deepEqual([messages.length, nextDue !== null && nextDue <= now], [1, true]);
      const due = Date.now() + 60_000;
      assert.equal(await store().settle(messages[0]!.seq, { to: "queued", due }), true);
      await taken(fn);
      assert.deepEqual(await store().take("call", fn, 1, Date.now()), { messages: [], nextDue: due });
    });

    test("queues again what was under way when it ended, with its attempts", async () => {
      const fn = "again.fn";
      await store().put(message("ag", { fn }));
      const [first] = await taken(fn);
      await store().settle(first!.seq, { to: "queued", due: Date.now(), status: 503, error: "no" });
      assert.equal((await taken(fn))[0]?.attempts, 2);
      await candidate.reopen();
      assert.equal((await taken(fn))[0]?.attempts, 3);
      const [info] = await found("ag");
      assert.deepEqual([info?.state, info?.attempts, info?.status, info?.error], ["running", 3, 503, "no"]);
    });

    test("keeps what waits for its next attempt until it is due, also when it ends meanwhile", async () => {
      const fn = "wait.fn";
      await store().put(message("w", { fn }));
      const [first] = await taken(fn);
      const due = Date.now() + 1000;
      assert.equal(await store().settle(first!.seq, { to: "queued", due, status: 500, error: "why" }), true);
      const [info] = await found("w");
      const { state, attempts, status, error } = info!;
      assert.deepEqual([state, attempts, status, error, info?.due], ["queued", 1, 500, "why", due]);
      assert.deepEqual(await depthOf(fn), [
        { lane: "call", fn, queued: 1, running: 0, dead: 0, oldest: info?.created },
      ]);
      await takesNone(fn);
      await candidate.reopen();
      const [second] = await taken(fn);
      assert.ok(Date.now() >= due);
      assert.deepEqual([second?.callId, second?.attempts], ["w", 2]);
    });

    test("forgets what is done, and puts what follows from it in its place", async () => {
      const fn = "next.fn";
      await store().put(message("n", { fn }));
      const [first] = await taken(fn);
      const next = message("n", { fn, lane: "callback", target: "http://x/" });
      assert.equal(await store().settle(first!.seq, { to: "done", next }), true);
      assert.equal(await store().settle(first!.seq, { to: "done", next }), false);
      assert.deepEqual(await states("n"), ["callback queued"]);
      await takesNone(fn);
      const [second] = await taken(fn, 1, "callback");
      assert.deepEqual([second?.target, second?.attempts], ["http://x/", 1]);
      assert.equal(await store().settle(second!.seq, { to: "done" }), true);
      assert.deepEqual(await states("n"), []);
      assert.deepEqual(await depthOf(fn), []);
    });

    test("keeps the dead until they are revived, each time with what follows from it", async () => {
      const fn = "dead.fn";
      const put = message("de", { fn, body: { bytes: 1, data: new Uint8Array([9]), file: null } });
      await store().put(put);
      for (const round of [1, 2]) {
        const [one] = await taken(fn);
        assert.deepEqual([one?.attempts, [...one!.body.data!], one?.created], [1, [9], put.created], `round ${round}`);
        const next = message("de", { fn, lane: "callback" });
        assert.equal(await store().settle(one!.seq, { to: "dead", status: 500, error: "why", next }), true);
        const [told] = await taken(fn, 1, "callback");
        await store().settle(told!.seq, { to: "done" });
        const [info] = await found("de");
        assert.deepEqual([info?.state, info?.attempts, info?.status, info?.error], ["dead", 1, 500, "why"]);
        await takesNone(fn);
        assert.deepEqual(await depthOf(fn), [{ lane: "call", fn, queued: 0, running: 0, dead: 1, oldest: null }]);
        assert.deepEqual(await store().revive("de", Date.now()), [{ lane: "call", fn }]);
        assert.deepEqual(await store().revive("de", Date.now()), []);
      }
      assert.deepEqual(await states("de"), ["call queued"]);
    });

    test("buries the dead by age and by number", async () => {
      const fn = "bury.fn";
      for (const [i, id] of ["b1", "b2", "b3"].entries()) await store().put(message(id, { fn, created: 1000 + i }));
      const all = await taken(fn, 3);
      for (const { seq } of all) await store().settle(seq, { to: "dead" });
      assert.equal(await store().bury(1000, 9), 0);
      assert.equal(await store().bury(1001, 9), 1);
      assert.deepEqual(await states("b1"), []);
      assert.equal(await store().bury(0, 1), 1);
      assert.equal(await store().bury(0, 0), 1);
      assert.deepEqual(await depthOf(fn), []);
    });

    test("lists by function, namespace, state and call, the oldest first", async () => {
      const mine = { namespace: "listed" };
      await store().put(message("l1", { fn: "a.listed", created: 1 }));
      await store().put(message("l2", { fn: "b.listed", created: 2 }));
      await store().put(message("l3 with. odd *>\u00fc", { fn: "a.listed", created: 3 }));
      const [running] = await taken("a.listed");
      const ids = async (filter: object) => (await store().list({ limit: 9, ...filter })).map(({ callId }) => callId);
      assert.deepEqual(await ids(mine), ["l1", "l2", "l3 with. odd *>\u00fc"]);
      assert.deepEqual(await ids({ fn: "b.listed" }), ["l2"]);
      assert.deepEqual(await ids({ ...mine, state: "running" }), ["l1"]);
      assert.deepEqual(await ids({ ...mine, state: "queued" }), ["l2", "l3 with. odd *>\u00fc"]);
      assert.deepEqual(await ids({ ...mine, state: "queued", limit: 1 }), ["l2"]);
      assert.deepEqual(await ids({ callId: "l3 with. odd *>\u00fc" }), ["l3 with. odd *>\u00fc"]);
      await store().settle(running!.seq, { to: "dead" });
      assert.deepEqual(await ids({ ...mine, state: "dead" }), ["l1"]);
      assert.deepEqual(await ids({ ...mine, limit: 2 }), ["l1", "l2"]);
      assert.deepEqual(await ids({ namespace: "nobody" }), []);
    });

    test("removes a call wherever it is, and what comes of it then does not count", async () => {
      const fn = "gone.fn";
      for (const id of ["g1", "g1", "g2"]) await store().put(message(id, { fn }));
      const [running] = await taken(fn);
      assert.equal(running?.callId, "g1");
      const removed = await store().remove("g1");
      assert.deepEqual(removed.map(({ state }) => state).sort(), ["queued", "running"]);
      assert.ok(removed.some(({ seq }) => seq === running?.seq));
      assert.ok(removed.every((one) => one.fn === fn && one.lane === "call"));
      assert.deepEqual(await store().remove("g1"), []);
      const next = message("g1", { fn, lane: "callback" });
      for (const outcome of [{ to: "done", next }, { to: "dead" }, { to: "queued", due: Date.now() }] as const)
        assert.equal(await store().settle(running!.seq, outcome), false);
      assert.deepEqual(await found("g1"), []);
      assert.equal((await taken(fn))[0]?.callId, "g2");
      await takesNone(fn);
    });

    test("has large bodies whole, through retries, death and revival, and removes them with their message", async () => {
      const fn = "large.fn";
      const atFirst = await candidate.largeBodies();
      const sent = await large(3_000_000);
      const kept = await large(200_000);
      assert.equal(sent.body.data, null);
      await store().put(message("la", { fn, body: sent.body }));
      const whole = async ({ body }: Message, wanted: Buffer) =>
        assert.ok((await buffer(candidate.bodies.read(body))).equals(wanted));
      let [one] = await taken(fn);
      assert.equal(one?.body.bytes, 3_000_000);
      await whole(one!, sent.bytes);
      await store().settle(one!.seq, { to: "queued", due: Date.now() });
      [one] = await taken(fn);
      await whole(one!, sent.bytes);
      const next = message("la", { fn, lane: "callback", body: kept.body });
      await store().settle(one!.seq, { to: "dead", next });
      await store().revive("la", Date.now());
      await candidate.reopen();
      [one] = await taken(fn);
      await whole(one!, sent.bytes);
      await store().settle(one!.seq, { to: "done" });
      const [told] = await taken(fn, 1, "callback");
      await whole(told!, kept.bytes);
      assert.equal((await candidate.largeBodies()) - atFirst <= 2, true);
      await store().remove("la");
      await until("no large body is there", async () => (await candidate.largeBodies()) === atFirst);
    });

    test("takes many at once, none of them twice", async () => {
      const fn = "many.fn";
      const ids = Array.from({ length: 200 }, (_, i) => `m${i}`);
      await Promise.all(ids.map((callId) => store().put(message(callId, { fn }))));
      const seen: string[] = [];
      const taker = async () => {
        while (seen.length < ids.length) {
          const { messages } = await store().take("call", fn, 7, Date.now());
          seen.push(...messages.map(({ callId }) => callId));
          for (const { seq } of messages) assert.equal(await store().settle(seq, { to: "done" }), true);
          await delay(1);
        }
      };
      await Promise.all([taker(), taker(), taker()]);
      assert.deepEqual(seen.sort(), ids.sort());
      assert.deepEqual(await depthOf(fn), []);
    });
  });
}
