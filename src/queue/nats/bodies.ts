import { Readable } from "node:stream";
import { AppError } from "../../base/errors.ts";
import type { Bodies, MessageBodies } from "../bodies.ts";
import type { StoredBody } from "../store.ts";
import type { Link, Nats } from "./connection.ts";
import { infoHeader, type Key, type Layout, newId, type PiecesRef, withInfo } from "./layout.ts";

const pieceBytes = 256 * 1024;
/** Of a message that are its headers and subject, at most, besides what it is about. */
export const overhead = 1024;
/** Pieces that are on their way to the server at once, and that are read ahead. */
const atOnce = 4;

const remotePrefix = "nats:";

/** The name of a body in pieces, as a StoredBody has it. */
export function remoteName({ id, piece }: PiecesRef): string {
  return `${remotePrefix}${id}:${piece}`;
}

export function isRemote(name: string): boolean {
  return name.startsWith(remotePrefix);
}

/** Bodies that come in wait in files of this machine until they are on the server; they are read from there. */
export class NatsBodies implements MessageBodies {
  readonly #local: Bodies;
  readonly #link: Link;
  readonly #layout: Layout;

  constructor(local: Bodies, link: Link, layout: Layout) {
    this.#local = local;
    this.#link = link;
    this.#layout = layout;
  }

  keep(source: Readable, maxBytes: number): Promise<StoredBody | null> {
    return this.#local.keep(source, maxBytes);
  }

  read(body: StoredBody): Readable {
    if (body.file === null || !isRemote(body.file)) return this.#local.read(body);
    const [, id = "", piece = ""] = body.file.split(":");
    return Readable.from(this.#pieces(id, Math.ceil(body.bytes / Number(piece))), { objectMode: false });
  }

  drop(body: StoredBody): Promise<void> {
    return this.#local.drop(body);
  }

  /** Brings a body of this machine to the server, for the message of that key. */
  async upload(body: StoredBody, key: Key): Promise<PiecesRef> {
    const id = newId();
    const piece = await this.#link.ask(async ({ nc }) => Math.min(pieceBytes, nc.info!.max_payload - overhead));
    const sending = new Set<Promise<unknown>>();
    let failure: unknown;
    let n = 0;
    try {
      for await (const data of cut(this.#local.read(body), piece)) {
        if (failure) throw failure;
        const headers = withInfo({ key });
        const sent = this.#link
          .ask(({ js }) => js.publish(this.#layout.subject("bodies", `${id}.${n}`), data, { headers }))
          .catch((e) => {
            failure = e;
          })
          .finally(() => sending.delete(sent));
        sending.add(sent);
        n++;
        if (sending.size >= atOnce) await Promise.race(sending);
      }
      await Promise.all(sending);
      if (failure) throw failure;
      return { id, piece };
    } catch (e) {
      await Promise.all(sending);
      if (this.#link.current) await this.remove(id).catch(() => {}); // else it is swept
      throw e;
    }
  }

  async remove(id: string): Promise<void> {
    await this.#link.ask((nats) => purgeBody(nats, this.#layout, id));
  }

  async *#pieces(id: string, count: number): AsyncGenerator<Uint8Array> {
    const ahead: Promise<Uint8Array>[] = [];
    for (let n = 0; n < count; n++) {
      while (ahead.length < atOnce && n + ahead.length < count) {
        const piece = this.#piece(id, n + ahead.length);
        piece.catch(() => {}); // told when its turn comes
        ahead.push(piece);
      }
      yield await ahead.shift()!;
    }
  }

  async #piece(id: string, n: number): Promise<Uint8Array> {
    const last_by_subj = this.#layout.subject("bodies", `${id}.${n}`);
    const stream = this.#layout.stream("bodies");
    return this.#link.ask(async ({ jsm }) => {
      // any replica, and the leader if that one has not got it yet
      const found =
        (await jsm.direct.getMessage(stream, { last_by_subj })) ??
        (await jsm.streams.getMessage(stream, { last_by_subj }));
      if (!found) throw new AppError("QUEUE_STORE", [stream, `piece ${n} of body ${id} is not there`]);
      return found.data;
    });
  }
}

export async function purgeBody({ jsm }: Nats, layout: Layout, id: string): Promise<void> {
  await jsm.streams.purge(layout.stream("bodies"), { filter: layout.subject("bodies", `${id}.*`) });
}

/** Which messages the bodies are of that have been there for `minAgeMs`. */
export async function oldBodies(
  { jsm }: Nats,
  layout: Layout,
  minAgeMs: number,
  now: number,
): Promise<{ id: string; key: Key }[]> {
  const stream = layout.stream("bodies");
  const { state } = await jsm.streams.info(stream, { subjects_filter: layout.subject("bodies", "*.0") });
  const found: { id: string; key: Key }[] = [];
  for (const subject of Object.keys(state.subjects ?? {})) {
    const first = await jsm.direct.getMessage(stream, { last_by_subj: subject });
    if (!first || now - first.time.getTime() < minAgeMs) continue;
    const { key } = JSON.parse(first.header.get(infoHeader)) as { key: Key };
    found.push({ id: layout.keyOf(subject).replace(/\.0$/, ""), key });
  }
  return found;
}

/** The same bytes, in pieces of `bytes` and a last one that may have fewer. */
async function* cut(source: AsyncIterable<Buffer>, bytes: number): AsyncGenerator<Buffer> {
  let parts: Buffer[] = [];
  let have = 0;
  for await (const data of source) {
    for (let rest = data; rest.length > 0; ) {
      const part = rest.subarray(0, bytes - have);
      rest = rest.subarray(part.length);
      parts.push(part);
      have += part.length;
      if (have < bytes) continue;
      yield Buffer.concat(parts);
      parts = [];
      have = 0;
    }
  }
  if (have > 0) yield Buffer.concat(parts);
}
