import { createHash, randomUUID } from "node:crypto";
import { type Msg, type MsgHdrs, headers as newHeaders } from "@nats-io/transport-node";
import type { Lane, MessageFilter, NewMessage } from "../store.ts";

/**
 * How the queue lies in JetStream: four streams, and which subjects they have.
 *
 * - `messages`: what waits or runs, one subject each; consumers deliver it. Removed when it is done.
 * - `dead`: what was given up, under the same key.
 * - `runs`: what is known of the attempts at a message, while there have been any.
 * - `bodies`: pieces of bodies that are too large for a message, by an id of their own.
 */
export type StreamName = "messages" | "dead" | "runs" | "bodies";

/** `LANE.NAME.NAMESPACE.CALL.ID`: what a message is known by; all that is asked for by subject is in it. */
export type Key = string;

/** What is told of a message without its payload: the header `Napd-Message`, as JSON. */
export interface Info {
  readonly callId: string;
  readonly target: string;
  /** Of the body. */
  readonly bytes: number;
  readonly callback: string | null;
  /** Ms since the epoch. */
  readonly created: number;
  /** Where the body is, when it is not in the payload. */
  readonly body?: PiecesRef;
  /** Of the dead. */
  readonly attempts?: number;
  readonly status?: number | null;
  readonly error?: string | null;
}

export interface PiecesRef {
  readonly id: string;
  /** Bytes of each but the last. */
  readonly piece: number;
}

export const infoHeader = "Napd-Message";

/** Subjects and names of one queue on a server that may have several: `prefix` begins all of them. */
export class Layout {
  readonly prefix: string;

  constructor(prefix: string) {
    this.prefix = prefix;
  }

  stream(name: StreamName): string {
    return `${this.prefix}-${name}`;
  }

  subject(name: StreamName, rest: string): string {
    return `${this.prefix}.${name}.${rest}`;
  }

  /**
   * Told to all machines, and not kept: `wake` that there is a new message, `gone` that somebody removed some;
   * `alive.ID` asks one of them whether it has a message.
   */
  notice(what: "wake" | "gone" | `alive.${string}`): string {
    return `${this.prefix}.${what}`;
  }

  keyOf(subject: string): Key {
    return subject.split(".").slice(2).join(".");
  }

  /** For the names of namespaces and functions are DNS labels, which have neither dots nor underscores. */
  consumer(lane: Lane, fn: string): string {
    return `${lane}_${fn.replace(".", "_")}`;
  }

  consumerOf(name: string): { lane: Lane; fn: string } | undefined {
    const [, lane, fn, namespace] = /^(call|callback)_([^_]+)_([^_]+)$/.exec(name) ?? [];
    return lane === undefined ? undefined : { lane: lane as Lane, fn: `${fn}.${namespace}` };
  }
}

export function newKey({ lane, fn, callId }: Pick<NewMessage, "lane" | "fn" | "callId">, id = newId()): Key {
  return `${lane}.${fn}.${callToken(callId)}.${id}`;
}

export function partsOf(key: Key): { lane: Lane; fn: string; id: string } {
  const [lane, name, namespace, , id] = key.split(".");
  return { lane: lane as Lane, fn: `${name}.${namespace}`, id: id! };
}

/** Which keys may fit: all that does, and little else. */
export function keyFilter({ fn, namespace, callId }: Partial<MessageFilter>): string {
  return `*.${fn ?? `*.${namespace ?? "*"}`}.${callId === undefined ? "*" : callToken(callId)}.*`;
}

export function newId(): string {
  return randomUUID().replaceAll("-", "");
}

/** Callers name their calls as they like; subjects do not take everything. */
function callToken(callId: string): string {
  return createHash("sha256").update(callId).digest("hex").slice(0, 24);
}

/** JSON without anything that a line of a header cannot have. */
export function withInfo(info: unknown): MsgHdrs {
  const headers = newHeaders();
  headers.set(infoHeader, JSON.stringify(info));
  return headers;
}

export function infoOf<T = Info>(headers: MsgHdrs | undefined): T {
  return JSON.parse(headers!.get(infoHeader));
}

/** Length of the call's headers as four bytes, these as JSON, the body. */
export function encodePayload(callHeaders: readonly string[], body: Uint8Array): Buffer {
  const head = Buffer.from(JSON.stringify(callHeaders));
  const length = Buffer.alloc(4);
  length.writeUInt32BE(head.length);
  return Buffer.concat([length, head, body]);
}

export function decodePayload(data: Uint8Array): { headers: readonly string[]; body: Uint8Array } {
  const payload = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  const end = 4 + payload.readUInt32BE(0);
  return { headers: JSON.parse(payload.toString("utf8", 4, end)), body: new Uint8Array(payload.subarray(end)) };
}

/** What a consumer delivers: its place in the stream and how often it was delivered, from the subject of its ack. */
export function deliveryOf({ reply }: Msg): { seq: number; deliveries: number } {
  // $JS.ACK.STREAM.CONSUMER.DELIVERIES.SEQ.…, and with a domain and an account before the stream on servers since 2.10
  const tokens = reply!.split(".");
  const at = tokens.length > 9 ? 6 : 4;
  return { deliveries: Number(tokens[at]), seq: Number(tokens[at + 1]) };
}
