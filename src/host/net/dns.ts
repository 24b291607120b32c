import { randomInt } from "node:crypto";
import { createSocket, type RemoteInfo, type Socket as UdpSocket } from "node:dgram";
import { once } from "node:events";
import { connect, createServer, isIP, isIPv6, type Server, type Socket } from "node:net";
import * as dns from "dns-packet";
import { AppError, messageOf } from "../../base/errors.ts";
import { contains, parseSubnet } from "../../base/subnet.ts";

export interface DnsOptions {
  /** Where to listen and, at the same time, what all names of ours resolve to: the bridge's address. */
  readonly address: string;
  /** @default 53 */
  readonly port?: number;
  /** Who is answered, such as `10.62.0.0/16`: to others on the machine's networks this is no resolver. */
  readonly subnet: string;
  /** Whether a function of that name is deployed; without a namespace, in the default one. */
  readonly isFunction: (name: string, namespace: string | undefined) => boolean;
  /** Whom to ask for everything else, best first: `ip`, `ip:port` or `[ip6]:port`. */
  readonly upstreams: () => readonly string[];
  /** Milliseconds to wait for each upstream. @default 2000 */
  readonly timeoutMs?: number;
}

/** Seconds that a program may remember our answers: short, as a function can be deleted. */
const ttl = 2;

/** Forwards under way: of all clients, and of one, so that one function cannot take the service from the others. */
const maxForwards = 512;
const maxForwardsPerClient = 64;

/** Bytes of a query; real ones have at most some hundred. A TCP message could have 65535. */
const maxQueryBytes = 4096;
/** Bytes that a client takes by UDP unless its query says more (RFC 1035 §4.2.1), and the most we believe (RFC 6891). */
const minUdpBytes = 512;
const maxUdpBytes = 4096;

/** TCP connections: of all clients, and of one. */
const maxTcp = 256;
const maxTcpPerClient = 16;
/** Milliseconds that a TCP connection may be silent (RFC 7766 §6.2.3 wants "a few seconds"). */
const tcpIdleMs = 10_000;

/** Names of the gateway that images in the field have built in (contracts/api.md §5.3). */
const gatewayNames = new Set(["gateway", "gateway.openfaas"]);
/** What Kubernetes appends to a service's name and namespace. */
const clusterSuffix = /\.svc(\.cluster\.local)?$/;

/** Header bits (RFC 1035 §4.1.1), in the two bytes behind the id. */
const flag = { response: 0x8000, authoritative: 0x0400, truncated: 0x0200, wanted: 0x0100, available: 0x0080 };
const opcodeBits = 0x7800;
const rcode = { success: 0, format: 1, failure: 2, notImplemented: 4, refused: 5 };

interface Query {
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
 * Starts the resolver of all functions, UDP and TCP. The gateway and every function resolve to the bridge's address,
 * where the gateway routes by the Host header: so a call from function to function wakes a sleeping one and is
 * balanced and counted. Everything else goes to `upstreams` as it came.
 * Throws LISTEN when the address is not free; afterwards nothing throws, clients get SERVFAIL.
 */
export async function startDns(options: DnsOptions): Promise<AsyncDisposable> {
  const server = new DnsServer(options);
  try {
    await server.listen();
  } catch (e) {
    await server[Symbol.asyncDispose]();
    const where = `${options.address}:${options.port ?? 53}`;
    throw new AppError("LISTEN", [where, messageOf(e), "network.subnet"], { cause: e });
  }
  return server;
}

class DnsServer implements AsyncDisposable {
  readonly #options: DnsOptions;
  readonly #isClient: (address: string) => boolean;
  readonly #udp: UdpSocket = createSocket("udp4");
  readonly #tcp: Server = createServer({ noDelay: true, allowHalfOpen: true });
  readonly #connections = new Set<Socket>();
  /** Forwards under way by client. */
  readonly #forwards = new Map<string, number>();
  #forwarding = 0;
  /** One for each question under way. Not one signal for all: what listens to a signal lives as long as it. */
  readonly #asking = new Set<AbortController>();
  #isClosing = false;

  constructor(options: DnsOptions) {
    this.#options = options;
    const subnet = parseSubnet(options.subnet);
    this.#isClient = (address) => contains(subnet, address);
    this.#tcp.maxConnections = maxTcp;
    this.#udp.on("message", (message, client) => void this.#onDatagram(message, client));
    this.#tcp.on("connection", (socket) => void this.#onConnection(socket));
  }

