/**
 * The exam of the backend seam (src/functions/backend.ts): what the domain relies on, whoever runs the functions. The
 * fake sits it, and so does this machine; a fake that passes may be trusted.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { Readable } from "node:stream";
import { after, before, suite, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { type AppError, isAppError } from "../../src/base/errors.ts";
import { tarEnd, tarHeader, tarPadding } from "../../src/base/tar.ts";
import {
  type Address,
  type Backend,
  type ImageComposition,
  type LogLine,
  type LogQuery,
  type ObservedReplica,
  type ReplicaExit,
  type ReplicaIdentity,
  type ReplicaSpec,
  replicaId,
} from "../../src/functions/backend.ts";

/** Who sits the exam, on a place of its own. */
export interface Candidate extends AsyncDisposable {
  readonly backend: Backend;
  /** What the backend takes for needed; empty at first, for the test to fill. */
  readonly used: { namespace: string; image: string; by: string | null }[];
  readonly namespace: string;
  /** Values of secrets by name, for the exam to change. */
  readonly secrets: Map<string, string>;
  readonly images: {
    /**
     * Answers `hello` on /, its environment, a variable a line, on /cgi-bin/info, and a secret's bytes on
     * /cgi-bin/say?NAME.
     */
    readonly web: string;
    /** Prints `first words` and `last words`, then exits with 7. */
    readonly exits: string;
    /** Can be prepared, but no replica of it can be started. */
    readonly broken: string;
    /** Is here, and nothing else needs it. */
    readonly spare: string;
    /** Does not exist. */
    readonly absent: string;
  };
  /** Everything there is of replicas, anywhere; not logs and images. */
  traces(): Promise<string[]>;
  /** Leaves what a start leaves whose backend dies in the middle of it. */
  halfMake(replica: ReplicaIdentity): Promise<void>;
}

/** Far longer than anything here takes, ms. */
const patienceMs = 20_000;

