/** What napd asks of the kernel's control groups, on a machine with the unified tree. */
import assert from "node:assert/strict";
import { greeting, images } from "./discs.ts";
import { get, type Subject, until } from "./subject.ts";

/** Names of files of a function's group, and what is in them, a line each. */
async function group({ machine }: Subject, name: string, files: readonly string[]): Promise<string[]> {
  const script = `cd "$(find /sys/fs/cgroup -type d -name '${name}.*')"; for f in ${files.join(" ")}; do echo $(cat $f); done`;
  return (await machine.sh(script)).trimEnd().split("\n");
}

export async function limits(subject: Subject): Promise<string> {
  const files = ["memory.max", "cpu.max", "pids.max"];
  const [memory, cpu, pids] = await group(subject, "hello", files);
  assert.equal(memory, String(64 * 2 ** 20));
  assert.equal(Number(cpu!.split(" ")[0]) / Number(cpu!.split(" ")[1]), 0.5);
  assert.ok(Number(pids) > 0, pids);
  return `memory.max ${memory}, cpu.max ${cpu}, pids.max ${pids}`;
}

/** Frozen after its idle time, and awake with the next call. */
export async function sleepAndWake(subject: Subject): Promise<string> {
  const state = () => group(subject, "hello", ["cgroup.freeze", "cgroup.events"]);
  await until(120_000, async () => {
    const [asked, events] = await state();
    assert.deepEqual([asked, /frozen (\d)/.exec(events!)?.[1]], ["1", "1"]);
  });
  assert.equal((await subject.api("GET", "/system/function/hello")).state, "Asleep");
  const timed = async () => {
    const begin = performance.now();
    assert.equal(await get(subject.url("hello")), greeting);
    return Math.round(performance.now() - begin);
  };
  const woken = await timed();
  const awake = await timed();
  const [asked, events] = await state();
  assert.deepEqual([asked, /frozen (\d)/.exec(events!)?.[1]], ["0", "0"]);
  return `cgroup.freeze and cgroup.events say so; a call: ${woken} ms frozen, ${awake} ms awake`;
}

export async function usage(subject: Subject): Promise<string> {
  const load = AbortSignal.timeout(5000);
  while (!load.aborted) await get(subject.url("hello"));
  const { cpu, totalMemoryBytes } = await until(30_000, async () => {
    const { usage } = await subject.api("GET", "/system/function/hello?usage=1");
    assert.ok(usage.cpu > 0 && usage.totalMemoryBytes > 0, JSON.stringify(usage));
    return usage;
  });
  const fetched = `fetch("http://127.0.0.1:8082/metrics").then((r) => r.text()).then(console.log)`;
  const metrics = await subject.machine.sh(`/opt/napd/current/runtime/node -e '${fetched}'`);
  assert.match(metrics, /^gateway_function_invocation_total\{.*hello.*\} [1-9]/m);
  return `usage of hello: ${cpu} thousandths of a core, ${totalMemoryBytes} bytes; metrics count its calls`;
}

export async function outOfMemory(subject: Subject): Promise<string> {
  const annotations = { "napd.pull-policy": "Never" };
  const limits = { memory: "16Mi" };
  // it may have been ready before it died, or not
  await subject
    .api("POST", "/system/functions", { service: "hog", image: images.hog, limits, annotations })
    .catch(() => {});
  const { reason, lastFailure } = await until(120_000, async () => {
    const status = await subject.api("GET", "/system/function/hog");
    assert.match(status.lastFailure?.reason ?? status.reason, /memory limit/, JSON.stringify(status));
    return status;
  });
  await subject.api("DELETE", "/system/functions", { functionName: "hog" });
  return lastFailure?.reason ?? reason;
}

export async function doctor({ machine }: Subject): Promise<string> {
  const { ok, checks } = JSON.parse(await machine.sh("napd doctor --json || true"));
  const said = checks.filter((check: { level: string }) => check.level !== "ok");
  const lines = said.map(({ check, level, message }: Record<string, string>) => `${check}: ${level}, ${message}`);
  assert.ok(ok, lines.join("\n"));
  return [`${checks.length} checks, none failed`, ...lines].join("\n");
}
