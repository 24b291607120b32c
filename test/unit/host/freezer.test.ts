/** Freezing on a tree of plain files that looks like the kernel's, v1 and v2, and through containerd. */
import assert from "node:assert/strict";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { suite, test } from "node:test";
import { isAppError } from "../../../src/base/errors.ts";
import { openLog } from "../../../src/base/log.ts";
import { type FreezerGroup, freezerOf } from "../../../src/host/cgroup.ts";
import type { TaskStatus } from "../../../src/host/containerd/tasks.ts";
import { openFreezer } from "../../../src/host/freezer.ts";
import { hurriedClock } from "../../fakes/clock.ts";
import { tmpDir } from "../../support/tmp.ts";

const v1Lines = "12:pids:/napd/fn/web.1.0\n7:freezer:/napd/fn/web.1.0\n0::/user.slice\n";
const v2Lines = "0::/napd/fn/web.1.0\n";

/** A tree with one group in it. `obeys`: its processes stand still as soon as they are told to. */
async function openTree(lines: string, { obeys = true } = {}) {
  const dir = await tmpDir();
  const v2 = lines === v2Lines;
  const group = `${dir.path}/cgroup/${v2 ? "" : "freezer/"}napd/fn/web.1.0`;
  const file = `${group}/${v2 ? "cgroup.freeze" : "freezer.state"}`;
  await mkdir(group, { recursive: true });
  await mkdir(`${dir.path}/proc/7`, { recursive: true });
  await writeFile(`${dir.path}/proc/7/cgroup`, lines);
  await writeFile(file, v2 ? "0\n" : "THAWED\n");
  await writeFile(`${group}/cgroup.events`, "populated 1\nfrozen 0\n");
  const written = () => readFile(file, "utf8");
  const clock = hurriedClock();
  const { sleep } = clock;
  /** The kernel's part in v2: the event follows the wish. */
  clock.sleep = async (ms, signal) => {
    const frozen = obeys && (await written()).trim() === "1" ? 1 : 0;
    await writeFile(`${group}/cgroup.events`, `populated 1\nfrozen ${frozen}\n`);
    await sleep(100 * ms, signal);
  };
  const places = { cgroup: `${dir.path}/cgroup`, proc: `${dir.path}/proc` };
  const find = () => freezerOf(7, clock, places);
  return { group, file, written, find, clock, places, [Symbol.asyncDispose]: () => dir[Symbol.asyncDispose]() };
}

for (const [version, lines] of [
  ["v1", v1Lines],
  ["v2", v2Lines],
] as const)
  suite(`a control group of ${version}`, () => {
    test("is frozen and thawed by a write", async () => {
      await using t = await openTree(lines);
      const group = (await t.find())!;
      assert.equal(await group.isFrozen(), false);
      await group.freeze();
      assert.equal(await group.isFrozen(), true);
      await group.thaw();
      assert.equal(await group.isFrozen(), false);
    });

    test("that is gone says so; one that nobody may write has no freezer", async () => {
      await using t = await openTree(lines);
      await assert.rejects(freezerOf(8, t.clock, t.places), { code: "ENOENT" });
      assert.equal(await freezerOf(7, t.clock, { ...t.places, cgroup: "/nowhere" }), null);
    });
  });

suite("a freeze that is not complete", () => {
  test("after its time is undone, and fails", async () => {
    await using t = await openTree(v2Lines, { obeys: false });
    const freezing = (await t.find())!.freeze();
    await assert.rejects(freezing, (e) => isAppError(e, "HOST_COMMAND") && /stood still/.test(e.message));
    assert.equal(await t.written(), "0");
  });

  test("counts as frozen when napd starts: it would strike later", async () => {
    await using t = await openTree(v1Lines);
    await writeFile(t.file, "FREEZING\n");
    assert.equal(await (await t.find())!.isFrozen(), true);
  });
});

suite("memory of a frozen group", () => {
  test("goes out in pieces, until no more comes", async () => {
    await using t = await openTree(v2Lines);
    const group = (await t.find())!;
    await writeFile(`${t.group}/memory.current`, "100000000\n");
    await writeFile(`${t.group}/memory.reclaim`, "");
    await group.freeze();
    const out = group.pageOut();
    for (const left of ["50000000", "1000", "0"]) {
      await new Promise((resolve) => setTimeout(resolve, 20));
      await writeFile(`${t.group}/memory.current`, left);
    }
    assert.equal(await out, true);
    assert.match(await readFile(`${t.group}/memory.reclaim`, "utf8"), /^1000|^33554432/);
  });

  test("is left alone once it is thawed", async () => {
    await using t = await openTree(v2Lines);
    await writeFile(`${t.group}/memory.current`, "100000000\n");
    await writeFile(`${t.group}/memory.reclaim`, "");
    assert.equal(await (await t.find())!.pageOut(), true);
    assert.equal(await readFile(`${t.group}/memory.reclaim`, "utf8"), "");
  });

  for (const [says, lines] of [
    ["in v1", v1Lines],
    ["on an old kernel", v2Lines],
  ] as const)
    test(`cannot be asked back ${says}`, async () => {
      await using t = await openTree(lines);
      await writeFile(`${t.group}/memory.current`, "100000000\n");
      const group = (await t.find())!;
      await group.freeze();
      assert.equal(await group.pageOut(), false);
    });
});