export function backendContract(name: string, open: () => Promise<Candidate>): void {
  suite(`the backend contract: ${name}`, () => {
    let c: Candidate;
    let pins: { web: string; exits: string; broken: string };
    /** What is there when no replica is. */
    let nothing: string[];
    let generation = 0;

    before(async () => {
      c = await open();
      const [web, exits, broken] = await Promise.all([
        c.backend.prepare(c.namespace, c.images.web, "IfNotPresent"),
        c.backend.prepare(c.namespace, c.images.exits, "IfNotPresent"),
        c.backend.prepare(c.namespace, c.images.broken, "IfNotPresent"),
      ]);
      pins = { web, exits, broken };
      nothing = await c.traces();
    });
    after(() => c[Symbol.asyncDispose]());

    /** A replica that never was before. */
    function fresh(more: Partial<ReplicaSpec> = {}): ReplicaSpec {
      generation++;
      const { namespace } = c;
      return {
        name: "web",
        namespace,
        generation,
        number: 0,
        image: pins.web,
        env: {},
        secrets: [],
        readOnlyRoot: false,
        watchdog: "image",
        ...more,
      };
    }

    async function started(spec: ReplicaSpec) {
      const address = await c.backend.start(spec);
      return { address, [Symbol.asyncDispose]: () => c.backend.stop(spec, 0) };
    }

    async function find(replica: ReplicaIdentity): Promise<ObservedReplica | undefined> {
      return (await c.backend.list()).find((o) => o.generation === replica.generation && o.number === replica.number);
    }

    suite("images", () => {
      test("a prepared image has a name that stays the same, and can be prepared by that name", async () => {
        for (const image of [c.images.web, pins.web])
          assert.equal(await c.backend.prepare(c.namespace, image, "IfNotPresent"), pins.web);
      });

      test("an image that does not exist is refused", async () => {
        await assert.rejects(c.backend.prepare(c.namespace, c.images.absent, "Never"), (e) => {
          assert.ok(isAppError(e), String(e));
          assert.match(e.code, /^IMAGE_/);
          return true;
        });
      });

      test("a preparation that was cancelled rejects with the reason", async () => {
        const reason = new Error("changed my mind");
        await assert.rejects(
          c.backend.prepare(c.namespace, c.images.web, "IfNotPresent", AbortSignal.abort(reason)),
          reason,
        );
      });

      test("a released image starts no replica until it is prepared again; releasing twice is fine", async () => {
        await c.backend.release(c.namespace, pins.web);
        await c.backend.release(c.namespace, pins.web);
        const spec = fresh();
        await assert.rejects(c.backend.start(spec), (e) => isAppError(e, "IMAGE_MISSING"));
        assert.equal(await c.backend.prepare(c.namespace, c.images.web, "IfNotPresent"), pins.web);
        await using replica = await started(spec);
        await answers(replica.address);
      });
    });

    suite("a life", () => {
      test("a started replica answers at its address and is listed as running there", async () => {
        const spec = fresh();
        await using replica = await started(spec);
        await answers(replica.address);
        const { name, namespace, generation, number } = spec;
        assert.deepEqual(await find(spec), {
          ...{ name, namespace, generation, number },
          ...{ condition: "running", address: replica.address },
        });
      });

      test("a replica gets its environment, byte for byte", async () => {
        await using replica = await started(fresh({ env: { GREETING: "hello = there; $HOME  ü" } }));
        await answers(replica.address);
        const text = await get(replica.address, "/cgi-bin/info");
        assert.ok(text.split("\n").includes("GREETING=hello = there; $HOME  ü"), text);
      });

      test("replicas of one generation live side by side at addresses of their own", async () => {
        const spec = fresh();
        await using one = await started(spec);
        await using two = await started({ ...spec, number: 1 });
        await Promise.all([answers(one.address), answers(two.address)]);
        assert.notDeepEqual(one.address, two.address);
        await c.backend.stop(spec, 0);
        await answers(two.address);
      });

      test("a stopped replica leaves nothing; stopping it twice, also at once, is fine", async () => {
        const spec = fresh();
        await answers(await c.backend.start(spec));
        assert.notDeepEqual(await c.traces(), nothing);
        await Promise.all([c.backend.stop(spec, 100), c.backend.stop(spec, 100)]);
        await c.backend.stop(spec, 100);
        assert.deepEqual(await c.traces(), nothing);
        assert.equal(await find(spec), undefined);
      });

      test("whoever needs its place ends a stop's grace", async () => {
        const spec = fresh();
        await answers(await c.backend.start(spec));
        const hurry = new AbortController();
        const stopped = c.backend.stop(spec, 600_000, hurry.signal);
        hurry.abort();
        await stopped;
        assert.deepEqual(await c.traces(), nothing);
      });

      test("stopping a replica that never was is fine", async () => {
        await c.backend.stop(fresh(), 0);
      });

      test("a stopped replica can be started again under its old name", async () => {
        const spec = fresh();
        await answers(await c.backend.start(spec));
        await c.backend.stop(spec, 0);
        await using replica = await started(spec);
        await answers(replica.address);
        assert.equal((await find(spec))?.condition, "running");
      });

      test("what is half made can be stopped, and leaves nothing", async () => {
        const spec = fresh();
        await c.halfMake(spec);
        assert.notDeepEqual(await c.traces(), nothing);
        await c.backend.stop(spec, 100);
        assert.deepEqual(await c.traces(), nothing);
        await using replica = await started(spec);
        await answers(replica.address);
      });
    });

    suite("a failing start", () => {
      test("says why, leaves nothing, and does not stand in the way of the next one", async () => {
        const spec = fresh();
        await assert.rejects(c.backend.start({ ...spec, image: pins.broken }), (e) => isAppError(e, "START_FAILED"));
        assert.deepEqual(await c.traces(), nothing);
        await using replica = await started(spec);
        await answers(replica.address);
      });

      test("of an image that is not there says so and leaves nothing", async () => {
        await assert.rejects(c.backend.start(fresh({ image: c.images.absent })), (e) => isAppError(e, "IMAGE_MISSING"));
        assert.deepEqual(await c.traces(), nothing);
      });

      for (const afterMs of [0, 5, 20, 35, 50, 65, 80, 110])
        test(`cancelled after ${afterMs} ms leaves nothing, unless it had succeeded`, async () => {
          const spec = fresh();
          const cancel = new AbortController();
          const reason = new Error("changed my mind");
          const start = c.backend.start(spec, cancel.signal);
          const outcome = start.then(
            () => "started",
            (e) => e,
          );
          if (afterMs > 0) await delay(afterMs);
          cancel.abort(reason);
          const end = await outcome;
          if (end === "started") await c.backend.stop(spec, 0);
          else assert.equal(end, reason);
          assert.deepEqual(await c.traces(), nothing);
        });

      test("cancelled before it began rejects with the reason", async () => {
        const reason = new Error("changed my mind");
        await assert.rejects(c.backend.start(fresh(), AbortSignal.abort(reason)), reason);
        assert.deepEqual(await c.traces(), nothing);
      });
    });

    suite("sleep", () => {
      test("a frozen replica is listed as frozen and answers only when it is thawed", async (t) => {
        if (!c.backend.can.freeze) return t.skip("this backend cannot freeze");
        const spec = fresh();
        await using replica = await started(spec);
        await answers(replica.address);
        await c.backend.freeze(spec);
        assert.equal((await find(spec))?.condition, "frozen");
        assert.deepEqual((await find(spec))?.address, replica.address);
        const asked = get(replica.address, "/").then((text) => ({ text, at: performance.now() }));
        await delay(200); // a living one answers within a few ms
        const thawed = performance.now();
        await c.backend.thaw(spec);
        const { text, at } = await asked;
        assert.equal(text, "hello");
        assert.ok(at > thawed, "it answered in its sleep");
        assert.equal((await find(spec))?.condition, "running");
      });

      test("thawing one that is awake, and freezing one that sleeps, changes nothing", async (t) => {
        if (!c.backend.can.freeze) return t.skip("this backend cannot freeze");
        const spec = fresh();
        await using replica = await started(spec);
        await c.backend.thaw(spec);
        await answers(replica.address);
        await c.backend.freeze(spec);
        await c.backend.freeze(spec);
        assert.equal((await find(spec))?.condition, "frozen");
        await c.backend.thaw(spec);
        await answers(replica.address);
      });

      for (const graceMs of [0, 100])
        test(`a frozen replica is stopped with ${graceMs} ms of grace, and leaves nothing`, async (t) => {
          if (!c.backend.can.freeze) return t.skip("this backend cannot freeze");
          const spec = fresh();
          await answers(await c.backend.start(spec));
          await c.backend.freeze(spec);
          await c.backend.stop(spec, graceMs);
          assert.deepEqual(await c.traces(), nothing);
        });

      test("a replica that is not there can be neither frozen nor thawed", async () => {
        await assert.rejects(c.backend.freeze(fresh()));
        await assert.rejects(c.backend.thaw(fresh()));
      });
    });

    suite("what is told", () => {
      /** Exits that are told, and how often that some may have been missed. */
      function listen() {
        const exits: ReplicaExit[] = [];
        let gaps = 0;
        const watch = c.backend.watch(
          (exit) => void exits.push(exit),
          () => void gaps++,
        );
        return { exits, gaps: () => gaps, [Symbol.dispose]: () => watch[Symbol.dispose]() };
      }
      const of = (exits: readonly ReplicaExit[], r: ReplicaIdentity) =>
        exits.find((e) => e.generation === r.generation);

      test("an exit, with its code; the replica is dead until it is stopped", async () => {
        using watch = listen();
        await until("the watch has begun", () => watch.gaps() > 0);
        const spec = fresh({ image: pins.exits });
        await using _ = await started(spec);
        await until("the exit is told", () => of(watch.exits, spec) !== undefined);
        const { name, namespace, generation, number } = spec;
        assert.deepEqual(of(watch.exits, spec), {
          ...{ name, namespace, generation, number },
          ...{ exitCode: 7, outOfMemory: false },
        });
        await until("it is listed as dead", async () => (await find(spec))?.condition === "dead");
        await c.backend.stop(spec, 100);
        assert.deepEqual(await c.traces(), nothing);
      });

      test("nothing any more to who has stopped listening", async () => {
        using stays = listen();
        const leaves = listen();
        await until("both have begun", () => stays.gaps() > 0 && leaves.gaps() > 0);
        leaves[Symbol.dispose]();
        const spec = fresh({ image: pins.exits });
        await using _ = await started(spec);
        await until("the other one was told", () => of(stays.exits, spec) !== undefined);
        assert.deepEqual(leaves.exits, []);
      });

      test("the last output of a replica, also when it is dead", async () => {
        const spec = fresh({ image: pins.exits });
        await using _ = await started(spec);
        await until("it has ended", async () => (await find(spec))?.condition === "dead");
        assert.match(await c.backend.tail(spec, 1000), /^first words\nlast words$/);
        assert.equal(await c.backend.tail(spec, 12), "last words");
        assert.equal(await c.backend.tail(fresh(), 1000), "");
      });

      test("what a replica uses: memory, and CPU that grows with its work; asleep too, and nothing once it is gone", async () => {
        const statsOf = async (r: ReplicaIdentity) =>
          (await c.backend.stats()).find((s) => s.generation === r.generation && s.number === r.number);
        const spec = fresh();
        const replica = await started(spec);
        await answers(replica.address);
        const { cpuNanoseconds, memoryBytes, ...identity } = (await statsOf(spec))!;
        const { name, namespace, generation, number } = spec;
        assert.deepEqual(identity, { name, namespace, generation, number });
        assert.ok(memoryBytes > 0 && memoryBytes < 2 ** 30, `${memoryBytes} bytes`);
        await until("its CPU time grows", async () => {
          await get(replica.address, "/cgi-bin/info");
          return (await statsOf(spec))!.cpuNanoseconds > cpuNanoseconds;
        });
        if (c.backend.can.freeze) {
          await c.backend.freeze(spec);
          assert.ok((await statsOf(spec))!.cpuNanoseconds > cpuNanoseconds);
        }
        await replica[Symbol.asyncDispose]();
        assert.equal(await statsOf(spec), undefined);
      });

      test("output goes when the function is forgotten, which may be done twice", async () => {
        const spec = fresh({ name: "talker", image: pins.exits });
        await using _ = await started(spec);
        await until("it has ended", async () => (await find(spec))?.condition === "dead");
        await c.backend.stop(spec, 0);
        await c.backend.forget(spec);
        await c.backend.forget(spec);
        assert.equal(await c.backend.tail(spec, 1000), "");
      });
    });

    suite("logs", () => {
      const all = { instance: undefined, since: 0, tail: undefined, follow: false };

      async function read(query: Partial<LogQuery> & { name: string }): Promise<string[]> {
        const lines: string[] = [];
        const whole = { ...all, namespace: c.namespace, ...query };
        for await (const line of c.backend.logs(whole, AbortSignal.timeout(patienceMs))) lines.push(line.text);
        return lines;
      }

      /** Two replicas that have said their words and are gone. */
      async function talkers(name: string): Promise<[ReplicaSpec, ReplicaSpec]> {
        const one = fresh({ name, image: pins.exits });
        const two = { ...fresh({ name, image: pins.exits }), number: 1 };
        for (const spec of [one, two]) {
          await c.backend.start(spec);
          await until("it has ended", async () => (await find(spec))?.condition === "dead");
          await c.backend.stop(spec, 0);
        }
        return [one, two];
      }

      test("of replicas that are gone are there, in the order of time, each line with what it is", async () => {
        const before = Date.now() - 1000; // clocks of files are coarse
        const [one, two] = await talkers("logs-order");
        const lines: LogLine[] = [];
        const query = { ...all, name: "logs-order", namespace: c.namespace };
        for await (const line of c.backend.logs(query, AbortSignal.timeout(patienceMs))) lines.push(line);
        assert.deepEqual(
          lines.map(({ name, namespace, instance, text }) => ({ name, namespace, instance, text })),
          [one, two].flatMap((spec) =>
            ["first words", "last words"].map((text) => ({
              ...{ name: "logs-order", namespace: c.namespace },
              ...{ instance: replicaId(spec), text },
            })),
          ),
        );
        for (const [i, { time }] of lines.entries()) {
          assert.ok(time >= (lines[i - 1]?.time ?? before), `line ${i} has time ${time}`);
          assert.ok(time <= Date.now() + 1000, `line ${i} has time ${time}`);
        }
      });

      test("can be asked for by replica, by number and by time", async () => {
        const [one, two] = await talkers("logs-query");
        const name = "logs-query";
        const [first, last] = ["first words", "last words"];
        assert.deepEqual(await read({ name, instance: replicaId(two) }), [first, last]);
        assert.deepEqual(await read({ name, instance: "other.1.1" }), []);
        assert.deepEqual(await read({ name, tail: 3 }), [last, first, last]);
        assert.deepEqual(await read({ name, tail: 1, instance: replicaId(one) }), [last]);
        assert.deepEqual(await read({ name, tail: 1000 }), [first, last, first, last]);
        assert.deepEqual(await read({ name, since: Date.now() + 60_000 }), []);
        assert.deepEqual(await read({ name: "never-was" }), []);
      });

      test("are followed over replicas and versions until nobody listens", async () => {
        const name = "logs-follow";
        const leave = new AbortController();
        const lines: string[] = [];
        const following = (async () => {
          const query = { ...all, name, namespace: c.namespace, follow: true };
          for await (const line of c.backend.logs(query, leave.signal)) lines.push(`${line.instance} ${line.text}`);
        })();
        const specs = await talkers(name);
        const expected = specs.flatMap((s) => [`${replicaId(s)} first words`, `${replicaId(s)} last words`]);
        await until("all has been told", () => lines.length >= expected.length);
        assert.deepEqual(lines, expected);
        leave.abort();
        await following;
      });

      test("go when the function is forgotten, but not that it was", async () => {
        await talkers("logs-forget");
        const id = { name: "logs-forget", namespace: c.namespace };
        assert.equal(await c.backend.remembers(id), true);
        await c.backend.forget(id);
        await c.backend.forget(id);
        assert.deepEqual(await read({ name: id.name }), []);
        assert.equal(await c.backend.remembers(id), true);
        assert.equal(await c.backend.remembers({ ...id, name: "never-was" }), false);
      });
    });

    suite("a secret that has changed", () => {
      test("shows its new bytes in every replica that was given it, and nothing else has changed", async () => {
        c.secrets.set("key", "old").set("other", "old");
        const spec = fresh({ secrets: ["key", "other"] });
        await using one = await started(spec);
        await using two = await started({ ...spec, number: 1 });
        await using without = await started(fresh());
        for (const { address } of [one, two, without]) await answers(address);
        assert.equal(await get(one.address, "/cgi-bin/say?key"), "old");
        c.secrets.set("key", "new").set("other", "new");
        await c.backend.refreshSecret(c.namespace, "key");
        for (const { address } of [one, two]) {
          assert.equal(await get(address, "/cgi-bin/say?key"), "new");
          assert.equal(await get(address, "/cgi-bin/say?other"), "old");
        }
        assert.equal(await get(without.address, "/cgi-bin/say?key"), "");
      });

      test("shows them in a frozen replica when it wakes", async () => {
        c.secrets.set("key", "old");
        const spec = fresh({ secrets: ["key"] });
        await using replica = await started(spec);
        await answers(replica.address);
        await c.backend.freeze(spec);
        c.secrets.set("key", "new");
        await c.backend.refreshSecret(c.namespace, "key");
        await c.backend.thaw(spec);
        assert.equal(await get(replica.address, "/cgi-bin/say?key"), "new");
      });

      test("and that is deleted, or that nobody has, is left alone", async () => {
        c.secrets.set("key", "old");
        await using replica = await started(fresh({ secrets: ["key"] }));
        await answers(replica.address);
        c.secrets.delete("key");
        await c.backend.refreshSecret(c.namespace, "key");
        await c.backend.refreshSecret(c.namespace, "unheard-of");
        assert.equal(await get(replica.address, "/cgi-bin/say?key"), "old");
      });
    });

    suite("a namespace", () => {
      test("is added and removed, each also twice", async () => {
        await c.backend.addNamespace(`${c.namespace}-2`);
        await c.backend.addNamespace(`${c.namespace}-2`);
        await c.backend.removeNamespace(`${c.namespace}-2`);
        await c.backend.removeNamespace(`${c.namespace}-2`);
        await c.backend.addNamespace(`${c.namespace}-2`);
        await c.backend.removeNamespace(`${c.namespace}-2`);
      });
    });

    suite("the images that are here", () => {
      const upload = (text: string) => ({ body: Readable.from([Buffer.from(text)]) });
      const never = new AbortController().signal;
      const needed = () => Object.values(pins).map((image) => ({ namespace: c.namespace, image, by: "a-function" }));

      test("are listed by name, with who uses them; one that is used stays, one that is not goes", async () => {
        c.used.splice(0, Number.POSITIVE_INFINITY, ...needed());
        const list = await c.backend.images.list(c.namespace);
        const names = list.map((info) => info.name);
        assert.deepEqual(names, names.toSorted());
        for (const [image, usedBy] of [[c.images.web, ["a-function"]] as const, [c.images.spare, []] as const]) {
          const info = list.find((i) => i.name === image)!;
          assert.ok(info.size > 0);
          assert.deepEqual([info.namespace, info.usedBy], [c.namespace, usedBy]);
        }
        await assert.rejects(c.backend.images.remove(c.namespace, c.images.web), (e) => {
          assert.ok(isAppError(e, "IMAGE_IN_USE"), String(e));
          assert.match(e.message, /a-function/);
          return true;
        });
        const pruned = await c.backend.images.prune([c.namespace]);
        assert.deepEqual(
          pruned.map((image) => image.name),
          [c.images.spare],
        );
        const left = await c.backend.images.list(c.namespace);
        assert.deepEqual(
          left.map((info) => info.name),
          names.filter((name) => name !== c.images.spare),
        );
        assert.equal(await c.backend.prepare(c.namespace, c.images.web, "IfNotPresent"), pins.web);
      });

      test("one that is not there cannot be removed", async () => {
        const removed = c.backend.images.remove(c.namespace, c.images.absent);
        await assert.rejects(removed, (e) => isAppError(e, "IMAGE_UNKNOWN"));
      });

      test("an archive that is none is refused", async () => {
        const before = await c.backend.images.list(c.namespace);
        const nonsense = c.backend.images.import(c.namespace, upload("nonsense"), never);
        await assert.rejects(nonsense, (e) => isAppError(e, "IMAGE_BAD_ARCHIVE"));
        assert.deepEqual(await c.backend.images.list(c.namespace), before);
      });
    });

    suite("an image of a base and a layer", () => {
      const never = new AbortController().signal;
      const tarOf = (text: string) =>
        Buffer.concat([
          tarHeader({ name: "www/index.html", size: text.length, mode: 0o644, mtime: 0 }),
          Buffer.from(text),
          tarPadding(text.length),
          tarEnd,
        ]);
      const digestOf = (bytes: Buffer) => `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
      const asked = () => ({ name: "docker.io/library/made:1", base: c.images.web, changes: {} });
      const compose = (layer: string, body?: Buffer) =>
        c.backend.images.compose(
          c.namespace,
          { ...asked(), layer, ...(body && { body: Readable.from([body]), size: body.length }) },
          never,
        );

      test("is made of a layer that is sent, and of one that is here; the same parts are the same image", async () => {
        const before = await c.backend.images.list(c.namespace);
        const [one, two] = [tarOf("one"), tarOf("hello")];
        await assert.rejects(compose(digestOf(one)), (e) => isAppError(e, "IMAGE_LAYER_MISSING"));
        assert.deepEqual(await c.backend.images.list(c.namespace), before);
        const made = await compose(digestOf(one), one);
        assert.deepEqual([made.name, made.namespace, made.usedBy], [asked().name, c.namespace, []]);
        assert.equal((await compose(digestOf(one))).digest, made.digest);
        assert.equal((await compose(digestOf(one), one)).digest, made.digest);
        assert.notEqual((await compose(digestOf(two), two)).digest, made.digest);
        // no registry has it, so none is asked
        const pin = await c.backend.prepare(c.namespace, asked().name, "Always");
        await using replica = await started(fresh({ image: pin }));
        await answers(replica.address);
        await c.backend.images.remove(c.namespace, asked().name);
        await c.backend.release(c.namespace, pin);
      });

      test("is refused when the base is not there, or the layer is none or another", async () => {
        const before = await c.backend.images.list(c.namespace);
        const one = tarOf("three");
        const refused: [AppError["code"], Partial<ImageComposition>][] = [
          ["IMAGE_MISSING", { base: c.images.absent, pull: "Never", body: Readable.from([one]) }],
          ["IMAGE_BAD_LAYER", { body: Readable.from([Buffer.from("nonsense")]) }],
          ["IMAGE_BAD_LAYER", { body: Readable.from([one]), layer: digestOf(tarOf("another")) }],
        ];
        for (const [code, more] of refused)
          await assert.rejects(c.backend.images.compose(c.namespace, { ...asked(), ...more }, never), (e) => {
            assert.ok(isAppError(e, code), String(e));
            return true;
          });
        assert.deepEqual(await c.backend.images.list(c.namespace), before);
      });
    });

    suite("a sweep", () => {
      test("frees what is left of a start, and nothing of who is to be kept", async () => {
        const [kept, left] = [fresh(), fresh()];
        await using replica = await started(kept);
        await answers(replica.address);
        const expected = await c.traces();
        await c.halfMake(left);
        // a container that the list shows is stopped by the caller; the sweep frees what no list shows
        for (const o of await c.backend.list()) if (o.generation === left.generation) await c.backend.stop(o, 0);
        await c.backend.sweep({
          replicas: [kept],
          functions: [kept],
          images: Object.values(pins).map((image) => ({ namespace: c.namespace, image })),
        });
        assert.deepEqual(await c.traces(), expected);
        await answers(replica.address);
        await c.backend.stop(kept, 0);
        assert.deepEqual(await c.traces(), nothing);
      });

      test("releases images that nobody needs, and removes the output of functions that are gone", async () => {
        const spec = fresh({ name: "gone", image: pins.exits });
        await c.backend.start(spec);
        await until("it has ended", async () => (await find(spec))?.condition === "dead");
        await c.backend.stop(spec, 0);
        await c.backend.sweep({ replicas: [], functions: [], images: [{ namespace: c.namespace, image: pins.web }] });
        assert.equal(await c.backend.tail(spec, 1000), "");
        await assert.rejects(c.backend.start(spec), (e) => isAppError(e, "IMAGE_MISSING"));
        await using replica = await started(fresh());
        await answers(replica.address);
      });
    });
  });
}

async function get(address: Address, path: string): Promise<string> {
  const response = await fetch(`http://${address.host}:${address.port}${path}`, {
    headers: { connection: "close" },
    signal: AbortSignal.timeout(patienceMs),
  });
  return (await response.text()).trim();
}

/** A process that runs need not listen yet. */
async function answers(address: Address): Promise<void> {
  await until(`${address.host}:${address.port} says hello`, () =>
    get(address, "/").then(
      (t) => t === "hello",
      () => false,
    ),
  );
}

async function until(what: string, condition: () => boolean | Promise<boolean>): Promise<void> {
  const end = performance.now() + patienceMs;
  while (!(await condition())) {
    if (performance.now() > end) throw new Error(`did not come true within ${patienceMs} ms: ${what}`);
    await delay(5);
  }
}
