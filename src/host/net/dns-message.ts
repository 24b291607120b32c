import * as dns from "dns-packet";

/** DNS messages, as far as our server looks into them (RFC 1035 §4). */

/** Seconds that a program may remember our answers: short, as a function can be deleted. */
const ttl = 2;

/** Bytes that a client takes by UDP unless its query says more (RFC 1035 §4.2.1), and the most we believe (RFC 6891). */
const minUdpBytes = 512;
const maxUdpBytes = 4096;

/** Header bits (RFC 1035 §4.1.1), in the two bytes behind the id. */
export const flag = { response: 0x8000, authoritative: 0x0400, truncated: 0x0200, wanted: 0x0100, available: 0x0080 };
const opcodeBits = 0x7800;
export const rcode = { success: 0, format: 1, failure: 2, notImplemented: 4, refused: 5 };

export interface Query {
  readonly id: number;
  readonly flags: number;
  /** Lower case, without the final dot. */
  readonly name: string;
  readonly type: string;
  readonly class: string;
  /** The question's bytes, to repeat in answers and to recognise an upstream's. */
  readonly question: Buffer;
  /** Bytes that the client takes by UDP. */
  readonly udpBytes: number;
}

/**
 * Reads a message: a query, the error code to answer with, or undefined when it deserves no answer.
 * Exactly one question, as everybody sends and RFC 9619 demands.
 */
export function readQuery(message: Buffer): Query | number | undefined {
  if (message.length < 12) return undefined;
  const flags = message.readUInt16BE(2);
  if (flags & flag.response) return undefined;
  if (flags & opcodeBits) return rcode.notImplemented;
  try {
    const { questions = [], additionals = [], id = 0 } = dns.decode(message);
    const [asked, ...more] = questions;
    if (!asked || more.length > 0) return rcode.format;
    const opt = additionals.find((record) => record.type === "OPT");
    const announced = opt?.type === "OPT" ? opt.udpPayloadSize : minUdpBytes;
    return {
      id,
      flags,
      name: asked.name.toLowerCase().replace(/\.$/, ""),
      type: asked.type,
      class: asked.class ?? "IN",
      question: message.subarray(12, questionEnd(message)),
      udpBytes: Math.min(maxUdpBytes, Math.max(minUdpBytes, announced)),
    };
  } catch {
    return rcode.format;
  }
}

/** Where the first question ends: labels up to the empty one, type and class (RFC 1035 §4.1.2). */
function questionEnd(message: Buffer): number {
  let at = 12;
  for (let length = message.readUInt8(at); length > 0; length = message.readUInt8(at)) {
    if (length > 63) throw new RangeError("a compressed name in a question: there is nothing before it to point to");
    at += 1 + length;
  }
  const end = at + 5;
  if (end > message.length) throw new RangeError("the question is cut off");
  return end;
}

/**
 * The address for A (and ANY), and "there is the name but nothing of that type" for all others: an NXDOMAIN to AAAA
 * makes musl forget the A record it has just got (contracts/containerd.md §10).
 */
export function ownAnswer(query: Query, address: string): Buffer {
  const hasAddress = query.type === "A" || query.type === "ANY";
  const header = Buffer.alloc(12);
  header.writeUInt16BE(query.id, 0);
  const flags = flag.response | flag.authoritative | flag.available | (query.flags & flag.wanted);
  header.writeUInt16BE(flags, 2);
  header.writeUInt16BE(1, 4);
  header.writeUInt16BE(hasAddress ? 1 : 0, 6);
  if (!hasAddress) return Buffer.concat([header, query.question]);
  const record = Buffer.alloc(16);
  record.writeUInt16BE(0xc00c, 0); // the name: see the question, at offset 12 (RFC 1035 §4.1.4)
  record.writeUInt16BE(1, 2); // A
  record.writeUInt16BE(1, 4); // IN
  record.writeUInt32BE(ttl, 6);
  record.writeUInt16BE(4, 10);
  record.set(address.split(".").map(Number), 12);
  return Buffer.concat([header, query.question, record]);
}

/** An answer that is only a code, with the question if it could be read. */
export function refusal(message: Buffer, code: number, question: Buffer = Buffer.alloc(0)): Buffer {
  const header = Buffer.alloc(12);
  message.copy(header, 0, 0, 2);
  const flags = flag.response | flag.available | (message.readUInt16BE(2) & (flag.wanted | opcodeBits));
  header.writeUInt16BE(flags | code, 2);
  header.writeUInt16BE(question.length > 0 ? 1 : 0, 4);
  return Buffer.concat([header, question]);
}

/** Cuts an answer that is larger than the client takes down to its header and question, marked as truncated. */
export function fit(answer: Buffer, query: Query): Buffer {
  if (answer.length <= query.udpBytes) return answer;
  const header = Buffer.alloc(12);
  answer.copy(header, 0, 0, 4);
  header.writeUInt16BE(header.readUInt16BE(2) | flag.truncated, 2);
  header.writeUInt16BE(1, 4);
  return Buffer.concat([header, query.question]);
}

/** Whether `reply` is the answer to `sent`: same id and the same question; letters may differ in case. */
export function isAnswer(reply: Buffer, sent: Buffer, query: Query): boolean {
  if (reply.length < 12 || reply.readUInt16BE(0) !== sent.readUInt16BE(0)) return false;
  if ((reply.readUInt16BE(2) & flag.response) === 0) return false;
  // Errors may come without the question (RFC 1035 leaves it open, and some do).
  if (reply.readUInt16BE(4) === 0) return (reply.readUInt16BE(2) & 0xf) !== rcode.success;
  const question = reply.subarray(12, 12 + query.question.length);
  return question.toString("latin1").toLowerCase() === query.question.toString("latin1").toLowerCase();
}
