import { mkdir, open, readFile, writeFile } from "node:fs/promises";
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
/** What a giant may need on a busy machine, and nothing that hangs gets more of; s. */
const limit = 30;
/** Nothing of this may go on for longer, ms. */
const patience = 60 * 60_000;
const gigabyte = 2 ** 30;

/** Ways to behave badly, and how many of a thousand calls do so; the others are good. */
const manners = { leave: 20, slow: 2, crash: 20, half: 20, cut: 10 } as const;
type Manner = keyof typeof manners | "good";

/** One of the watchdog's modes, and how to be bad to it. */
interface Mode {
  readonly env: Record<string, string>;
  readonly paths: Record<Manner, string>;
  /** Calls with bodies of 1 GiB; each is made twice, and the second time given up in the middle. */
  readonly giants: readonly Call[];
}

interface Call {
  readonly path: string;
  /** Bytes of the request's body. */
  readonly length: number;
  /** `leave` hangs up after a moment, `cut` within its body or the answer's, `slow` waits, and does not read a long answer. */
  readonly manner: Manner;
  /** Bytes of the answer's body, when they are to be counted. */
  readonly answer?: number;
}

type Setup = (dir: string, programs: { naughty: string; upstream: string }) => Promise<Mode>;

/** Functions that hang, crash, and end badly. */
const bad = { good: "/", cut: "/", leave: "/slow", slow: "/slow", crash: "/crash", half: "/half" } as const;
const upload: Call = { path: "/", length: gigabyte, manner: "good" };
const download: Call = { path: "/giant", length: 0, manner: "good", answer: gigabyte };

const modes: Record<string, Setup> = {
  classic: async (_, { naughty }) => ({ env: { fprocess: naughty }, paths: bad, giants: [upload] }),
  serializing: async (_, { naughty }) => ({
    env: { fprocess: naughty, mode: "serializing" },
    ...{ paths: bad, giants: [upload] },
  }),
  streaming: async (_, { naughty }) => ({
    env: { fprocess: naughty, mode: "streaming" },
    ...{ paths: bad, giants: [upload, download] },
  }),
  http: async (_, { upstream }) => {
    const port = await freePort();
    const env = { fprocess: `${upstream} ${port}`, mode: "http", upstream_url: `http://127.0.0.1:${port}` };
    return { env, paths: bad, giants: [upload, download] };
  },
  // No function is there to misbehave: its clients are bad alone, with a file that does not fit into any buffer.
  static: async (dir) => {
    await writeFile(`${dir}/small`, Buffer.alloc(2000, 97));
    await using file = await open(`${dir}/giant`, "w");
    await file.truncate(gigabyte);
    const paths = { good: "/small", cut: "/small", leave: "/giant", slow: "/giant", crash: "/absent", half: "/giant" };
    return { env: { mode: "static", static_path: dir, write_timeout: `${limit}s` }, paths, giants: [download] };
  },
};

/**
 * Clients that leave, cut their bodies off and send gigabytes, functions that hang, crash and end badly: afterwards
 * the watchdog has no process, descriptor or memory more than after the first tenth of it. Fails when it has.
 * Variable NAPD_BENCH_MODES: only these, with commas.
 */
export async function watchdogAbuse(): Promise<Measurement[]> {
  await using up = new AsyncDisposableStack();
  const { path: dir } = up.use(await tmpDir());
  const programs = { naughty: await compileC(dir, "naughty"), upstream: await compileC(dir, "upstream") };
  const results: Measurement[] = [];
  const chosen = process.env.NAPD_BENCH_MODES?.split(",") ?? Object.keys(modes);
  for (const name of chosen) {
    const folder = `${dir}/${name}`;
    await mkdir(folder);
    const mode = await modes[name]!(folder, programs);
    const logFile = `${folder}/log`;
    try {
      await using watchdog = await start(mode, folder, logFile);
      results.push(...(await abuse(name, mode, watchdog)));
    } catch (e) {
      console.error(`  ${name}: the last of its log: ${(await readFile(logFile, "utf8")).slice(-2000)}`);
      throw e;
    }
  }
  return results;
}

interface Watchdog extends AsyncDisposable {
  readonly child: Child;
  readonly port: number;
}

async function start({ env, paths }: Mode, dir: string, logFile: string): Promise<Watchdog> {
  const port = await freePort();
  const common = {
    PATH: process.env.PATH,
    TMPDIR: dir,
    port: String(port),
    metrics_port: "0",
    exec_timeout: `${limit}s`,
  };
  const child = await startChild(watchdogBinary(), [], { logFile, env: { ...common, ...env } });
  let exit: Exit | undefined;
  void child.exited.then((e) => {
    exit = e;
  });
  while ((await call(port, { path: paths.good, length: 1, manner: "good" })) !== 200) {
    if (exit) throw new Error(`watchdog-abuse: the watchdog ends with ${JSON.stringify(exit)}`);
    await delay(20);
  }
  return { child, port, [Symbol.asyncDispose]: () => child[Symbol.asyncDispose]() };
}

interface State {
  readonly files: number;
  readonly children: number;
  readonly zombies: number;
  readonly dirtyKb: number;
}

