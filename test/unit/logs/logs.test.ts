/** Logs on real files, written to as a shim does: by appending, whether anybody watches or not. */
import assert from "node:assert/strict";
import { appendFile, mkdir, readdir, rm, stat, truncate, writeFile } from "node:fs/promises";
import { suite, test } from "node:test";
import { systemClock } from "../../../src/base/clock.ts";
import { openLog } from "../../../src/base/log.ts";
import type { LogLine, LogQuery, ReplicaIdentity } from "../../../src/functions/backend.ts";
import { HolePuncher } from "../../../src/host/punch.ts";
import { Logs, type LogsOptions } from "../../../src/logs/logs.ts";
import { until } from "../../fakes/platform.ts";
import { type TmpDir, tmpDir } from "../../support/tmp.ts";

const fn = { name: "web", namespace: "fn" };
const replica = (generation = 1, number = 0): ReplicaIdentity => ({ ...fn, generation, number });
const all = { ...fn, instance: undefined, since: 0, tail: undefined, follow: false };

class Bench implements AsyncDisposable {
  readonly dir: string;
  readonly #tmp: TmpDir;
  logs!: Logs;
  readonly puncher = new HolePuncher();
  punch: LogsOptions["punch"] = (file, length) => this.puncher.punch(file, length);

  constructor(tmp: TmpDir) {
    this.#tmp = tmp;
    this.dir = `${tmp.path}/logs`;
  }

  async open(more: Partial<LogsOptions> = {}): Promise<void> {
    this.logs = await Logs.open({
      ...{ dir: this.dir, maxFileBytes: 2 ** 20, maxTotalBytes: 2 ** 24, minFreeBytes: 0 },
      ...{ punch: (file, length) => this.punch(file, length), clock: systemClock, log: openLog("silent"), ...more },
    });
  }

  say(text: string | Buffer, by = replica()): Promise<void> {
    return appendFile(this.logs.fileOf(by), text);
  }

  async read(query: Partial<LogQuery> = {}): Promise<LogLine[]> {
    const lines: LogLine[] = [];
    for await (const line of this.logs.lines({ ...all, ...query }, AbortSignal.timeout(20_000))) lines.push(line);
    return lines;
  }

  async texts(query: Partial<LogQuery> = {}): Promise<string[]> {
    return (await this.read(query)).map((l) => l.text);
  }

