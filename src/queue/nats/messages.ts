import type { Msg } from "@nats-io/transport-node";
import { AppError } from "../../base/errors.ts";
import type { Message, NewMessage, StoredBody } from "../store.ts";
import { type NatsBodies, overhead, remoteName } from "./bodies.ts";
import { type Link, serverCodes } from "./connection.ts";
import {
  decodePayload,
  encodePayload,
  type Info,
  infoHeader,
  infoOf,
  type Key,
  type Layout,
  partsOf,
  type StreamName,
  withInfo,
} from "./layout.ts";

/** A message as it lies in a stream. */
export interface Packed {
  readonly key: Key;
  readonly info: Info;
  readonly payload: Uint8Array;
}

/** Makes a message ready to be published; what is too large of it is on the server then. */
export async function pack(link: Link, bodies: NatsBodies, key: Key, message: NewMessage): Promise<Packed> {
  const { callId, target, callback, created, body, headers } = message;
  const info: Info = { callId, target, callback, created, bytes: body.bytes };
  const limit = await link.ask(async ({ nc }) => nc.info!.max_payload - overhead);
  if (body.data) {
    const payload = encodePayload(headers, body.data);
    if (payload.length + headBytes(info) <= limit) return { key, info, payload };
  }
  const payload = encodePayload(headers, new Uint8Array(0));
  if (payload.length + headBytes(info) > limit)
    throw new AppError("QUEUE_STORE", ["JetStream", "the call's headers are larger than the server's max_payload"]);
  return { key, info: { ...info, body: await bodies.upload(body, key) }, payload };
}

function headBytes(info: Info): number {
  return Buffer.byteLength(JSON.stringify(info)) + infoHeader.length;
}

/** Publishes a message; `msgId`: only if the server does not remember one of that id. False when it does. */
export async function publish(
  link: Link,
  layout: Layout,
  stream: StreamName,
  { key, info, payload }: Packed,
  options: { msgID?: string; expect?: { lastSubjectSequence: number } } = {},
): Promise<boolean> {
  const headers = withInfo(info);
  const subject = layout.subject(stream, key);
  const ack = await link.ask(
    ({ js }) => js.publish(subject, payload, { headers, ...options }),
    [...(options.expect ? [serverCodes.wrongLastSequence] : [])],
  );
  return !ack.duplicate;
}

/** A message as its consumer has delivered it. */
export function unpack(key: Key, seq: number, attempts: number, delivery: Msg): { info: Info; message: Message } {
  const { lane, fn } = partsOf(key);
  const info = infoOf(delivery.headers);
  const { callId, target, callback, created, bytes } = info;
  const payload = decodePayload(delivery.data);
  const body: StoredBody = info.body
    ? { bytes, data: null, file: remoteName(info.body) }
    : { bytes, data: payload.body, file: null };
  const message = { seq, attempts, callId, lane, fn, target, headers: payload.headers, body, callback, created };
  return { info, message };
}
