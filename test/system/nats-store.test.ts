/** The queue on a real NATS server: it sits its seam's exam, and what a server and other machines can do to it besides. */
import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { suite, test } from "node:test";
import { jetstream, jetstreamManager } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import { isAppError } from "../../src/base/errors.ts";
import type { Message } from "../../src/queue/store.ts";
import { message, queueContract } from "../contract/queue.ts";
import { until } from "../fakes/platform.ts";
import { openNats, openQueueOn } from "../support/nats.ts";
import { tmpDir } from "../support/tmp.ts";

async function opened(args?: string[]) {
  await using up = new AsyncDisposableStack();
  const { path } = up.use(await tmpDir());
  const server = up.use(await openNats(path, args));
  const stack = up.move();
  return {
    ...{ path, server },
    async queue(more: Parameters<typeof openQueueOn>[2] = {}, url = server.url) {
      const queue = stack.use(await openQueueOn(url, path, more));
      await queue.reached();
      return queue;
    },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

type Queue = Awaited<ReturnType<typeof openQueueOn>>;

async function taken({ store }: Queue, fn = "web.fn"): Promise<Message> {
  let found: Message | undefined;
  await until("a message can be taken", async () => {
    [found] = (await store.take("call", fn, 1, Date.now())).messages;
    return found !== undefined;
  });
  return found!;
}

const ids = async ({ store }: Queue) => (await store.list({ limit: 1000 })).map(({ callId }) => callId);

queueContract("NATS JetStream", async () => {
  await using up = new AsyncDisposableStack();
  const t = up.use(await opened());
  let queue = await t.queue();
  const nc = await connect({ servers: t.server.url });
  up.defer(() => nc.close());
  const jsm = await jetstreamManager(nc);
  const stack = up.move();
  return {
    get bodies() {
      return queue.bodies;
    },
    store: () => queue.store,
    async reopen() {
      await queue[Symbol.asyncDispose]();
      queue = await t.queue();
    },
    async largeBodies() {
      const { state } = await jsm.streams.info("napd-bodies", { subjects_filter: "napd.bodies.*.0" });
      return Object.keys(state.subjects ?? {}).length;
    },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
});

suite("the queue on a NATS server", () => {
  test("refuses while the server is away, with a sentence, and works when it comes", async () => {
    await using t = await opened();
    await t.server.stop();
    await using queue = await openQueueOn(t.server.url, t.path);
    const refused = (e: unknown) =>
      isAppError(e, "QUEUE_SERVER") && e.message.includes(t.server.url) && /queue\.url/.test(e.message);
    await assert.rejects(queue.store.put(message("a")), refused);
    await assert.rejects(queue.store.list({ limit: 1 }), refused);
    assert.deepEqual(await queue.store.take("call", "web.fn", 1, Date.now()), { messages: [], nextDue: null });
    await t.server.start();
    await queue.reached();
    await queue.store.put(message("a"));
    await t.server.kill9();
    await until("it is refused again", () =>
      queue.store.put(message("b")).then(
        () => false,
        (e) => refused(e),
      ),
    );
    await t.server.start();
    await until("it is told of what waits", () => queue.available.includes("call web.fn"));
    assert.deepEqual(await ids(queue), ["a"]);
  });

  test("has all that it had when the server is killed, and what runs goes on running once", async () => {
    await using t = await opened();
    const [one, other] = [await t.queue(), await t.queue()];
    const large = Buffer.alloc(700_000, "large");
    const body = (await one.bodies.keep(Readable.from([large]), 1e6))!;
    await one.store.put(message("runs"));
    const runs = await taken(one);
    await one.store.put(message("fails"));
    const fails = await taken(one);
    const due = Date.now() + 1000;
    await one.store.settle(fails.seq, { to: "queued", due, status: 500 });
    await one.store.put(message("dies"));
    await one.store.settle((await taken(one)).seq, { to: "dead", status: 501 });
    await one.store.put(message("done"));
    await one.store.settle((await taken(one)).seq, { to: "done" });
    await one.store.put(message("large", { fn: "large.fn", body }));
    await t.server.kill9();
    await t.server.start();
    await Promise.all([one.reached(), other.reached()]);
    const known = (await other.store.list({ limit: 9 })).map(({ callId, state }) => `${callId} ${state}`);
    assert.deepEqual(known.sort(), ["dies dead", "fails queued", "large queued", "runs running"]);
    // longer than a machine may be silent: whoever has it says that it lives, over and over
    const seen: string[] = [];
    await until("what waited for its next attempt is there", async () => {
      const { messages } = await other.store.take("call", "web.fn", 9, Date.now());
      seen.push(...messages.map(({ callId, attempts }) => `${callId} ${attempts}`));
      return seen.length > 0 && Date.now() > due + 2500;
    });
    assert.deepEqual(seen, ["fails 2"]);
    assert.equal(await one.store.settle(runs.seq, { to: "done" }), true);
    const whole = await taken(other, "large.fn");
    assert.ok((await buffer(other.bodies.read(whole.body))).equals(large));
  });

  test("delivers again what the server has forgotten, and only that", async () => {
    await using t = await opened();
    const one = await t.queue();
    await one.store.put(message("runs"));
    const runs = await taken(one);
    for (const id of ["f1", "f2"]) await one.store.put(message(id));
    // as a server that was killed has it: acknowledged, and still there
    const nc = await connect({ servers: t.server.url });
    const consumer = await jetstream(nc).consumers.get("napd-messages", "call_web_fn");
    for (const _ of [1, 2]) (await consumer.next())!.ack();
    await nc.drain();
    const other = await t.queue();
    const found = [await taken(other), await taken(other)].map(({ callId, attempts }) => `${callId} ${attempts}`);
    assert.deepEqual(found, ["f1 1", "f2 1"]);
    assert.deepEqual((await other.store.take("call", "web.fn", 9, Date.now())).messages, []);
    assert.equal(await one.store.settle(runs.seq, { to: "done" }), true);
  });

  test("shares what there is, and tells others of what comes and goes", async () => {
    await using t = await opened();
    const [one, other] = [await t.queue(), await t.queue()];
    await one.store.put(message("a"));
    await until("the other is told", () => other.available.includes("call web.fn"));
    const { seq } = await taken(other);
    assert.deepEqual((await one.store.take("call", "web.fn", 9, Date.now())).messages, []);
    assert.deepEqual(
      (await one.store.remove("a")).map(({ state }) => state),
      ["running"],
    );
    await until("the other is told", () => other.removed.includes(seq));
    assert.equal(await other.store.settle(seq, { to: "done" }), false);
  });

  test("that has no room says so, and takes again when there is some", async () => {
    await using dir = await tmpDir();
    await writeFile(`${dir.path}/nats.conf`, "jetstream { max_file_store: 1MB }\nmax_payload: 70000\n");
    await using t = await opened(["-c", `${dir.path}/nats.conf`]);
    const queue = await t.queue();
    const small = { bytes: 60_000, data: new Uint8Array(60_000), file: null };
    const full = (e: unknown) => isAppError(e, "QUEUE_SERVER_FULL") && e.status === 507;
    const fill = async () => {
      for (let i = 0; i < 100; i++) await queue.store.put(message(`f${i}`, { body: small }));
    };
    await assert.rejects(fill(), full);
    const content = Buffer.alloc(900_000);
    const large = (await queue.bodies.keep(Readable.from([content]), 1e6))!;
    await assert.rejects(queue.store.put(message("large", { body: large })), full);
    for (const id of await ids(queue)) await queue.store.remove(id);
    const some = (await queue.bodies.keep(Readable.from([content.subarray(0, 300_000)]), 1e6))!;
    await until("there is room again", () =>
      queue.store.put(message("again", { body: some })).then(
        () => true,
        () => false,
      ),
    );
    assert.equal((await buffer(queue.bodies.read((await taken(queue)).body))).length, 300_000);
  });

  test("asks for a password: a wrong one is told, the right one works", async () => {
    await using t = await opened(["--user", "napd", "--pass", "se cret"]);
    await using wrong = await openQueueOn(t.server.url.replace("//", "//napd:wrong@"), t.path);
    await until("the reason is told", () =>
      wrong.store.put(message("a")).then(
        () => false,
        (e) => /authorization/i.test(e.message) && !/wrong/.test(e.message),
      ),
    );
    const right = await t.queue({}, t.server.url.replace("//", "//napd:se%20cret@"));
    await right.store.put(message("a"));
  });
});