  /** Lines as they come, until it is disposed. */
  follow(query: Partial<LogQuery> = {}) {
    const leave = new AbortController();
    const lines: string[] = [];
    const ended = (async () => {
      for await (const line of this.logs.lines({ ...all, follow: true, ...query }, leave.signal)) lines.push(line.text);
    })();
    return {
      lines,
      async [Symbol.asyncDispose]() {
        leave.abort();
        await ended;
      },
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.logs[Symbol.asyncDispose]();
    this.puncher[Symbol.dispose]();
    await this.#tmp[Symbol.asyncDispose]();
  }
}

async function openBench(more: Partial<LogsOptions> = {}): Promise<Bench> {
  const bench = new Bench(await tmpDir());
  await bench.open(more);
  return bench;
}

suite("lines", () => {
  const rows: { says: string; bytes: string | Buffer; lines: string[] }[] = [
    { says: "one a line", bytes: "one\ntwo\n", lines: ["one", "two"] },
    { says: "the last one without an end", bytes: "one\ntwo", lines: ["one", "two"] },
    { says: "empty ones", bytes: "\n\none\n\n", lines: ["", "", "one", ""] },
    { says: "ends of other systems", bytes: "one\r\ntwo\rtwo\r\n\r\n", lines: ["one", "two\rtwo", ""] },
    {
      says: "colours and other controls",
      bytes: "\u001b[1mbold\u001b[0m\u0000\u0007\n",
      lines: ["\u001b[1mbold\u001b[0m\u0000\u0007"],
    },
    {
      says: "what is no UTF-8",
      bytes: Buffer.from([0x61, 0xff, 0xc3, 0x0a, 0xe2, 0x82, 0x0a]),
      lines: ["a\ufffd\ufffd", "\ufffd"],
    },
    { says: "characters of many bytes", bytes: "äöü€😀\n", lines: ["äöü€😀"] },
    { says: "exactly as long as may be", bytes: `${"x".repeat(65_536)}\nend\n`, lines: ["x".repeat(65_536), "end"] },
    { says: "longer than that, in pieces", bytes: `${"x".repeat(65_537)}\n`, lines: ["x".repeat(65_536), "x"] },
    {
      says: "in pieces that cut no character in two",
      bytes: `${"x".repeat(65_534)}😀y\n`,
      lines: ["x".repeat(65_534), "😀y"],
    },
    { says: "none", bytes: "", lines: [] },
  ];
  for (const { says, bytes, lines } of rows)
    test(says, async () => {
      await using bench = await openBench();
      await bench.logs.begin(replica());
      await bench.say(bytes);
      assert.deepEqual(await bench.texts(), lines);
    });

  test("a mebibyte of bytes without a line end comes whole, in pieces", async () => {
    await using bench = await openBench();
    await bench.logs.begin(replica());
    await bench.say(Buffer.alloc(2 ** 20, "€"));
    const texts = await bench.texts();
    assert.ok(texts.every((t) => Buffer.byteLength(t) <= 65_536));
    assert.equal(Buffer.byteLength(texts.join("")), 3 * Math.ceil(2 ** 20 / 3)); // the last character is cut by us
  });

  test("carry the name, and a time from before to after they were written", async () => {
    await using bench = await openBench();
    await bench.logs.begin(replica());
    const before = Date.now() - 20; // the kernel's clock of files is coarse
    await bench.say("one\n");
    const [line] = await bench.read();
    assert.deepEqual({ ...line, time: 0 }, { ...fn, instance: "web.1.0", time: 0, text: "one" });
    assert.ok(line!.time >= before && line!.time < Date.now() + 1, `${before} ${line!.time}`);
  });
});

suite("times", () => {
  /** Waits until the clock of files has gone on. */
  const tick = () => new Promise((resolve) => setTimeout(resolve, 30));

  test("of lines that came one after the other are told apart, and since finds them", async () => {
    await using bench = await openBench();
    await bench.logs.begin(replica());
    for (const text of ["one", "two", "three"]) {
      await bench.say(`${text}\n`);
      await bench.read();
      await tick();
    }
    const lines = await bench.read();
    assert.ok(lines[0]!.time < lines[1]!.time && lines[1]!.time < lines[2]!.time);
    assert.deepEqual(await bench.texts({ since: lines[1]!.time }), ["two", "three"]);
    assert.deepEqual(await bench.texts({ since: lines[1]!.time + 1 }), ["three"]);
    assert.deepEqual(await bench.texts({ since: lines[2]!.time + 1 }), []);
  });

  test("stay the same over a restart; what was said meanwhile has the time of the last write", async () => {
    await using bench = await openBench();
    await bench.logs.begin(replica());
    await bench.say("one\n");
    const [one] = await bench.read();
    await bench.logs[Symbol.asyncDispose]();
    await tick();
    await bench.say("two\nthree\n");
    await tick();
    const { mtimeMs } = await stat(bench.logs.fileOf(replica()));
    await bench.open();
    await bench.logs.sweep([replica()], [fn]);
    await bench.say("four\n");
    const lines = await bench.read();
    assert.deepEqual(
      lines.map((l) => l.text),
      ["one", "two", "three", "four"],
    );
    assert.deepEqual(lines[0], one);
    assert.deepEqual([lines[1]!.time, lines[2]!.time], [mtimeMs, mtimeMs]);
    assert.ok(lines[3]!.time > mtimeMs);
  });

  test("a line that takes long to be written has the time of its end", async () => {
    await using bench = await openBench();
    await bench.logs.begin(replica());
    await bench.say("begun, ");
    await bench.read();
    await tick();
    const between = Date.now() - 10;
    await bench.say("done\n");
    const [line] = await bench.read({ since: between });
    assert.equal(line?.text, "begun, done");
  });

  for (const [says, damage] of [
    ["lost", (file: string) => rm(file)],
    ["cut off", (file: string) => truncate(file, 23)],
    ["garbled", (file: string) => writeFile(file, "garbage garbage garbage garbage ")],
  ] as const)
    test(`marks that are ${says} cost times and no lines`, async () => {
      await using bench = await openBench();
      await bench.logs.begin(replica());
      await bench.say("one\ntwo\n");
      await bench.logs.end(replica());
      await bench.logs[Symbol.asyncDispose]();
      await damage(bench.logs.fileOf(replica()).replace(".log", ".times"));
      await bench.open();
      const lines = await bench.read();
      assert.deepEqual(
        lines.map((l) => l.text),
        ["one", "two"],
      );
      const { mtimeMs } = await stat(bench.logs.fileOf(replica()));
      assert.deepEqual(
        lines.map((l) => l.time),
        [mtimeMs, mtimeMs],
      );
    });
});

suite("several replicas", () => {
  /** Three of them that talk in turn: 0:a 1:b 2:c 0:d 1:e 2:f. */
  async function talking(): Promise<Bench> {
    const bench = await openBench();
    for (const number of [0, 1, 2]) await bench.logs.begin(replica(1, number));
    for (const [i, text] of [..."abcdef"].entries()) {
      await bench.say(`${text}\n`, replica(1, i % 3));
      await bench.read();
      await new Promise((resolve) => setTimeout(resolve, 15));
    }
    return bench;
  }

  test("are told in the order of time", async () => {
    await using bench = await talking();
    assert.deepEqual(await bench.texts(), [..."abcdef"]);
  });

  for (const tail of [1, 2, 4, 6, 100])
    test(`the last ${tail} of all of them`, async () => {
      await using bench = await talking();
      assert.deepEqual(await bench.texts({ tail }), [..."abcdef"].slice(-tail));
    });

  test("one of them", async () => {
    await using bench = await talking();
    assert.deepEqual(await bench.texts({ instance: "web.1.1" }), ["b", "e"]);
    assert.deepEqual(await bench.texts({ instance: "web.1.1", tail: 1 }), ["e"]);
    assert.deepEqual(await bench.texts({ instance: "web.1" }), []);
  });
});

suite("following", () => {
  test("tells what is there, then what comes, each line once it is whole", async () => {
    await using bench = await openBench();
    await bench.logs.begin(replica());
    await bench.say("old\nhalf");
    await using following = bench.follow();
    await until("what is there", () => following.lines.length === 1);
    await bench.say(" and half\nnew\n");
    await until("what comes", () => following.lines.length === 3);
    assert.deepEqual(following.lines, ["old", "half and half", "new"]);
    await bench.say("last words");
    await bench.logs.end(replica());
    await until("the rest of one that has ended", () => following.lines.length === 4);
    assert.deepEqual(following.lines.at(-1), "last words");
  });

  test("begins with as many lines as asked for, and goes on with all", async () => {
    await using bench = await openBench();
    await bench.logs.begin(replica());
    await bench.say("one\ntwo\nthree\nunfinished");
    await using following = bench.follow({ tail: 2 });
    await until("the tail", () => following.lines.length === 2);
    await bench.say("\nfour\nfive\nsix\n");
    await until("the rest", () => following.lines.length === 6);
    assert.deepEqual(following.lines, ["two", "three", "unfinished", "four", "five", "six"]);
  });

  test("goes over to new versions and to a function that is deployed only later", async () => {
    await using bench = await openBench();
    await using following = bench.follow();
    await using other = bench.follow({ instance: "web.2.0" });
    for (const generation of [1, 2]) {
      await bench.logs.begin(replica(generation));
      await bench.say(`version ${generation}\n`, replica(generation));
      await until("it is told", () => following.lines.length === generation);
    }
    await bench.logs.forget(fn);
    await bench.logs.begin(replica(3));
    await bench.say("version 3\n", replica(3));
    await until("it is told", () => following.lines.length === 3);
    assert.deepEqual(following.lines, ["version 1", "version 2", "version 3"]);
    assert.deepEqual(other.lines, ["version 2"]);
  });

  test("ends with the logs, when napd stops", async () => {
    await using bench = await openBench();
    await bench.logs.begin(replica());
    const following = bench.follow();
    await bench.say("one\n");
    await until("it is told", () => following.lines.length === 1);
    await bench.logs[Symbol.asyncDispose]();
    await following[Symbol.asyncDispose]();
  });

  test("sees every line of a writer in a hurry, in order", async () => {
    await using bench = await openBench({ maxFileBytes: 2 ** 24 });
    await bench.logs.begin(replica());
    await using following = bench.follow();
    const count = 20_000;
    for (let i = 0; i < count; i += 100)
      await bench.say(Array.from({ length: 100 }, (_, j) => `line ${i + j}\n`).join(""));
    await until("all are told", () => following.lines.length >= count);
    assert.deepEqual(
      following.lines,
      Array.from({ length: count }, (_, i) => `line ${i}`),
    );
  });

  test("a file that somebody emptied goes on from its beginning", async () => {
    await using bench = await openBench();
    await bench.logs.begin(replica());
    await bench.say("a long line of before\n");
    await using following = bench.follow();
    await until("it is told", () => following.lines.length === 1);
    await truncate(bench.logs.fileOf(replica()), 0);
    await bench.say("new\n");
    await until("it is told", () => following.lines.length === 2);
    assert.deepEqual(following.lines[1], "new");
    assert.deepEqual(await bench.texts(), ["new"]);
  });
});

suite("limits", () => {
  const kib = 1024;
  const held = async (bench: Bench, by = replica()) => (await stat(bench.logs.fileOf(by))).blocks * 512;

  test("a log keeps its latest lines, and takes no more room than it may", async () => {
    await using bench = await openBench({ maxFileBytes: 64 * kib });
    await bench.logs.begin(replica());
    const count = 4000;
    for (let i = 0; i < count; i += 100)
      await bench.say(Array.from({ length: 100 }, (_, j) => `line ${i + j} ${"x".repeat(90)}\n`).join(""));
    await until("it is cut", async () => (await held(bench)) <= 64 * kib);
    const numbers = (await bench.texts()).map((t) => Number(/^line (\d+) x{90}$/.exec(t)?.[1]));
    assert.ok(numbers.length > 300, `${numbers.length} lines left`);
    assert.deepEqual(
      numbers,
      Array.from({ length: numbers.length }, (_, i) => count - numbers.length + i),
    );
    const [last] = await bench.read({ tail: 1 });
    assert.match(last!.text, /^line 3999 /);
    // and so it is after a restart
    const lines = await bench.read();
    await bench.logs[Symbol.asyncDispose]();
    await bench.open({ maxFileBytes: 64 * kib });
    assert.deepEqual(await bench.read(), lines);
  });

  test("a flood without a line end takes no more room either, and its end can be read", async () => {
    await using bench = await openBench({ maxFileBytes: 256 * kib });
    await bench.logs.begin(replica());
    for (let i = 0; i < 64; i++) await bench.say(Buffer.alloc(128 * kib, "x"));
    await until("it is cut", async () => (await held(bench)) <= 256 * kib);
    const text = (await bench.texts()).join("");
    assert.match(text, /^x+$/);
    assert.ok(text.length >= 100 * kib, `${text.length}`);
  });

  test("a follower who is overtaken goes on with what is left, and takes no hole for text", async () => {
    await using bench = await openBench({ maxFileBytes: 64 * kib });
    await bench.logs.begin(replica());
    const leave = new AbortController();
    const lines = bench.logs.lines({ ...all, follow: true }, leave.signal)[Symbol.asyncIterator]();
    await bench.say("first\n");
    assert.equal((await lines.next()).value?.text, "first");
    for (let i = 0; i < 2000; i++) await bench.say(`line ${i} ${"x".repeat(1000)}\n`);
    await until("it is cut", async () => (await held(bench)) <= 64 * kib);
    await bench.say("end\n");
    const texts: string[] = [];
    while (texts.at(-1) !== "end") texts.push((await lines.next()).value!.text);
    assert.ok(texts.length < 2000, "nothing was dropped");
    for (const text of texts.slice(0, -1)) assert.match(text, /^line \d+ x{1000}$/);
    leave.abort();
    await lines.next();
  });

  test("where no holes can be made a log is emptied at twice its size, and goes on", async () => {
    await using bench = await openBench({ maxFileBytes: 64 * kib });
    bench.punch = async () => Promise.reject(new Error("not supported"));
    await bench.logs.begin(replica());
    await using following = bench.follow();
    for (let i = 0; i < 600; i++) {
      await bench.say(`line ${i} ${"x".repeat(1000)}\n`);
      if (i % 20 === 0) await bench.read({ tail: 1 });
    }
    await until("it is emptied", async () => (await held(bench)) <= 130 * kib);
    // said more than once: what is written at the very moment of an emptying goes with it
    await until("the end is told", async () => {
      await bench.say("end\n");
      return following.lines.at(-1) === "end";
    });
    assert.equal((await bench.texts()).at(-1), "end");
  });

  test("all together take no more than they may: what has ended goes first", async () => {
    await using bench = await openBench({ maxFileBytes: 256 * kib, maxTotalBytes: 400 * kib });
    for (const number of [0, 1, 2]) {
      await bench.logs.begin(replica(1, number));
      await bench.say(`${"x".repeat(1023)}\n`.repeat(190), replica(1, number));
      if (number === 0) await bench.logs.end(replica(1, number));
    }
    const total = async () => {
      const files = await readdir(`${bench.dir}/fn/web`);
      const blocks = (file: string) =>
        stat(`${bench.dir}/fn/web/${file}`).then(
          (found) => found.blocks,
          () => 0,
        );
      const sizes = await Promise.all(files.map(async (f) => (await blocks(f)) * 512)); // one may go meanwhile
      return sizes.reduce((sum, size) => sum + size, 0);
    };
    await until("they are within their limit", async () => (await total()) <= 420 * kib);
    assert.deepEqual(await bench.texts({ instance: "web.1.0" }), []);
    for (const instance of ["web.1.1", "web.1.2"]) assert.ok((await bench.texts({ instance })).length > 50);
  });

  test("on a disk that is nearly full what has ended goes, and the others are cut", async () => {
    await using bench = await openBench();
    await bench.logs.begin(replica(1, 0));
    await bench.logs.begin(replica(1, 1));
    for (const number of [0, 1]) await bench.say(`${"x".repeat(1023)}\n`.repeat(900), replica(1, number));
    await bench.logs.end(replica(1, 0));
    await bench.logs[Symbol.asyncDispose]();
    await bench.open({ minFreeBytes: Number.MAX_SAFE_INTEGER });
    await bench.logs.sweep([replica(1, 1)], [fn]);
    await until("there is room", async () => (await held(bench, replica(1, 1))) <= 256 * kib);
    assert.deepEqual(await bench.texts({ instance: "web.1.0" }), []);
    assert.ok((await bench.texts({ instance: "web.1.1" })).length > 200);
  });

  test("logs of the last three versions are kept", async () => {
    await using bench = await openBench();
    for (const generation of [1, 2, 3, 4, 5]) {
      await bench.logs.begin(replica(generation));
      await bench.say(`version ${generation}\n`, replica(generation));
      if (generation < 5) await bench.logs.end(replica(generation));
    }
    await bench.logs.end(replica(4));
    assert.deepEqual(await bench.texts(), ["version 2", "version 3", "version 4", "version 5"]);
    await bench.logs.end(replica(5));
    assert.deepEqual(await bench.texts(), ["version 3", "version 4", "version 5"]);
  });
});

suite("what is left", () => {
  test("files and directories that only root may read", async () => {
    await using bench = await openBench();
    await bench.logs.begin(replica());
    await bench.say("one\n");
    await bench.logs.end(replica());
    const mode = async (path: string) => ((await stat(`${bench.dir}${path}`)).mode & 0o777).toString(8);
    assert.deepEqual(await Promise.all(["", "/fn", "/fn/web", "/fn/web/1.0.log", "/fn/web/1.0.times"].map(mode)), [
      "700",
      "700",
      "700",
      "600",
      "600",
    ]);
  });

  test("of a forgotten function: an empty directory, by which it is remembered", async () => {
    await using bench = await openBench();
    assert.equal(bench.logs.remembers(fn), false);
    await bench.texts();
    assert.equal(bench.logs.remembers(fn), false);
    await bench.logs.begin(replica());
    await bench.say("one\n");
    await bench.logs.forget(fn);
    await bench.logs.forget(fn);
    assert.deepEqual(await readdir(`${bench.dir}/fn/web`), []);
    await bench.logs[Symbol.asyncDispose]();
    await bench.open();
    assert.equal(bench.logs.remembers(fn), true);
    assert.deepEqual(await bench.texts(), []);
  });

  test("a sweep takes over what runs, and removes what belongs to no function, whatever it is", async () => {
    await using bench = await openBench();
    const gone = { ...replica(), name: "gone" };
    for (const one of [replica(1), replica(2), gone]) {
      await bench.logs.begin(one);
      await bench.say("one\n", one);
    }
    await bench.logs[Symbol.asyncDispose]();
    await mkdir(`${bench.dir}/lost+found`);
    await writeFile(`${bench.dir}/fn/gone/other`, "");
    await writeFile(`${bench.dir}/note`, "");
    await bench.open();
    await bench.logs.sweep([replica(2)], [fn]);
    assert.deepEqual(await readdir(`${bench.dir}/fn/gone`), []);
    await using following = bench.follow();
    await bench.say("two\n", replica(2));
    await until("it is watched again", () => following.lines.length === 3);
    assert.deepEqual(await bench.texts(), ["one", "one", "two"]);
  });

  test("a thousand directories of deleted functions at most", async () => {
    await using bench = await openBench();
    await bench.logs[Symbol.asyncDispose]();
    for (let i = 0; i < 1005; i++) await mkdir(`${bench.dir}/fn/f${i}`, { recursive: true, mode: 0o700 });
    await bench.open();
    await bench.logs.sweep([], []);
    assert.equal((await readdir(`${bench.dir}/fn`)).length, 1000);
  });
});

suite("silence", () => {
  test("costs no look at any file, and the first word is still seen", async () => {
    await using bench = await openBench();
    const sleeps: number[] = [];
    const clock = {
      ...systemClock,
      sleep: (ms: number, signal?: AbortSignal) => {
        sleeps.push(ms);
        return systemClock.sleep(ms, signal);
      },
    };
    await bench.logs[Symbol.asyncDispose]();
    await bench.open({ clock });
    const ids = Array.from({ length: 500 }, (_, i) => ({ ...replica(), name: `f${i}` }));
    for (const id of ids) await bench.logs.begin(id);
    const idle = sleeps.length;
    await using following = bench.follow({ name: "f321" });
    await bench.say("one\n", ids[321]);
    await until("it is told", () => following.lines.length === 1);
    // only the one that talks is looked at by the clock; a file that the kernel watches needs none
    assert.ok(sleeps.length - idle <= 5, `${sleeps.length - idle} timers`);
    assert.equal(idle, 1); // the guard of the free space
  });
});
