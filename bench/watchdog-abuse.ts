import { mkdir } from "node:fs/promises";
import { connect, type Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { type Child, type Exit, startChild } from "../scripts/child.ts";
import { watchdogBinary } from "../scripts/oci-image.ts";
import { freePort } from "../test/support/free-port.ts";
import { tmpDir } from "../test/support/tmp.ts";
import type { Measurement } from "./measure.ts";
import { childrenOf, compileC, memoryOf, openFiles } from "./process.ts";

/** Calls per mode; variable NAPD_BENCH_REQUESTS for fewer. */
const calls = Number(process.env.NAPD_BENCH_REQUESTS || 200_000);
const callers = 16;
/** Nothing of this may go on for longer, ms. */
const patience = 30 * 60_000;
const gigabyte = 2 ** 30;

/** Ways to behave badly, and how many of a thousand calls do so; the others are good. */
const manners = { leave: 20, slow: 2, crash: 20, half: 20, cut: 10 } as const;
type Manner = keyof typeof manners | "good";

const modes = ["classic", "http", "streaming", "serializing"] as const;
type Mode = (typeof modes)[number];

/**
 * Clients that leave, cut their bodies off and send gigabytes, functions that hang, crash and end badly: afterwards
 * the watchdog has no process, descriptor or memory more than after the first tenth of it. Fails when it has.
 */
export async function watchdogAbuse(): Promise<Measurement[]> {
  await using up = new AsyncDisposableStack();
  const { path: dir } = up.use(await tmpDir());
  const programs = { naughty: await compileC(dir, "naughty"), upstream: await compileC(dir, "upstream") };
  const results: Measurement[] = [];
  for (const mode of modes) {
    await using watchdog = await start(mode, `${dir}/${mode}`, programs);
    if (watchdog) results.push(...(await abuse(mode, watchdog)));
  }
  return results;
}

interface Watchdog extends AsyncDisposable {
  readonly child: Child;
  readonly port: number;
}

/** Null for a mode that this watchdog has not. */
async function start(mode: Mode, dir: string, programs: Record<string, string>): Promise<Watchdog | null> {
  await mkdir(dir);
  const [port, upstreamPort] = [await freePort(), await freePort()];
  const own: Record<Mode, Record<string, string>> = {
    classic: { fprocess: programs.naughty! },
    serializing: { fprocess: programs.naughty!, mode },
    streaming: { fprocess: programs.naughty!, mode },
    http: {
      fprocess: `${programs.upstream} ${upstreamPort}`,
      mode,
      upstream_url: `http://127.0.0.1:${upstreamPort}`,
    },
  };
  const env = { PATH: process.env.PATH, TMPDIR: dir, port: String(port), exec_timeout: "2s", ...own[mode] };
  const child = await startChild(watchdogBinary(), [], { logFile: "/dev/null", env });
  let exit: Exit | undefined;
  void child.exited.then((e) => {
    exit = e;
  });
  while (!exit && (await call(port, "good", 1)) !== 200) await delay(20);
  return exit ? null : { child, port, [Symbol.asyncDispose]: () => child[Symbol.asyncDispose]() };
}

interface State {
  readonly files: number;
  readonly children: number;
  readonly zombies: number;
  readonly dirtyKb: number;
}

async function abuse(mode: Mode, { child, port }: Watchdog): Promise<Measurement[]> {
  const begin = performance.now();
  const answers: Record<string, number> = {};
  await storm(port, Math.ceil(calls / 10), answers);
  const warm = await settled(child.pid);
  await storm(port, Math.floor(calls / 2), answers);
  let peakKb = 0;
  const watching = setInterval(async () => {
    peakKb = Math.max(peakKb, (await memoryOf(child.pid).catch(() => ({ Pss: 0 }))).Pss!);
  }, 50);
  // one that arrives, one that is cut off in the middle
  const big = [await call(port, "good", gigabyte), await call(port, "cut", gigabyte)];
  clearInterval(watching);
  await storm(port, Math.floor((calls * 4) / 10), answers);
  const end = await settled(child.pid);
  const last = await call(port, "good", 10);
  const took = (performance.now() - begin) / 1000;
  console.error(
    `  ${mode}: ${calls} calls in ${took.toFixed(0)} s, answers ${JSON.stringify(answers)}, 1 GiB: ${big.join(", ")}, then ${last}; ` +
      `warm ${JSON.stringify(warm)}, end ${JSON.stringify(end)}`,
  );
  const wrong = [
    ...(end.zombies > 0 ? [`${end.zombies} zombies`] : []),
    ...(end.children > warm.children ? [`${end.children} processes, were ${warm.children}`] : []),
    ...(end.files > warm.files + callers ? [`${end.files} open files, were ${warm.files}`] : []),
    ...(end.dirtyKb > warm.dirtyKb * 1.5 + 32_768 ? [`${end.dirtyKb} kB of memory, were ${warm.dirtyKb}`] : []),
    ...(big[0] !== 200 ? [`1 GiB was answered with ${big[0]}`] : []),
    ...(last !== 200 ? [`a good call at the end was answered with ${last}`] : []),
  ];
  if (wrong.length > 0) throw new Error(`watchdog-abuse, ${mode}: ${wrong.join("; ")}`);
  const line = (what: string, unit: string, value: number, peers: Record<string, number> = {}): Measurement => ({
    name: `watchdog under abuse, ${mode}: ${what}`,
    ...{ unit, value, peers },
  });
  return [
    line("calls/s", "", Math.round(calls / took)),
    line("open files at the end", "", end.files, { "after a tenth": warm.files }),
    line("zombies at the end", "", end.zombies, { "after a tenth": warm.zombies }),
    line("private memory at the end", "kB", end.dirtyKb, { "after a tenth": warm.dirtyKb }),
    line("most memory during 1 GiB", "kB", peakKb),
  ];
}

/** What it has when nothing happens. Waits for calls whose client has left, and for the garbage collector's own timer. */
async function settled(pid: number): Promise<State> {
  await delay(5000);
  const [files, children, memory] = [await openFiles(pid), await childrenOf(pid), await memoryOf(pid)];
  const zombies = children.filter(({ state }) => state === "Z").length;
  return { files, children: children.length, zombies, dirtyKb: memory.Private_Dirty! };
}

async function storm(port: number, count: number, answers: Record<string, number>): Promise<void> {
  const end = performance.now() + patience;
  let left = count;
  const caller = async () => {
    while (left-- > 0) {
      if (performance.now() > end) throw new Error("watchdog-abuse takes too long");
      const manner = mannerOf(left);
      const key = `${manner} ${await call(port, manner, left % 97 === 0 ? 300_000 : left % 2000)}`;
      answers[key] = (answers[key] ?? 0) + 1;
    }
  };
  await Promise.all(Array.from({ length: callers }, caller));
}

/** Spread evenly, and the same every time. */
function mannerOf(n: number): Manner {
  let at = (n * 619) % 1000;
  for (const [manner, share] of Object.entries(manners)) {
    if (at < share) return manner as Manner;
    at -= share;
  }
  return "good";
}

const block = Buffer.alloc(2 ** 20, 120);

/**
 * One call on a connection of its own; resolves with the status, or 0 when there is none. `leave` hangs up while the
 * function hangs, `cut` within its body.
 */
function call(port: number, manner: Manner, length: number): Promise<number> {
  return new Promise((resolve) => {
    const socket = connect({ port, host: "127.0.0.1" });
    let status = 0;
    socket.once("error", () => resolve(status));
    socket.once("close", () => resolve(status));
    socket.on("data", (data) => {
      if (status === 0) status = Number(data.toString("latin1", 9, 12)) || 0;
    });
    socket.once("connect", () => {
      const path = { good: "/", cut: "/", leave: "/slow", slow: "/slow", crash: "/crash", half: "/half" }[manner];
      socket.write(`POST ${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: ${length}\r\n\r\n`);
      send(socket, manner === "cut" ? Math.floor(length / 2) : length, () => {
        if (manner === "cut") socket.destroy();
        if (manner === "leave") setTimeout(() => socket.destroy(), 10);
      });
    });
  });
}

function send(socket: Socket, length: number, done: () => void): void {
  while (length > 0) {
    const piece = block.subarray(0, Math.min(length, block.length));
    length -= piece.length;
    if (!socket.write(piece)) {
      const rest = length;
      socket.once("drain", () => send(socket, rest, done));
      return;
    }
  }
  done();
}
