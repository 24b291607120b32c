import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { type CallLimits, noLimits } from "../../src/functions/call-limits.ts";
import { type PolicyDefaults, policyOf } from "../../src/functions/policy.ts";
import { Replica } from "../../src/functions/replica.ts";
import { SleepStats } from "../../src/functions/sleep-stats.ts";
import { Entry, type Table } from "../../src/functions/table.ts";
import { openInvoke } from "../../src/invoke/invoke.ts";
import { policyDefaults } from "../fakes/policy.ts";
import { openTestGateway } from "./gateway.ts";

/** One end of a connection, byte for byte. Bytes are latin1 characters. */
export class Wire {
  readonly socket: Socket;
  /** Everything that has come and was not asked for yet. */
  received = "";
  ended = false;
  closed = false;
  #look: (() => void)[] = [];

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on("data", (chunk: Buffer) => this.#now(() => (this.received += chunk.toString("latin1"))));
    socket.on("end", () => this.#now(() => (this.ended = true)));
    socket.on("close", () => this.#now(() => (this.closed = true)));
    socket.on("error", () => {}); // "close" follows
  }

  #now(what: () => void): void {
    what();
    for (const look of [...this.#look]) look();
  }

  send(text: string): void {
    this.socket.write(text, "latin1");
  }

  /** Takes what came up to the end of `what`; fails when the connection ends before. */
  async until(what: string | RegExp): Promise<string> {
    const end = () => {
      if (typeof what === "string") {
        const at = this.received.indexOf(what);
        return at < 0 ? -1 : at + what.length;
      }
      const match = what.exec(this.received);
      return match ? match.index + match[0].length : -1;
    };
    await this.#until(() => end() >= 0 || this.ended || this.closed, `${what}`);
    const at = end();
    if (at < 0) throw new Error(`the connection ended before ${what}, after ${JSON.stringify(this.received)}`);
    const taken = this.received.slice(0, at);
    this.received = this.received.slice(at);
    return taken;
  }

  /** A whole head. */
  head(): Promise<string> {
    return this.until("\r\n\r\n");
  }

  /** All that comes until the other side ends, in whatever way. */
  async rest(): Promise<string> {
    await this.#until(() => this.ended || this.closed, "the end");
    return this.received;
  }

  async close(): Promise<void> {
    await this.#until(() => this.closed, "the close");
  }

  #until(condition: () => boolean, what: string): Promise<void> {
    if (condition()) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const done = (error?: Error) => {
        clearTimeout(timer);
        this.#look = this.#look.filter((l) => l !== look);
        if (error) reject(error);
        else resolve();
      };
      const look = () => condition() && done();
      const timer = setTimeout(
        () => done(new Error(`did not come: ${what}; there is ${JSON.stringify(this.received.slice(0, 2000))}`)),
        10_000,
      );
      this.#look.push(look);
    });
  }
}

export interface RawGateway extends AsyncDisposable {
  readonly entry: Entry;
  readonly port: number;
  /** The port that the function's replicas have. */
  readonly upstreamPort: number;
  /** A caller's connection. */
  dial(): Promise<Wire>;
  /** The next connection that the gateway makes to the function. */
  accepted(): Promise<Wire>;
  /** How many it has made so far. */
  readonly connections: number;
  /** Replicas that were doubted, in order. */
  readonly doubted: Replica[];
  /** Nothing of any call is counted any more. */
  assertIdle(): Promise<void>;
}

export interface RawGatewayOptions {
  timeoutMs?: number;
  tunnelIdleMs?: number;
  limits?: Partial<CallLimits>;
  replicas?: number;
  /** Nobody listens on the replicas' port. */
  refuses?: boolean;
  wake?: () => Promise<void>;
}

/** The real gateway before one function, `f`, whose side of every connection is the test's. */
export async function openRawGateway(options: RawGatewayOptions = {}): Promise<RawGateway> {
  const { timeoutMs = 10_000, tunnelIdleMs = 10_000, limits = {}, replicas = 1, wake = async () => {} } = options;
  await using up = new AsyncDisposableStack();
  const wires: Wire[] = [];
  const waiting: ((wire: Wire) => void)[] = [];
  let connections = 0;
  const all = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    connections++;
    all.add(socket);
    const wire = new Wire(socket);
    const next = waiting.shift();
    if (next) next(wire);
    else wires.push(wire);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const upstreamPort = (server.address() as AddressInfo).port;
  if (options.refuses) server.close();
  up.defer(() => {
    for (const socket of all) socket.destroy();
    server.close();
  });

  const defaults: PolicyDefaults = { ...policyDefaults, timeoutMs, limits: { ...noLimits, queue: 100, ...limits } };
  const policy = policyOf({ name: "f", namespace: "fn", image: "f:1" }, defaults);
  const doubted: Replica[] = [];
  const entry = new Entry({ name: "f", namespace: "fn" }, policy, wake, (replica) => doubted.push(replica));
  entry.routable = Array.from({ length: replicas }, (_, number) => {
    const replica = new Replica({ name: "f", namespace: "fn", generation: 1, number });
    replica.connect({ host: "127.0.0.1", port: upstreamPort });
    replica.move(["starting"], "ready");
    return replica;
  });
  const everybody = entry.routable;
  up.defer(() => void everybody.map((r) => r.pool!.destroy(new Error("the test is over"))));
  const table: Table = new Map([["f.fn", entry]]);
  const gateway = up.use(await openTestGateway({ table }));
  const thaw = async () => {};
  const calls = openInvoke({ table, defaultNamespace: "fn", thaw, waits: new SleepStats().waits, tunnelIdleMs });
  gateway.serve({ ...calls, later: calls.invoke, admin: (_, res) => void res.writeHead(404).end() });
  const stack = up.move();
  return {
    entry,
    port: gateway.port,
    upstreamPort,
    doubted,
    get connections() {
      return connections;
    },
    async dial() {
      const socket = connect({ host: "127.0.0.1", port: gateway.port, allowHalfOpen: true });
      await once(socket, "connect");
      all.add(socket);
      return new Wire(socket);
    },
    accepted: () => {
      const wire = wires.shift();
      return wire ? Promise.resolve(wire) : new Promise((resolve) => waiting.push(resolve));
    },
    async assertIdle() {
      const end = performance.now() + 10_000;
      const counts = () => [
        entry.calls.inFlight,
        entry.admission.running,
        entry.admission.waiting,
        ...everybody.map((r) => r.inFlight),
      ];
      while (counts().some((n) => n !== 0)) {
        if (performance.now() > end) throw new Error(`still counted: ${counts()}`);
        await new Promise((resolve) => setTimeout(resolve, 2));
      }
    },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

/** The text of a request. */
export function requestText(line: string, headers: readonly string[] = [], body = ""): string {
  return `${line} HTTP/1.1\r\n${["Host: napd.example", ...headers].join("\r\n")}\r\n\r\n${body}`;
}

/** The text of an answer with a length. */
export function answerText(body: string, status = "200 OK", headers: readonly string[] = []): string {
  const lines = [`HTTP/1.1 ${status}`, `Content-Length: ${body.length}`, "Content-Type: text/plain", ...headers];
  return `${lines.join("\r\n")}\r\n\r\n${body}`;
}