  async listen(): Promise<void> {
    const { address, port = 53 } = this.#options;
    this.#udp.bind(port, address);
    await once(this.#udp, "listening");
    this.#tcp.listen(port, address);
    await once(this.#tcp, "listening");
    // Such as ENOBUFS at the moment of a send: costs one answer, never the server.
    this.#udp.on("error", () => {});
    this.#tcp.on("error", () => {});
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosing = true;
    for (const asking of this.#asking) asking.abort(new Error("the DNS server is closing"));
    for (const socket of this.#connections) socket.destroy();
    await new Promise<void>((done) => this.#tcp.close(() => done()));
    await new Promise<void>((done) => {
      try {
        this.#udp.close(done);
      } catch {
        done(); // it was closed already
      }
    });
  }

  async #onDatagram(message: Buffer, client: RemoteInfo): Promise<void> {
    if (!this.#isClient(client.address) || message.length > maxQueryBytes) return;
    const answer = await this.#answer(message, client.address, "udp");
    if (answer && !this.#isClosing) this.#udp.send(answer, client.port, client.address, () => {});
  }

  /** Queries on a connection are answered in the order they come: a client that wants more opens more connections. */
  async #onConnection(socket: Socket): Promise<void> {
    const client = socket.remoteAddress ?? "";
    socket.on("error", () => {});
    const sameClient = [...this.#connections].filter((other) => other.remoteAddress === client).length;
    if (!this.#isClient(client) || sameClient >= maxTcpPerClient) return void socket.destroy();
    this.#connections.add(socket);
    socket.once("close", () => this.#connections.delete(socket));
    socket.setTimeout(tcpIdleMs, () => socket.destroy());
    try {
      for await (const message of framed(socket, maxQueryBytes)) {
        const answer = await this.#answer(message, client, "tcp");
        if (!answer) break;
        if (!socket.write(frame(answer))) await drained(socket);
      }
    } catch {
      // The client went away, or sent something that is no framed message.
    } finally {
      socket.destroySoon();
    }
  }

  /** The answer to a message; undefined for what is no query at all, such as an answer (or a loop would be possible). */
  async #answer(message: Buffer, client: string, by: "udp" | "tcp"): Promise<Buffer | undefined> {
    const query = readQuery(message);
    if (query === undefined) return undefined;
    if (typeof query === "number") return refusal(message, query);
    if (this.#isOurs(query)) return ownAnswer(query, this.#options.address);
    return (await this.#forward(message, query, client, by)) ?? refusal(message, rcode.failure, query.question);
  }

  #isOurs({ name, class: kind }: Query): boolean {
    if (kind !== "IN") return false;
    const short = name.replace(clusterSuffix, "");
    if (gatewayNames.has(short)) return true;
    const [fn = "", namespace, ...more] = short.split(".");
    // `NAME.svc.cluster.local` is not a form that anybody uses: the suffix stands behind a namespace.
    if (more.length > 0 || (namespace === undefined && short !== name)) return false;
    return this.#options.isFunction(fn, namespace);
  }

  async #forward(message: Buffer, query: Query, client: string, by: "udp" | "tcp"): Promise<Buffer | undefined> {
    const mine = this.#forwards.get(client) ?? 0;
    if (this.#forwarding >= maxForwards || mine >= maxForwardsPerClient) return undefined;
    this.#forwarding++;
    this.#forwards.set(client, mine + 1);
    try {
      return await this.#askUpstreams(message, query, by);
    } finally {
      this.#forwarding--;
      const left = this.#forwards.get(client)! - 1;
      if (left === 0) this.#forwards.delete(client);
      else this.#forwards.set(client, left);
    }
  }

  /** Asks one after the other until one answers; a failure it reports (SERVFAIL, REFUSED) is kept for the end. */
  async #askUpstreams(message: Buffer, query: Query, by: "udp" | "tcp"): Promise<Buffer | undefined> {
    let last: Buffer | undefined;
    for (const text of this.#options.upstreams()) {
      const upstream = parseUpstream(text);
      if (!upstream || this.#isSelf(upstream)) continue;
      const answer = await this.#ask(upstream, message, query, by).catch(() => undefined);
      if (this.#isClosing) return undefined;
      if (!answer) continue;
      last = answer;
      const code = answer.readUInt16BE(2) & 0xf;
      if (code !== rcode.failure && code !== rcode.refused && code !== rcode.notImplemented) break;
    }
    return last;
  }

  /** With a fresh random id from a socket of its own, so that nobody else can answer in the upstream's name. */
  async #ask(upstream: Upstream, message: Buffer, query: Query, by: "udp" | "tcp"): Promise<Buffer> {
    const ask = async (transport: typeof askByUdp): Promise<Buffer> => {
      const sent = Buffer.from(message);
      sent.writeUInt16BE(randomInt(65536), 0);
      const asking = new AbortController();
      const timer = setTimeout(() => asking.abort(new Error("no answer")), this.#options.timeoutMs ?? 2000);
      this.#asking.add(asking);
      try {
        const accept = (reply: Buffer) => isAnswer(reply, sent, query);
        const answer = Buffer.from(await transport(upstream, sent, accept, asking.signal));
        answer.writeUInt16BE(query.id, 0);
        return answer;
      } finally {
        clearTimeout(timer);
        this.#asking.delete(asking);
      }
    };
    if (by === "tcp") return ask(askByTcp);
    const answer = await ask(askByUdp);
    if ((answer.readUInt16BE(2) & flag.truncated) === 0) return fit(answer, query);
    // The upstream may have cut it for a limit of its own that is below the client's. If the whole does not fit
    // either, the client gets what the upstream left of it and comes again by TCP, if it can.
    const whole = await ask(askByTcp).catch(() => answer);
    return whole.length <= query.udpBytes ? whole : fit(answer, query);
  }

  #isSelf({ host, port }: Upstream): boolean {
    return host === this.#options.address && port === (this.#options.port ?? 53);
  }
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
function ownAnswer(query: Query, address: string): Buffer {
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
function refusal(message: Buffer, code: number, question: Buffer = Buffer.alloc(0)): Buffer {
  const header = Buffer.alloc(12);
  message.copy(header, 0, 0, 2);
  const flags = flag.response | flag.available | (message.readUInt16BE(2) & (flag.wanted | opcodeBits));
  header.writeUInt16BE(flags | code, 2);
  header.writeUInt16BE(question.length > 0 ? 1 : 0, 4);
  return Buffer.concat([header, question]);
}

/** Cuts an answer that is larger than the client takes down to its header and question, marked as truncated. */
function fit(answer: Buffer, query: Query): Buffer {
  if (answer.length <= query.udpBytes) return answer;
  const header = Buffer.alloc(12);
  answer.copy(header, 0, 0, 4);
  header.writeUInt16BE(header.readUInt16BE(2) | flag.truncated, 2);
  header.writeUInt16BE(1, 4);
  return Buffer.concat([header, query.question]);
}

/** Whether `reply` is the answer to `sent`: same id and the same question; letters may differ in case. */
function isAnswer(reply: Buffer, sent: Buffer, query: Query): boolean {
  if (reply.length < 12 || reply.readUInt16BE(0) !== sent.readUInt16BE(0)) return false;
  if ((reply.readUInt16BE(2) & flag.response) === 0) return false;
  // Errors may come without the question (RFC 1035 leaves it open, and some do).
  if (reply.readUInt16BE(4) === 0) return (reply.readUInt16BE(2) & 0xf) !== rcode.success;
  const question = reply.subarray(12, 12 + query.question.length);
  return question.toString("latin1").toLowerCase() === query.question.toString("latin1").toLowerCase();
}

interface Upstream {
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
function askByUdp(upstream: Upstream, message: Buffer, accept: Accept, signal: AbortSignal): Promise<Buffer> {
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

async function askByTcp(upstream: Upstream, message: Buffer, accept: Accept, signal: AbortSignal): Promise<Buffer> {
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
function frame(message: Buffer): Buffer {
  const length = Buffer.alloc(2);
  length.writeUInt16BE(message.length, 0);
  return Buffer.concat([length, message]);
}

/** Until what was written is on its way, or never will be. */
async function drained(socket: Socket): Promise<void> {
  await Promise.race([once(socket, "drain"), once(socket, "close")]);
}

/** The messages of a TCP stream. Throws when one is longer than `maxBytes`. */
async function* framed(socket: Socket, maxBytes: number): AsyncGenerator<Buffer> {
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