const name = { namespace: "fn", container: "web.1.0" };

/** A container whose state is `status` for containerd and `frozen` for the kernel; writes down who did what. */
function fakeContainer(by: "cgroup" | "containerd", { writable = true, pageOut = false } = {}) {
  const did: string[] = [];
  let status: TaskStatus = "RUNNING";
  let frozen = false;
  let looks = 0;
  const task = () => ({ id: name.container, pid: 7, status, exit_status: 0, exited_at: null });
  const group: FreezerGroup = {
    freeze: async () => {
      did.push("freeze");
      frozen = true;
    },
    thaw: async () => {
      did.push("thaw");
      frozen = false;
    },
    isFrozen: async () => frozen,
    pageOut: async () => {
      did.push("page out");
      return true;
    },
  };
  const tasks = {
    get: async () => {
      looks++;
      return task();
    },
    pause: async () => {
      did.push("pause");
      status = "PAUSED";
    },
    resume: async () => {
      if (status !== "PAUSED") throw new Error("not paused");
      did.push("resume");
      status = "RUNNING";
    },
  };
  const freezer = openFreezer({
    ...{ tasks, by, pageOut, clock: hurriedClock(), log: openLog("silent") },
    groupOf: async () => (writable ? group : null),
  });
  const setStatus = (now: TaskStatus) => {
    status = now;
  };
  return { freezer, did, task, looks: () => looks, setStatus };
}

suite("the freezer", () => {
  test("asks once where a container is; a thaw is one write", async () => {
    const c = fakeContainer("cgroup");
    for (let i = 0; i < 3; i++) {
      await c.freezer.freeze(name);
      await c.freezer.thaw(name);
    }
    assert.deepEqual([c.looks(), c.did.length], [1, 6]);
    c.freezer.forget(name);
    await c.freezer.freeze(name);
    assert.equal(c.looks(), 2);
  });

  test("asks nobody about a container that it found at the start", async () => {
    const c = fakeContainer("cgroup");
    assert.equal(await c.freezer.isFrozen(name, c.task()), false);
    await c.freezer.thaw(name);
    assert.equal(c.looks(), 0);
  });

  for (const [says, by, writable] of [
    ["by setting", "containerd", true],
    ["where the group cannot be written", "cgroup", false],
  ] as const)
    test(`is containerd ${says}; thawing one that is awake is fine`, async () => {
      const c = fakeContainer(by, { writable });
      await c.freezer.freeze(name);
      assert.equal(await c.freezer.isFrozen(name, c.task()), true);
      await c.freezer.thaw(name);
      await c.freezer.thaw(name);
      assert.deepEqual(
        c.did.filter((d) => d !== "thaw"),
        ["pause", "resume"],
      );
    });

  test("lets containerd thaw what containerd froze, whatever the setting says now", async () => {
    const c = fakeContainer("cgroup");
    c.setStatus("PAUSED");
    assert.equal(await c.freezer.isFrozen(name, c.task()), true);
    await c.freezer.thaw(name);
    await c.freezer.freeze(name);
    assert.deepEqual(c.did, ["resume", "freeze"]);
  });

  test("thaws by the group what the group froze, whatever the setting says now", async () => {
    const c = fakeContainer("containerd");
    await c.freezer.isFrozen(name, c.task());
    await c.freezer.thaw(name);
    await c.freezer.freeze(name);
    assert.deepEqual(c.did, ["thaw", "pause"]);
  });

  test("moves memory out by setting, after the freeze", async () => {
    const c = fakeContainer("cgroup", { pageOut: true });
    await c.freezer.freeze(name);
    await new Promise(setImmediate);
    assert.deepEqual(c.did, ["freeze", "page out"]);
  });

  test("says so when the process is gone", async () => {
    const freezer = openFreezer({
      tasks: { get: async () => undefined, pause: async () => {}, resume: async () => {} },
      ...{ by: "cgroup", pageOut: false, clock: hurriedClock(), log: openLog("silent") },
    });
    await assert.rejects(freezer.thaw(name), (e) => isAppError(e, "FUNCTION_UNAVAILABLE"));
  });
});
