import { randomInt } from "node:crypto";
import { createSocket, type RemoteInfo, type Socket as UdpSocket } from "node:dgram";
import { once } from "node:events";
import { createServer, type Server, type Socket } from "node:net";
import { AppError, messageOf } from "../../base/errors.ts";
import { withoutClusterSuffix } from "../../base/names.ts";
import { contains, parseSubnet } from "../../base/subnet.ts";
import { fit, flag, isAnswer, ownAnswer, type Query, rcode, readQuery, refusal } from "./dns-message.ts";
import { askByTcp, askByUdp, drained, frame, framed, parseUpstream, type Upstream } from "./dns-upstream.ts";

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

/** Forwards under way: of all clients, and of one, so that one function cannot take the service from the others. */
const maxForwards = 512;
const maxForwardsPerClient = 64;

/** Bytes of a query; real ones have at most some hundred. A TCP message could have 65535. */
const maxQueryBytes = 4096;
/** TCP connections: of all clients, and of one. */
const maxTcp = 256;
const maxTcpPerClient = 16;
/** Milliseconds that a TCP connection may be silent (RFC 7766 §6.2.3 wants "a few seconds"). */
const tcpIdleMs = 10_000;

/** Names of the gateway that images in the field have built in (contracts/api.md §5.3). */
const gatewayNames = new Set(["gateway", "gateway.openfaas"]);

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
    const answer = await this.#forward(message, query, client, by);
    // deployed while others were asked: a "no such name" of theirs may be remembered for a long time
    if (this.#isOurs(query)) return ownAnswer(query, this.#options.address);
    return answer ?? refusal(message, rcode.failure, query.question);
  }

  #isOurs({ name, class: kind }: Query): boolean {
    if (kind !== "IN") return false;
    const short = withoutClusterSuffix(name);
    if (gatewayNames.has(short)) return true;
    const [fn = "", namespace, ...more] = short.split(".");
    if (more.length > 0) return false;
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