async function abuse(name: string, mode: Mode, { child, port }: Watchdog): Promise<Measurement[]> {
  const begin = performance.now();
  const answers: Record<string, number> = {};
  await storm(port, mode.paths, Math.ceil(calls / 10), answers);
  const warm = await settled(child.pid);
  await storm(port, mode.paths, Math.floor(calls / 2), answers);
  const giants = await sendGiants(port, mode.giants, child.pid);
  await storm(port, mode.paths, Math.floor((calls * 4) / 10), answers);
  const end = await settled(child.pid);
  const last = await call(port, { path: mode.paths.good, length: 10, manner: "good" });
  const took = (performance.now() - begin) / 1000;
  console.error(
    `  ${name}: ${calls} calls in ${took.toFixed(0)} s, answers ${JSON.stringify(answers)}, 1 GiB: ` +
      `${giants.statuses.join(", ")}, then ${last}; warm ${JSON.stringify(warm)}, end ${JSON.stringify(end)}`,
  );
  const wrong = [
    ...(end.zombies > 0 ? [`${end.zombies} zombies`] : []),
    ...(end.children > warm.children ? [`${end.children} processes, were ${warm.children}`] : []),
    ...(end.files > warm.files + callers ? [`${end.files} open files, were ${warm.files}`] : []),
    ...(end.dirtyKb > warm.dirtyKb * 1.5 + 8192 ? [`${end.dirtyKb} kB of memory, were ${warm.dirtyKb}`] : []),
    ...giants.statuses.filter((status) => status !== 200).map((status) => `1 GiB was answered with ${status}`),
    ...(last !== 200 ? [`a good call at the end was answered with ${last}`] : []),
  ];
  if (wrong.length > 0) throw new Error(`watchdog-abuse, ${name}: ${wrong.join("; ")}`);
  const line = (what: string, unit: string, value: number, peers: Record<string, number> = {}): Measurement => ({
    name: `watchdog under abuse, ${name}: ${what}`,
    ...{ unit, value, peers },
  });
  return [
    line("calls/s", "", Math.round(calls / took)),
    line("open files at the end", "", end.files, { "after a tenth": warm.files }),
    line("processes at the end", "", end.children, { "after a tenth": warm.children, zombies: end.zombies }),
    line("private memory at the end", "kB", end.dirtyKb, { "after a tenth": warm.dirtyKb }),
    line("most memory during 1 GiB", "kB", giants.peakKb),
  ];
}

/** Each once as a whole, whose statuses count, and once given up in the middle. */
async function sendGiants(
  port: number,
  giants: readonly Call[],
  pid: number,
): Promise<{ statuses: number[]; peakKb: number }> {
  let peakKb = 0;
  const watching = setInterval(async () => {
    peakKb = Math.max(peakKb, (await memoryOf(pid).catch(() => ({ Pss: 0 }))).Pss!);
  }, 50);
  const statuses: number[] = [];
  for (const giant of giants) {
    statuses.push(await call(port, giant));
    await call(port, { ...giant, manner: "cut" });
  }
  clearInterval(watching);
  return { statuses, peakKb };
}

/** What it has when nothing happens. Waits for calls whose client has left, and for the watchdog to clean up. */
async function settled(pid: number): Promise<State> {
  await delay(5000);
  const [files, children, memory] = [await openFiles(pid), await childrenOf(pid), await memoryOf(pid)];
  const zombies = children.filter(({ state }) => state === "Z").length;
  return { files, children: children.length, zombies, dirtyKb: memory.Private_Dirty! };
}

async function storm(port: number, paths: Mode["paths"], count: number, answers: Record<string, number>) {
  const end = performance.now() + patience;
  let left = count;
  const one = async (manner: Manner, length: number) => {
    const key = `${manner} ${await call(port, { path: paths[manner], length, manner })}`;
    answers[key] = (answers[key] ?? 0) + 1;
  };
  const slow: Promise<void>[] = []; // nobody waits for them meanwhile
  const caller = async () => {
    while (left-- > 0) {
      if (performance.now() > end) throw new Error("watchdog-abuse takes too long");
      const manner = mannerOf(left);
      const done = one(manner, left % 97 === 0 ? 300_000 : left % 2000);
      if (manner === "slow") slow.push(done);
      else await done;
    }
  };
  await Promise.all(Array.from({ length: callers }, caller));
  await Promise.all(slow);
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
 * One call on a connection of its own; resolves with the status, or 0 when there is none, or less of an answer than
 * there should be.
 */
function call(port: number, { path, length, manner, answer }: Call): Promise<number> {
  return new Promise((resolve) => {
    const socket = connect({ port, host: "127.0.0.1" });
    let status = 0;
    let received = 0;
    const over = () => resolve(answer !== undefined && received < answer ? 0 : status);
    socket.once("error", over);
    socket.once("close", over);
    socket.on("data", (data) => {
      if (status === 0) status = Number(data.toString("latin1", 9, 12)) || 0;
      received += data.length;
      if (manner === "cut" && answer !== undefined && received > answer / 2) socket.destroy();
      if (manner === "slow" && received > 4096) {
        socket.pause();
        setTimeout(() => socket.destroy(), (limit + 2) * 1000); // the watchdog has had enough before
      }
      if (manner === "half") socket.destroy();
    });
    socket.once("connect", () => {
      const method = length > 0 ? "POST" : "GET";
      socket.write(`${method} ${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: ${length}\r\n\r\n`);
      send(socket, manner === "cut" ? Math.floor(length / 2) : length, () => {
        if (manner === "cut" && answer === undefined) socket.destroy();
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
