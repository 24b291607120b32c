/**
 * napd dies, or a step fails, at every step of every operation: whatever was half done is finished or taken back by
 * itself, nothing is left over, and a function beside it does not notice.
 */
import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { after, before, suite, test } from "node:test";
import { webImage } from "../support/images.ts";
import { type Answer, eventually, openWorld, type World } from "../support/world.ts";

type Operation = "deploy" | "update" | "scale up" | "scale down" | "delete";

/** What a call of the function must answer in the end, and with how many replicas. */
interface End {
  text: "old\n" | "new\n" | "gone";
  replicas: number;
}

const beforeIt: Record<Operation, End> = {
  deploy: { text: "gone", replicas: 0 },
  update: { text: "old\n", replicas: 1 },
  "scale up": { text: "old\n", replicas: 1 },
  "scale down": { text: "old\n", replicas: 2 },
  delete: { text: "old\n", replicas: 1 },
};
const afterIt: Record<Operation, End> = {
  deploy: { text: "old\n", replicas: 1 },
  update: { text: "new\n", replicas: 1 },
  "scale up": { text: "old\n", replicas: 2 },
  "scale down": { text: "old\n", replicas: 1 },
  delete: { text: "gone", replicas: 0 },
};

/**
 * Points where napd dies, each in one of the operations that pass it (they share the code): those before the write lead
 * back, all others on.
 */
const deaths: Record<Operation, string[]> = {
  deploy: [
    "deploy.prepared",
    "store.insert",
    "rollout.applied",
    "start.netns",
    "cni.before-store",
    "start.snapshot",
    "start.files",
  ],
  update: [
    "store.update",
    "start.container",
    "start.started",
    "rollout.ready",
    "rollout.switched",
    "store.settle",
    "rollout.settled",
    "remove.task",
  ],
  "scale up": ["store.scale", "start.lease", "start.task"],
  "scale down": ["rollout.drained", "remove.network"],
  delete: ["store.delete", "rollout.leaving", "remove.netns", "remove.container", "remove.snapshot", "rollout.gone"],
};

/** Points where a step fails, and whether the caller is told. */
const failures: [Operation, point: string, isTold: boolean][] = [
  ["deploy", "store.insert", true],
  ["deploy", "start.netns", true],
  ["deploy", "start.lease", true],
  ["deploy", "start.files", true],
  ["deploy", "start.task", true],
  ["update", "store.update", true],
  ["update", "cni.before-store", true],
  ["update", "start.container", true],
  ["update", "store.settle", false],
  ["update", "remove.task", false],
  ["scale up", "start.snapshot", false],
  ["scale up", "start.started", false],
  ["scale down", "store.scale", true],
  ["scale down", "remove.network", false],
  ["delete", "store.delete", true],
  ["delete", "remove.netns", false],
  ["delete", "remove.container", false],
  ["delete", "remove.snapshot", false],
];

suite("failpoints", () => {
  const up = new AsyncDisposableStack();
  const settings = { "images.pull_policy": "Never", "functions.grace": "50ms" };
  let world: World;
  let points: string;
  /** What there is with the bystander alone. */
  let calm: string[];
  let bystander: string[];

  before(async () => {
    world = up.use(await openWorld());
    points = `${world.dir}/failpoints`;
    await arm("");
    await start();
    for (const text of ["old", "new"])
      await world.import(await webImage(`${world.dir}/${text}.tar`, `docker.io/library/${text}:1`, `${text}\n`));
    await ok(world.api("POST", "/system/functions", { service: "bystander", image: "old:1" }));
    // keeps the second image prepared: whether it is released again is another matter
    await ok(world.api("POST", "/system/functions", { service: "other", image: "new:1" }));
    calm = await world.traces();
    bystander = await tasks("bystander");
  });
  after(() => up.disposeAsync());

  const arm = (text: string) => writeFile(points, text);
  const start = () => world.start(settings, { NAPD_FAILPOINTS: `@${points}` });

  async function ok(answer: Promise<Answer>): Promise<void> {
    const { status, text } = await answer;
    assert.equal(status, 202, text);
  }

  /** `ID PID` of running tasks of a function. */
  async function tasks(name: string): Promise<string[]> {
    const lines = (await world.ctr("tasks", "list")).split("\n").filter((line) => line.startsWith(`${name}.`));
    return lines.filter((line) => line.includes("RUNNING")).map((line) => line.split(/\s+/).slice(0, 2).join(" "));
  }

  const run: Record<Operation, () => Promise<Answer>> = {
    deploy: () => world.api("POST", "/system/functions", { service: "cell", image: "old:1" }),
    update: () => world.api("PUT", "/system/functions", { service: "cell", image: "new:1" }),
    "scale up": () => scale(2),
    "scale down": () => scale(1),
    delete: () => world.api("DELETE", "/system/functions", { functionName: "cell" }),
  };

  const scale = (replicas: number) =>
    world.api("POST", "/system/scale-function/cell", { serviceName: "cell", replicas });

  async function prepare(operation: Operation): Promise<void> {
    if (operation === "deploy") return;
    await ok(run.deploy());
    if (operation === "scale down") await ok(scale(2));
    await reaches(beforeIt[operation]);
  }

  /** The function answers as it must, by the right number of replicas, and nothing else of it is there. */
  async function reaches(end: End): Promise<void> {
    await eventually(
      () => world.call("/function/cell"),
      ({ status, text }) => (end.text === "gone" ? status === 404 : status === 200 && text === end.text),
    );
    const containers = async () => (await world.ctr("containers", "list", "--quiet")).match(/^cell\./gm)?.length ?? 0;
    await eventually(
      async () => Promise.all([containers(), tasks("cell").then((found) => found.length)]),
      (found) => found.every((n) => n === end.replicas),
    );
  }

  /** Nothing is left, and the function beside it runs on in the process that it had. */
  async function leavesNothing(end: End): Promise<void> {
    if (end.text !== "gone") await ok(run.delete());
    await eventually(
      () => world.traces(),
      (found) => JSON.stringify(found) === JSON.stringify(calm),
    );
    assert.deepEqual(await tasks("bystander"), bystander);
    assert.equal((await world.call("/function/bystander")).text, "old\n");
  }

  for (const [operation, names] of Object.entries(deaths) as [Operation, string[]][])
    for (const name of names)
      test(`napd dies in a ${operation} at ${name}`, async () => {
        await prepare(operation);
        await arm(`${name}=exit`);
        await run[operation]().catch(() => {}); // cut off, unless the point comes after the answer
        await world.napd().exited;
        await arm("");
        await start();
        const unwritten = /^(store\.(insert|update|scale|delete)|deploy\.prepared)$/.test(name);
        const end = (unwritten ? beforeIt : afterIt)[operation];
        await reaches(end);
        await leavesNothing(end);
      });

  for (const [operation, name, isTold] of failures)
    test(`a step of a ${operation} fails at ${name}`, async () => {
      await prepare(operation);
      await arm(`${name}=error`);
      const answer = await run[operation]();
      if (isTold) {
        assert.equal(answer.status, 500, answer.text);
        assert.match(answer.text, new RegExp(`failpoint ${name}`));
      } else assert.equal(answer.status, 202, answer.text);
      // a new function that failed is tried again; what failed to be written, or to be updated, stays as it was
      const back = name.startsWith("store.") ? isTold : operation === "update" && isTold;
      const end = (back ? beforeIt : afterIt)[operation];
      await reaches(end);
      await arm("");
      await leavesNothing(end);
    });
});
