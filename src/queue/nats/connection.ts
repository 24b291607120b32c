import { readFile } from "node:fs/promises";
import { hostname } from "node:os";
import { setTimeout as delay } from "node:timers/promises";
import {
  DiscardPolicy,
  JetStreamApiError,
  type JetStreamClient,
  type JetStreamManager,
  jetstreamManager,
  RetentionPolicy,
  StorageType,
  type StreamConfig,
} from "@nats-io/jetstream";
import {
  type ConnectionOptions,
  connect,
  credsAuthenticator,
  type NatsConnection,
  nanos,
} from "@nats-io/transport-node";
import { AppError, messageOf } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import type { Layout, StreamName } from "./layout.ts";

export interface LinkOptions {
  /** `nats://[user:password@]host[:port]`, or `tls://…`; several with commas between them. */
  readonly url: string;
  /** File that the server's administrator has given out (`.creds`); empty for none. */
  readonly credentials: string;
  /** File with the certificates of the authorities to trust; empty for the system's. */
  readonly ca: string;
  readonly layout: Layout;
  readonly log: Logger;
}

/** A connection that works at this moment, with its streams there. */
export interface Nats {
  readonly nc: NatsConnection;
  readonly js: JetStreamClient;
  readonly jsm: JetStreamManager;
}

/** Ms that an answer of the server may take. */
const answerMs = 5000;
const maxPauseMs = 2000;

/** Numbers of the server's errors (err_code): https://github.com/nats-io/nats-server/blob/main/server/errors.json */
export const serverCodes = {
  wrongLastSequence: 10071,
  noMessage: 10037,
  sequenceNotFound: 10043,
  streamNotFound: 10059,
  notStored: 10077,
};
const fullCodes: readonly number[] = [10023, 10028, 10047];

/** The server forgets which ids of messages it knows after this. */
const duplicateWindowMs = 10 * 60_000;

/**
 * The connection to the server that keeps the queue. It is made, and made again, in the background for as long as it
 * takes; whoever asks meanwhile is refused at once, and nothing waits in memory.
 */
export class Link implements AsyncDisposable {
  readonly #o: LinkOptions;
  readonly #servers: string[];
  /** Without passwords. */
  readonly #shown: string;
  readonly #ended = new AbortController();
  readonly #listeners: ((nats: Nats) => void)[] = [];
  #nc: NatsConnection | null = null;
  #nats: Nats | null = null;
  #why = "no connection yet";
  /** Those who wait for an answer: told when the connection is lost. */
  readonly #asking = new Set<(error: AppError) => void>();
  readonly #loop: Promise<void>;
  readonly #begun = Promise.withResolvers<void>();

  constructor(options: LinkOptions) {
    this.#o = options;
    const urls = options.url.split(",").map((text) => new URL(text));
    this.#servers = urls.map((url) => url.host);
    this.#shown = urls.map((url) => `${url.protocol}//${url.host}`).join(",");
    this.#loop = this.#run();
  }

  /** Called whenever the connection has come about, for the first time or again. */
  onUp(listener: (nats: Nats) => void): void {
    this.#listeners.push(listener);
  }

  /** Resolves when there has been a connection. */
  get begun(): Promise<void> {
    return this.#begun.promise;
  }

  /** The connection, null while there is none. */
  get current(): Nats | null {
    return this.#nats;
  }

