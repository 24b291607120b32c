/**
 * A backend in memory whose replicas are real HTTP servers on loopback, so that readiness, calls, aborts and crashes
 * are real. What an image does is said by the test; every operation can be made to fail. It sits the exam in
 * test/contract/backend.ts, which is why it may be trusted.
 */
import { createHash } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { setImmediate as turn } from "node:timers/promises";
import { AppError } from "../../src/base/errors.ts";
import { type FunctionId, keyOf } from "../../src/base/names.ts";
import {
  type Address,
  type Backend,
  type BackendImages,
  type ImageInfo,
  type LogLine,
  type LogQuery,
  type ObservedReplica,
  type PullPolicy,
  type ReplicaExit,
  type ReplicaIdentity,
  type ReplicaSpec,
  type ReplicaStats,
  replicaId,
} from "../../src/functions/backend.ts";
import { freePort } from "../support/free-port.ts";

/** What runs in the replicas of an image. */
export interface Program {
  /** Answers requests; without it the image's name is the answer. `secrets`: what it would find in its files. */
  readonly answer?: (
    req: IncomingMessage,
    res: ServerResponse,
    spec: ReplicaSpec,
    secrets: ReadonlyMap<string, string>,
  ) => void;
  /** What it prints when it starts. */
  readonly says?: string;
  /** It cannot be started, for this reason. */
  readonly broken?: string;
  /** It ends with this code as soon as it runs, without ever listening. */
  readonly exitsWith?: number;
  /** It runs and listens when this resolves; never, if it never does. */
  readonly listens?: Promise<void>;
}

type Operation =
  | ("prepare" | "start" | "stop" | "freeze" | "thaw" | "list")
  | ("addNamespace" | "removeNamespace" | "refreshSecret");

const keyOfReplica = (r: ReplicaIdentity) => `${r.namespace}/${replicaId(r)}`;

class FakeReplica {
  readonly spec: ReplicaSpec;
  readonly secrets = new Map<string, string>();
  condition: ObservedReplica["condition"] = "running";
  readonly #server: Server;
  /** Each answer takes a millisecond of CPU. */
  cpuNanoseconds = 0;
  #port = 0;
  #held: (() => void)[] = [];

