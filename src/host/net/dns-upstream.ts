import { createSocket } from "node:dgram";
import { once } from "node:events";
import { connect, isIP, isIPv6, type Socket } from "node:net";

/** Resolvers that are asked, and messages on TCP connections. */

export interface Upstream {
  readonly host: string;
  readonly port: number;
}

/** `ip`, `ip:port`, `ip6` or `[ip6]:port`; undefined for anything else. */
export function parseUpstream(text: string): Upstream | undefined {
  if (isIP(text)) return { host: text, port: 53 };
  const [, ip6, ip4, portText] = /^(?:\[([^\]]+)\]|([\d.]+)):(\d{1,5})$/.exec(text) ?? [];
  const [host, port] = [ip6 ?? ip4 ?? "", Number(portText)];
  return isIP(host) && port > 0 && port < 65536 ? { host, port } : undefined;
}

type Accept = (reply: Buffer) => boolean;

/** One datagram from a socket that is connected, so the kernel drops what comes from anybody else. */
export function askByUdp(upstream: Upstream, message: Buffer, accept: Accept, signal: AbortSignal): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const socket = createSocket(isIPv6(upstream.host) ? "udp6" : "udp4");
    const end = (finish: () => void) => {
      signal.removeEventListener("abort", onAbort);
      socket.close();
      finish();
    };
    const onAbort = () => end(() => reject(signal.reason));
    signal.addEventListener("abort", onAbort, { once: true });
    socket.once("error", (e) => end(() => reject(e))); // such as ECONNREFUSED from an ICMP answer
    socket.on("message", (reply) => {
      if (accept(reply)) end(() => resolve(reply));
    });
    socket.connect(upstream.port, upstream.host, () => socket.send(message));
  });
}

export async function askByTcp(
  upstream: Upstream,
  message: Buffer,
  accept: Accept,
  signal: AbortSignal,
): Promise<Buffer> {
  const socket = connect({ ...upstream, signal, noDelay: true });
  try {
    socket.write(frame(message));
    for await (const reply of framed(socket, 65535)) if (accept(reply)) return reply;
    throw new Error("the upstream closed the connection without an answer");
  } finally {
    socket.destroy();
  }
}

/** RFC 1035 §4.2.2: by TCP a message has its length in two bytes before it. */
export function frame(message: Buffer): Buffer {
  const length = Buffer.alloc(2);
  length.writeUInt16BE(message.length, 0);
  return Buffer.concat([length, message]);
}

/** Until what was written is on its way, or never will be. */
export async function drained(socket: Socket): Promise<void> {
  await Promise.race([once(socket, "drain"), once(socket, "close")]);
}

/** The messages of a TCP stream. Throws when one is longer than `maxBytes`. */
export async function* framed(socket: Socket, maxBytes: number): AsyncGenerator<Buffer> {
  let rest = Buffer.alloc(0);
  for await (const chunk of socket as AsyncIterable<Buffer>) {
    rest = Buffer.concat([rest, chunk]);
    while (rest.length >= 2) {
      const length = rest.readUInt16BE(0);
      if (length > maxBytes) throw new RangeError(`a message of ${length} bytes`);
      if (rest.length < 2 + length) break;
      yield rest.subarray(2, 2 + length);
      rest = rest.subarray(2 + length);
    }
  }
}