  /** Asks the server. Fails with QUEUE_SERVER or QUEUE_SERVER_FULL; errors of JetStream's interface pass if told to. */
  async ask<T>(work: (nats: Nats) => Promise<T>, passes: readonly number[] = []): Promise<T> {
    if (!this.#nats) throw this.#away();
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    this.#asking.add(reject);
    try {
      work(this.#nats).then(resolve, reject);
      return await promise;
    } catch (e) {
      throw e instanceof AppError || isServerError(e, ...passes) ? e : this.#errorOf(e);
    } finally {
      this.#asking.delete(reject);
    }
  }

  /** Says something that nobody answers; what is said while there is no connection is lost. */
  say(subject: string, text: string): void {
    try {
      this.#nats?.nc.publish(subject, text);
    } catch {
      // it was closed this moment
    }
  }

  #errorOf(e: unknown): AppError {
    const isFull =
      e instanceof JetStreamApiError &&
      (fullCodes.includes(e.code) ||
        (e.code === serverCodes.notStored && /maximum|insufficient|space/.test(e.message)));
    if (isFull) return new AppError("QUEUE_SERVER_FULL", [this.#shown, messageOf(e)], { cause: e });
    return new AppError("QUEUE_SERVER", [this.#shown, messageOf(e)], { cause: e });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ended.abort();
    this.#nats = null;
    await this.#nc?.close().catch(() => {});
    await this.#loop;
  }

  #away(): AppError {
    return new AppError("QUEUE_SERVER", [this.#shown, this.#why]);
  }

  async #run(): Promise<void> {
    const { signal } = this.#ended;
    for (let failures = 0; !signal.aborted; failures++) {
      try {
        this.#nc = await connect(await this.#options());
        if (!signal.aborted) await this.#serve(this.#nc);
        failures = 0;
        this.#isAway("the connection is lost", true);
      } catch (e) {
        this.#isAway(messageOf(e), failures === 0);
      }
      await this.#nc?.close().catch(() => {});
      await delay(Math.min(maxPauseMs, 100 * 2 ** Math.min(failures, 8)), undefined, { signal }).catch(() => {});
    }
  }

  /** Resolves when the connection is lost. */
  async #serve(nc: NatsConnection): Promise<void> {
    const jsm = await jetstreamManager(nc, { timeout: answerMs });
    for (const name of streams) await ensure(jsm, this.#o.layout, name);
    const nats = { nc, jsm, js: jsm.jetstream() };
    this.#nats = nats;
    this.#o.log.info({ server: nc.getServer() }, "the queue is kept by a NATS server");
    for (const listener of this.#listeners) listener(nats);
    this.#begun.resolve();
    await nc.closed();
  }

  #isAway(why: string, isNews: boolean): void {
    this.#nats = null;
    this.#why = why;
    for (const reject of this.#asking) reject(this.#away());
    if (isNews && !this.#ended.signal.aborted)
      this.#o.log.warn({ server: this.#shown, err: why }, "the NATS server that keeps the queue cannot be used");
  }

  async #options(): Promise<ConnectionOptions> {
    const { url, credentials, ca } = this.#o;
    const { username, password, protocol } = new URL(url.split(",")[0]!);
    return {
      servers: this.#servers,
      name: `napd ${hostname()}`,
      timeout: answerMs,
      // a new connection begins anew, with a look at the streams: the server may be another one
      reconnect: false,
      pingInterval: 10_000,
      noAsyncTraces: true,
      ...(username !== "" && { user: decodeURIComponent(username), pass: decodeURIComponent(password) }),
      ...(credentials !== "" && { authenticator: credsAuthenticator(await readFile(credentials)) }),
      ...(protocol === "tls:" && { tls: ca === "" ? {} : { caFile: ca } }),
    };
  }
}

export function isServerError(e: unknown, ...codes: readonly number[]): e is JetStreamApiError {
  return e instanceof JetStreamApiError && codes.includes(e.code);
}

const streams: readonly StreamName[] = ["messages", "dead", "runs", "bodies"];

/** What the queue needs of a stream; the rest (replicas, limits, placement) is the administrator's. */
function needs(layout: Layout, name: StreamName): Partial<StreamConfig> {
  return {
    subjects: [layout.subject(name, ">")],
    retention: RetentionPolicy.Limits,
    // what does not fit is refused; the oldest would be thrown away else
    discard: DiscardPolicy.New,
    max_msgs_per_subject: 1,
    allow_direct: true,
  };
}

async function ensure(jsm: JetStreamManager, layout: Layout, name: StreamName): Promise<void> {
  const stream = layout.stream(name);
  const needed = needs(layout, name);
  try {
    const { config } = await jsm.streams.info(stream);
    const isRight = Object.entries(needed).every(
      ([key, value]) => String(config[key as keyof StreamConfig]) === String(value),
    );
    if (!isRight) await jsm.streams.update(stream, needed);
  } catch (e) {
    if (!isServerError(e, serverCodes.streamNotFound)) throw e;
    const storage = StorageType.File;
    await jsm.streams.add({ name: stream, storage, duplicate_window: nanos(duplicateWindowMs), ...needed });
  }
}