  constructor(spec: ReplicaSpec, program: Program) {
    this.spec = spec;
    const reply = program.answer ?? ((_, res) => void res.end(spec.image.split("@")[0]));
    const answer = (...given: Parameters<typeof reply>) => {
      this.cpuNanoseconds += 1e6;
      reply(...given);
    };
    this.#server = createServer((req, res) => {
      if (this.condition === "frozen") this.#held.push(() => answer(req, res, spec, this.secrets));
      else answer(req, res, spec, this.secrets);
    });
  }

  get address(): Address {
    return { host: "127.0.0.1", port: this.#port };
  }

  /** An address that refuses connections for now. */
  async reserve(): Promise<void> {
    this.#port = await freePort();
  }

  async listen(): Promise<void> {
    this.#server.listen(this.#port, "127.0.0.1");
    await once(this.#server, "listening");
    this.#port = (this.#server.address() as AddressInfo).port;
  }

  thaw(): void {
    this.condition = "running";
    for (const answer of this.#held.splice(0)) answer();
  }

  /** No new connections; resolves when the requests under way have been answered, or cut after `graceMs`. */
  async close(graceMs: number): Promise<void> {
    this.condition = "dead";
    if (!this.#server.listening) return;
    const cut = setTimeout(() => this.#server.closeAllConnections(), graceMs);
    if (graceMs === 0) this.#server.closeAllConnections();
    this.#server.closeIdleConnections();
    await new Promise((resolve) => this.#server.close(resolve));
    clearTimeout(cut);
  }
}

export class FakeBackend implements Backend, AsyncDisposable {
  readonly can = { freeze: true as boolean };
  /** What was asked, in order: `start web.1.0`, `stop web.1.0`, `thaw …`, `prepare IMAGE`, `release PIN`, `forget …`. */
  readonly journal: string[] = [];
  /** Prepared images that nobody has released. */
  readonly pins = new Set<string>();
  /** Values of secrets by name, in any namespace; who starts without one that is not here finds none. */
  readonly secrets = new Map<string, string>();
  /** Namespaces that were added and not removed. */
  readonly namespaces = new Set<string>();
  /** While it is set, starts wait for it before they do anything. */
  gate: Promise<void> | null = null;
  readonly #programs = new Map<string, Program>();
  /** Images that functions need, as a real backend is told when it is made. */
  readonly used: { namespace: string; image: string; by: string | null }[] = [];
  /** Image name to the pin of what was pushed last. */
  readonly #tags = new Map<string, string>();
  readonly #layers = new Set<string>();
  /** Base and layer to the pin of what they make. */
  readonly #composed = new Map<string, string>();
  readonly #replicas = new Map<string, FakeReplica>();
  readonly #stopping = new Map<string, Promise<void>>();
  /** Output of replicas, which outlives them, by function. */
  readonly #logs = new Map<string, LogLine[]>();
  /** Who follows logs. */
  readonly #readers = new Set<() => void>();
  readonly #watchers = new Set<{ onExit: (exit: ReplicaExit) => void; onGap: () => void }>();
  readonly #armed: { operation: Operation; error: Error }[] = [];

  // --- for tests -------------------------------------------------------------------------------------------------

  /** Makes an image, or gives its name a new meaning; what was prepared keeps the old one. */
  push(image: string, program: Program = {}): void {
    const pin = `${image}@${this.#programs.size}`;
    this.#programs.set(pin, program);
    this.#tags.set(image, pin);
  }

  /** The next such operation fails with `error`, then it works again. May be said several times. */
  failNext(operation: Operation, error: Error): void {
    this.#armed.push({ operation, error });
  }

  /** A replica's process ends by itself. */
  async crash(replica: ReplicaIdentity, exitCode = 1, outOfMemory = false): Promise<void> {
    await this.lose(replica);
    this.#tell(replica, exitCode, outOfMemory);
  }

  /** A replica's process ends and nobody is told. */
  async lose(replica: ReplicaIdentity): Promise<void> {
    await this.#replicas.get(keyOfReplica(replica))?.close(0);
  }

  /** Leaves what a start leaves that was cut off in the middle. */
  async halfMake(replica: ReplicaIdentity): Promise<void> {
    const half = new FakeReplica(
      { ...replica, image: "", env: {}, secrets: [], readOnlyRoot: false, watchdog: "auto" },
      {},
    );
    half.condition = "dead";
    this.#replicas.set(keyOfReplica(replica), half);
  }

  /** Watchers are told that they may have missed something. */
  gap(): void {
    for (const watcher of this.#watchers) watcher.onGap();
  }

  /** Everything that it holds, one line each. */
  holds(): string[] {
    return [
      ...[...this.#replicas.keys()].map((key) => `replica ${key}`),
      ...[...this.pins].map((pin) => `image ${pin}`),
    ]
      .concat([...this.#logs].filter(([, lines]) => lines.length > 0).map(([key]) => `log ${key}`))
      .sort();
  }

  /** How often something is in the journal. */
  count(text: string): number {
    return this.journal.filter((line) => line.startsWith(text)).length;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#replicas.values()].map((r) => r.close(0)));
  }

  // --- the backend -----------------------------------------------------------------------------------------------

  async prepare(_namespace: string, image: string, _policy: PullPolicy, signal?: AbortSignal): Promise<string> {
    await this.#begin("prepare", image);
    signal?.throwIfAborted();
    const pin = this.#programs.has(image) ? image : this.#tags.get(image);
    if (pin === undefined) throw new AppError("IMAGE_NOT_FOUND", [image, "the fake"]);
    this.pins.add(pin);
    return pin;
  }

  readonly images: BackendImages = {
    list: async (namespace) =>
      [...this.#tags].map(([name, pin]) => this.#info(namespace, name, pin)).sort((a, b) => (a.name < b.name ? -1 : 1)),
    pulls: () => [],
    remove: async (namespace, name) => {
      const pin = this.#tags.get(name);
      if (pin === undefined) throw new AppError("IMAGE_UNKNOWN", [name, namespace]);
      const { usedBy } = this.#info(namespace, name, pin);
      if (usedBy.length > 0) throw new AppError("IMAGE_IN_USE", [name, usedBy.join(", ")]);
      this.#tags.delete(name);
      this.pins.delete(pin);
    },
    /** An archive is the text `image NAME`. */
    import: async (namespace, upload) => {
      let text = "";
      for await (const piece of upload.body) text += piece;
      if (!text.startsWith("image ")) throw new AppError("IMAGE_BAD_ARCHIVE", ["the uploaded archive", "it is none"]);
      const name = upload.name ?? text.slice(6);
      this.push(name);
      return [this.#info(namespace, name, this.#tags.get(name)!)];
    },
    /** Layers that came in as a body stay, as `sha256:` and their bytes. */
    compose: async (namespace, { name, base, layer, body }) => {
      if (base !== "scratch" && !this.#tags.has(base)) throw new AppError("IMAGE_MISSING", [base]);
      if (!body && (layer === undefined || !this.#layers.has(layer)))
        throw new AppError("IMAGE_LAYER_MISSING", [layer ?? "?", namespace]);
      let text = "";
      for await (const piece of body ?? []) text += piece;
      if (text.startsWith("nonsense")) throw new AppError("IMAGE_BAD_LAYER", ["it is no tar file"]);
      const digest = body ? digestOf(text) : layer!;
      if (layer !== undefined && digest !== layer) throw new AppError("IMAGE_BAD_LAYER", ["its digest is another"]);
      this.#layers.add(digest);
      const pin = this.#composed.get(`${base} ${digest}`);
      if (pin) this.#tags.set(name, pin);
      else this.push(name, this.#programs.get(this.#tags.get(base) ?? ""));
      this.#composed.set(`${base} ${digest}`, this.#tags.get(name)!);
      return this.#info(namespace, name, this.#tags.get(name)!);
    },
    prune: async (namespaces) => {
      const infos = [...this.#tags].map(([name, pin]) => this.#info(namespaces[0]!, name, pin));
      const unused = infos.filter((info) => info.usedBy.length === 0);
      for (const { name } of unused) this.#tags.delete(name);
      return unused.map(({ name, namespace, digest, size }) => ({ name, namespace, digest, size }));
    },
  };

  #info(namespace: string, name: string, pin: string): ImageInfo {
    const usedBy = this.used.filter((u) => u.image === pin).flatMap((u) => u.by ?? []);
    return { name, namespace, digest: pin, size: 1000, createdAt: 0, usedAt: 0, usedBy };
  }

  async release(_namespace: string, image: string): Promise<void> {
    this.journal.push(`release ${image}`);
    this.pins.delete(image);
  }

  async start(spec: ReplicaSpec, signal?: AbortSignal): Promise<Address> {
    const key = keyOfReplica(spec);
    await this.#begin("start", replicaId(spec));
    if (this.gate) await Promise.race([this.gate, aborted(signal)]);
    signal?.throwIfAborted();
    const program = this.#programs.get(spec.image);
    if (!program || !this.pins.has(spec.image)) throw new AppError("IMAGE_MISSING", [spec.image]);
    if (program.broken !== undefined) throw new AppError("START_FAILED", [replicaId(spec), program.broken]);
    if (this.#replicas.has(key)) throw new AppError("START_FAILED", [replicaId(spec), "it is there already"]);
    const replica = new FakeReplica(spec, program);
    const listensAtOnce = program.exitsWith === undefined && program.listens === undefined;
    await (listensAtOnce ? replica.listen() : replica.reserve());
    if (signal?.aborted) await replica.close(0);
    signal?.throwIfAborted();
    this.#replicas.set(key, replica);
    for (const name of spec.secrets) if (this.secrets.has(name)) replica.secrets.set(name, this.secrets.get(name)!);
    this.#log(spec, program.says ?? "");
    if (program.exitsWith !== undefined) setImmediate(() => void this.crash(spec, program.exitsWith));
    void program.listens?.then(() => (replica.condition === "dead" ? undefined : replica.listen()));
    return replica.address;
  }

  stop(identity: ReplicaIdentity, graceMs: number): Promise<void> {
    const key = keyOfReplica(identity);
    const running = this.#stopping.get(key);
    if (running) return running;
    const stopping = this.#stop(identity, graceMs).finally(() => this.#stopping.delete(key));
    this.#stopping.set(key, stopping);
    return stopping;
  }

  async #stop(identity: ReplicaIdentity, graceMs: number): Promise<void> {
    await this.#begin("stop", replicaId(identity));
    const replica = this.#replicas.get(keyOfReplica(identity));
    if (!replica) return;
    const lived = replica.condition !== "dead";
    if (replica.condition === "frozen" && graceMs > 0) replica.thaw();
    await replica.close(graceMs);
    if (lived) this.#tell(identity, graceMs > 0 ? 143 : 137, false);
    this.#replicas.delete(keyOfReplica(identity));
  }

  async freeze(identity: ReplicaIdentity): Promise<void> {
    await this.#begin("freeze", replicaId(identity));
    this.#living(identity).condition = "frozen";
  }

  async thaw(identity: ReplicaIdentity): Promise<void> {
    await this.#begin("thaw", replicaId(identity));
    this.#living(identity).thaw();
  }

  async list(): Promise<ObservedReplica[]> {
    await this.#begin("list");
    return [...this.#replicas.values()].map(({ spec, condition, address }) => {
      const { name, namespace, generation, number } = spec;
      return { name, namespace, generation, number, condition, address: condition === "dead" ? null : address };
    });
  }

  watch(onExit: (exit: ReplicaExit) => void, onGap: () => void): Disposable {
    const watcher = { onExit, onGap };
    this.#watchers.add(watcher);
    setImmediate(() => this.#watchers.has(watcher) && onGap());
    return { [Symbol.dispose]: () => void this.#watchers.delete(watcher) };
  }

  async stats(): Promise<ReplicaStats[]> {
    const alive = [...this.#replicas.values()].filter((r) => r.condition !== "dead");
    return alive.map(({ spec, cpuNanoseconds }) => {
      const { name, namespace, generation, number } = spec;
      return { name, namespace, generation, number, cpuNanoseconds, memoryBytes: 1024 * 1024 };
    });
  }

  async tail(replica: ReplicaIdentity, bytes: number): Promise<string> {
    const own = (this.#logs.get(keyOf(replica)) ?? []).filter((l) => l.instance === replicaId(replica));
    const text = own.map((l) => `${l.text}\n`).join("");
    return (text.length <= bytes ? text : text.slice(text.indexOf("\n", text.length - bytes) + 1)).trim();
  }

  async sweep(keep: Parameters<Backend["sweep"]>[0]): Promise<void> {
    this.journal.push("sweep");
    const replicas = new Set(keep.replicas.map(keyOfReplica));
    for (const [key, replica] of this.#replicas) if (!replicas.has(key)) await this.stop(replica.spec, 0);
    const pins = new Set(keep.images.map((i) => i.image));
    for (const pin of this.pins) if (!pins.has(pin)) this.pins.delete(pin);
    const functions = new Set(keep.functions.map(keyOf));
    for (const key of this.#logs.keys()) if (!functions.has(key)) this.#logs.set(key, []);
  }

  async forget(fn: FunctionId): Promise<void> {
    this.journal.push(`forget ${keyOf(fn)}`);
    if (this.#logs.has(keyOf(fn))) this.#logs.set(keyOf(fn), []);
  }

  async *logs(query: LogQuery, signal: AbortSignal): AsyncGenerator<LogLine, void> {
    const lines = () =>
      (this.#logs.get(keyOf(query)) ?? []).filter(
        (l) => l.time >= query.since && (query.instance ?? l.instance) === l.instance,
      );
    const told = new Set<LogLine>();
    for (const line of lines().slice(0, -(query.tail ?? Number.POSITIVE_INFINITY))) told.add(line);
    do {
      let changed = () => {};
      const change = new Promise<void>((resolve) => {
        changed = resolve;
      });
      this.#readers.add(changed);
      signal.addEventListener("abort", changed);
      for (const line of lines()) {
        if (signal.aborted) return;
        if (!told.has(line)) yield line;
        told.add(line);
      }
      if (query.follow && !signal.aborted) await change;
      this.#readers.delete(changed);
    } while (query.follow && !signal.aborted);
  }

  async remembers(fn: FunctionId): Promise<boolean> {
    return this.#logs.has(keyOf(fn));
  }

  async addNamespace(namespace: string): Promise<void> {
    await this.#begin("addNamespace", namespace);
    this.namespaces.add(namespace);
  }

  async removeNamespace(namespace: string): Promise<void> {
    await this.#begin("removeNamespace", namespace);
    this.namespaces.delete(namespace);
  }

  async refreshSecret(namespace: string, name: string): Promise<void> {
    await this.#begin("refreshSecret", `${namespace}/${name}`);
    const value = this.secrets.get(name);
    for (const { spec, secrets } of this.#replicas.values())
      if (spec.namespace === namespace && secrets.has(name) && value !== undefined) secrets.set(name, value);
  }

  async #begin(operation: Operation, subject = ""): Promise<void> {
    this.journal.push(`${operation} ${subject}`.trim());
    await turn(); // no real backend answers in the same turn
    const at = this.#armed.findIndex((a) => a.operation === operation);
    if (at >= 0) throw this.#armed.splice(at, 1)[0]!.error;
  }

  #living(identity: ReplicaIdentity): FakeReplica {
    const replica = this.#replicas.get(keyOfReplica(identity));
    if (replica && replica.condition !== "dead") return replica;
    throw new AppError("FUNCTION_UNAVAILABLE", [replicaId(identity), "its process is gone"]);
  }

  #tell({ name, namespace, generation, number }: ReplicaIdentity, exitCode: number, outOfMemory: boolean): void {
    for (const watcher of this.#watchers)
      watcher.onExit({ name, namespace, generation, number, exitCode, outOfMemory });
  }

  #log(replica: ReplicaIdentity, output: string): void {
    const { name, namespace } = replica;
    const instance = replicaId(replica);
    const lines = output.split("\n").filter((text, i, all) => text !== "" || i < all.length - 1);
    const logs = this.#logs.get(keyOf(replica)) ?? [];
    this.#logs.set(keyOf(replica), [
      ...logs,
      ...lines.map((text) => ({ name, namespace, instance, time: Date.now(), text })),
    ]);
    for (const changed of this.#readers) changed();
  }
}

const digestOf = (text: string) => `sha256:${createHash("sha256").update(text).digest("hex")}`;

function aborted(signal: AbortSignal | undefined): Promise<never> {
  return new Promise((_, reject) => signal?.addEventListener("abort", () => reject(signal.reason), { once: true }));
}
