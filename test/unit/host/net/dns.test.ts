import assert from "node:assert/strict";
import { createSocket, type Socket as UdpSocket } from "node:dgram";
import { once } from "node:events";
import { type AddressInfo, connect, createServer } from "node:net";
import { suite, test } from "node:test";
import * as dns from "dns-packet";
import { isAppError } from "../../../../src/base/errors.ts";
import { type DnsOptions, startDns } from "../../../../src/host/net/dns.ts";
import { readQuery } from "../../../../src/host/net/dns-message.ts";
import { parseUpstream } from "../../../../src/host/net/dns-upstream.ts";
import { freePort } from "../../../support/free-port.ts";

const address = "127.0.0.1";
type Reply = dns.DecodedPacket & { rcode: string };

/** A resolver to forward to. `answer` gives the records and the size it cuts UDP answers to. */
async function openUpstream(answer: (question: dns.Question, by: "udp" | "tcp") => dns.Packet | undefined) {
  const asked: string[] = [];
  const reply = (message: Buffer, by: "udp" | "tcp"): Buffer | undefined => {
    const query = dns.decode(message);
    asked.push(`${by} ${query.questions![0]!.type} ${query.questions![0]!.name}`);
    const packet = answer(query.questions![0]!, by);
    return packet && dns.encode({ type: "response", id: query.id!, questions: query.questions!, ...packet });
  };
  const tcp = createServer((socket) => {
    socket.on("error", () => {});
    socket.on("data", (data) => {
      const message = reply(data.subarray(2), "tcp");
      if (message) socket.write(Buffer.concat([Buffer.from([message.length >> 8, message.length & 255]), message]));
    });
  });
  tcp.listen(0, "127.0.0.2");
  await once(tcp, "listening");
  const { port } = tcp.address() as AddressInfo;
  const udp = createSocket("udp4");
  udp.on("message", (message, client) => {
    const answered = reply(message, "udp");
    if (answered) udp.send(answered, client.port, client.address);
  });
  udp.bind(port, "127.0.0.2");
  await once(udp, "listening");
  return {
    asked,
    text: `127.0.0.2:${port}`,
    async [Symbol.asyncDispose]() {
      udp.close();
      tcp.close();
    },
  };
}

async function open(options: Partial<DnsOptions> = {}) {
  const port = await freePort();
  const server = await startDns({
    address,
    port,
    subnet: "127.0.0.0/8",
    isFunction: (name, namespace) => name === "figlet" && (namespace === undefined || namespace === "dev"),
    upstreams: () => [],
    timeoutMs: 100,
    ...options,
  });
  return { port, [Symbol.asyncDispose]: () => server[Symbol.asyncDispose]() };
}

const query = (name: string, type: dns.RecordType = "A", more: dns.Packet = {}) =>
  dns.encode({ type: "query", id: 4711, flags: dns.RECURSION_DESIRED, questions: [{ name, type }], ...more });

async function send(port: number, message: Buffer, from = address, withinMs = 5000): Promise<Buffer> {
  const socket: UdpSocket = createSocket("udp4");
  try {
    socket.bind(0, from);
    socket.send(message, port, address);
    const [reply] = (await once(socket, "message", { signal: AbortSignal.timeout(withinMs) })) as [Buffer];
    return reply;
  } finally {
    socket.close();
  }
}

const ask = async (port: number, name: string, type?: dns.RecordType, more?: dns.Packet) =>
  dns.decode(await send(port, query(name, type, more))) as Reply;

async function askByTcp(port: number, ...messages: Buffer[]): Promise<Reply[]> {
  const socket = connect(port, address);
  for (const message of messages)
    socket.write(Buffer.concat([Buffer.from([message.length >> 8, message.length & 255]), message]));
  let rest = Buffer.alloc(0);
  const replies: Reply[] = [];
  for await (const chunk of socket as AsyncIterable<Buffer>) {
    rest = Buffer.concat([rest, chunk]);
    while (rest.length >= 2 && rest.length >= 2 + rest.readUInt16BE(0)) {
      replies.push(dns.decode(rest.subarray(2, 2 + rest.readUInt16BE(0))) as Reply);
      rest = rest.subarray(2 + rest.readUInt16BE(0));
    }
    if (replies.length === messages.length) break;
  }
  socket.destroy();
  return replies;
}

const addresses = (reply: Reply) =>
  reply.answers!.map((a) => (a.type === "A" ? `${a.name} ${a.ttl} ${a.data}` : a.type));

suite("names of ours", () => {
  for (const name of [
    "gateway",
    "gateway.openfaas",
    "gateway.openfaas.svc",
    "gateway.openfaas.svc.cluster.local",
    "figlet",
    "FigLet",
    "figlet.dev",
    "figlet.DEV.svc.cluster.local",
  ])
    test(`${name} is the bridge's address`, async () => {
      await using server = await open();
      const reply = await ask(server.port, name);
      assert.equal(reply.rcode, "NOERROR");
      assert.deepEqual(addresses(reply), [`${name} 2 ${address}`]);
      assert.deepEqual([reply.id, reply.flag_aa, reply.flag_ra, reply.flag_rd], [4711, true, true, true]);
    });

  for (const type of ["AAAA", "HTTPS", "MX", "TXT"] as dns.RecordType[])
    test(`${type} of a name of ours: it exists and has none`, async () => {
      await using server = await open();
      const reply = await ask(server.port, "figlet", type);
      assert.deepEqual([reply.rcode, reply.answers], ["NOERROR", []]);
    });

  for (const name of ["figlet.prod", "other", "a.figlet.dev", "figlet.svc.cluster.local", "figlet.dev.example.com"])
    test(`${name} is not`, async () => {
      await using server = await open();
      assert.equal((await ask(server.port, name)).rcode, "SERVFAIL"); // no upstream to ask
    });

  test("come and go with the function: at once, and also while others are asked", async () => {
    let deployed = false;
    const asked = Promise.withResolvers<void>();
    await using upstream = await openUpstream(() => {
      asked.resolve();
      return undefined;
    });
    await using server = await open({
      isFunction: (name) => deployed && name === "figlet",
      upstreams: () => [upstream.text],
      timeoutMs: 300,
    });
    const early = ask(server.port, "figlet");
    await asked.promise;
    deployed = true;
    assert.deepEqual(addresses(await ask(server.port, "figlet")), [`figlet 2 ${address}`]);
    assert.deepEqual(addresses(await early), [`figlet 2 ${address}`]);
    deployed = false;
    assert.equal((await ask(server.port, "figlet")).rcode, "SERVFAIL");
  });

  test("a namespace may be called svc", async () => {
    await using server = await open({ isFunction: (name, namespace) => name === "figlet" && namespace === "svc" });
    for (const name of ["figlet.svc", "figlet.svc.svc", "figlet.svc.svc.cluster.local"])
      assert.deepEqual(addresses(await ask(server.port, name)), [`${name} 2 ${address}`]);
  });

  test("by TCP as well, several on one connection", async () => {
    await using server = await open();
    const replies = await askByTcp(server.port, query("gateway"), query("figlet", "AAAA"), query("figlet.dev"));
    assert.deepEqual(replies.map(addresses), [[`gateway 2 ${address}`], [], [`figlet.dev 2 ${address}`]]);
  });
});

suite("everything else is forwarded", () => {
  test("the answer comes back under the client's id", async () => {
    await using upstream = await openUpstream(({ name }) => ({
      answers: [{ type: "A", name, ttl: 77, data: "192.0.2.1" }],
    }));
    await using server = await open({ upstreams: () => [upstream.text] });
    const reply = await ask(server.port, "Example.com");
    assert.deepEqual([reply.id, addresses(reply)], [4711, ["Example.com 77 192.0.2.1"]]);
    assert.deepEqual(upstream.asked, ["udp A Example.com"]);
  });

  test("a reverse lookup and an error too", async () => {
    await using upstream = await openUpstream(() => ({ flags: 3 }));
    await using server = await open({ upstreams: () => [upstream.text] });
    assert.equal((await ask(server.port, "1.2.0.192.in-addr.arpa", "PTR")).rcode, "NXDOMAIN");
  });

  test("the next upstream is asked when one is silent, fails or is nobody", async () => {
    await using silent = await openUpstream(() => undefined);
    await using failing = await openUpstream(() => ({ flags: 2 }));
    await using good = await openUpstream(({ name }) => ({ answers: [{ type: "A", name, data: "192.0.2.9" }] }));
    const nobody = `127.0.0.1:${await freePort()}`;
    await using server = await open({ upstreams: () => [nobody, silent.text, failing.text, good.text] });
    assert.deepEqual((await ask(server.port, "x.example")).answers?.length, 1);
    assert.deepEqual([silent.asked.length, failing.asked.length], [1, 1]);
  });

  test("SERVFAIL with the question when none answers", async () => {
    await using silent = await openUpstream(() => undefined);
    await using server = await open({ upstreams: () => [silent.text] });
    const reply = await ask(server.port, "x.example");
    assert.deepEqual([reply.rcode, reply.questions?.[0]?.name], ["SERVFAIL", "x.example"]);
  });

  test("never to itself", async () => {
    const self: string[] = [];
    await using server = await open({ upstreams: () => self, timeoutMs: 4000 });
    self.push(`${address}:${server.port}`);
    const before = performance.now();
    assert.equal((await ask(server.port, "x.example")).rcode, "SERVFAIL");
    assert.ok(performance.now() - before < 3000, "it did not wait for its own answer");
  });

  test("an answer to another question or with another id is not taken", async () => {
    let socket: UdpSocket | undefined;
    const port = await freePort();
    socket = createSocket("udp4").bind(port, "127.0.0.2");
    socket.on("message", (message, client) => {
      const { id = 0, questions = [] } = dns.decode(message);
      const forged = (change: dns.Packet, data: string) =>
        socket!.send(
          dns.encode({ type: "response", id, questions, answers: [{ type: "A", name: "x.example", data }], ...change }),
          client.port,
          client.address,
        );
      forged({ id: id ^ 1 }, "203.0.113.1");
      forged({ questions: [{ name: "y.example", type: "A" }] }, "203.0.113.2");
      forged({ type: "query" }, "203.0.113.3");
      forged({}, "192.0.2.1");
    });
    await once(socket, "listening");
    await using server = await open({ upstreams: () => [`127.0.0.2:${port}`] });
    assert.deepEqual(addresses(await ask(server.port, "x.example")), ["x.example 0 192.0.2.1"]);
    socket.close();
  });
});

suite("large answers", () => {
  const txt = (bytes: number) => [
    { type: "TXT" as const, name: "big.example", data: Array(bytes / 100).fill("x".repeat(99)) },
  ];
  const cutAt = (limit: number, bytes: number) =>
    openUpstream((_, by) =>
      by === "udp" && bytes > limit ? { flags: dns.TRUNCATED_RESPONSE } : { answers: txt(bytes) },
    );
  const edns = (udpPayloadSize: number): dns.Packet => ({
    additionals: [
      {
        type: "OPT",
        name: ".",
        udpPayloadSize,
        extendedRcode: 0,
        ednsVersion: 0,
        flags: 0,
        flag_do: false,
        options: [],
      },
    ],
  });

  test("what is too large for the client's UDP is marked as truncated, and complete by TCP", async () => {
    await using upstream = await cutAt(512, 2000);
    await using server = await open({ upstreams: () => [upstream.text] });
    const reply = await ask(server.port, "big.example", "TXT");
    assert.deepEqual([reply.flag_tc, reply.answers], [true, []]);
    const [whole] = await askByTcp(server.port, query("big.example", "TXT"));
    assert.deepEqual([whole!.flag_tc, whole!.answers?.length], [false, 1]);
  });
  test("what only the upstream found too large is fetched by TCP", async () => {
    await using upstream = await cutAt(1232, 2000);
    await using server = await open({ upstreams: () => [upstream.text] });
    const reply = await ask(server.port, "big.example", "TXT", edns(4096));
    assert.deepEqual([reply.flag_tc, reply.answers?.length], [false, 1]);
    assert.deepEqual(upstream.asked, ["udp TXT big.example", "tcp TXT big.example"]);
  });
  test("an upstream that does not cut is cut here", async () => {
    await using upstream = await cutAt(9999, 2000);
    await using server = await open({ upstreams: () => [upstream.text] });
    assert.equal((await ask(server.port, "big.example", "TXT")).flag_tc, true);
  });
});

suite("odd clients", () => {
  test("somebody outside the subnet gets nothing", async () => {
    await using server = await open({ subnet: "127.0.0.0/24" });
    assert.equal((await ask(server.port, "gateway")).rcode, "NOERROR");
    await assert.rejects(
      send(server.port, query("gateway"), "127.0.1.1", 300).then(() => "an answer"),
      { name: "AbortError" },
    );
  });

  test("what is no query gets an error or nothing, and the next query its answer", async () => {
    await using server = await open();
    const socket = createSocket("udp4");
    const junk = [
      Buffer.alloc(0),
      Buffer.from("hello"),
      Buffer.alloc(11, 255),
      dns.encode({ type: "response", id: 1, questions: [{ name: "gateway", type: "A" }] }),
      Buffer.alloc(5000),
    ];
    let replies = 0;
    socket.on("message", () => replies++);
    for (const message of junk) socket.send(message, server.port, address);
    assert.equal((await ask(server.port, "gateway")).rcode, "NOERROR");
    assert.equal(replies, 0);
    socket.close();
  });

  test("two questions and broken names are format errors, other operations not implemented", async () => {
    await using server = await open();
    const questions: dns.Question[] = [
      { name: "gateway", type: "A" },
      { name: "figlet", type: "A" },
    ];
    const two = dns.encode({ type: "query", id: 1, questions });
    const cut = query("gateway").subarray(0, 20);
    const pointer = Buffer.concat([query("gateway").subarray(0, 12), Buffer.from([0xc0, 0x0c, 0, 1, 0, 1])]);
    const update = query("gateway");
    update[2] = 5 << 3;
    const codes = [];
    for (const message of [two, cut, pointer, update])
      codes.push((dns.decode(await send(server.port, message)) as Reply).rcode);
    assert.deepEqual(codes, ["FORMERR", "FORMERR", "FORMERR", "NOTIMP"]);
  });

  test("a TCP client that sends nonsense is disconnected, others are served", async () => {
    await using server = await open();
    const socket = connect(server.port, address);
    socket.write(Buffer.from([0xff, 0xff, 1, 2, 3]));
    socket.resume();
    await once(socket, "close", { signal: AbortSignal.timeout(3000) });
    assert.equal((await askByTcp(server.port, query("gateway")))[0]!.rcode, "NOERROR");
  });

  test("one client cannot take all forwards", async () => {
    await using silent = await openUpstream(() => undefined);
    await using good = await openUpstream(({ name }) => ({ answers: [{ type: "A", name, data: "192.0.2.9" }] }));
    let upstream = silent.text;
    await using server = await open({ upstreams: () => [upstream], timeoutMs: 800 });
    const flood = Array.from({ length: 100 }, (_, i) => ask(server.port, `n${i}.example`));
    const refused = await Promise.race(flood); // at once, while 64 still wait
    assert.equal(refused.rcode, "SERVFAIL");
    upstream = good.text;
    const other = dns.decode(await send(server.port, query("x.example"), "127.0.0.3")) as Reply;
    assert.equal(other.answers?.length, 1);
    await Promise.all(flood);
    assert.equal(silent.asked.length, 64);
  });
});

suite("starting and stopping", () => {
  test("an address that is taken is a LISTEN error", async () => {
    await using server = await open();
    await assert.rejects(open({ port: server.port }), (e) => isAppError(e, "LISTEN"));
  });
  test("it stops at once with clients connected and forwards under way, and its port is free", async () => {
    await using silent = await openUpstream(() => undefined);
    const server = await open({ upstreams: () => [silent.text], timeoutMs: 60_000 });
    const idle = connect(server.port, address);
    await once(idle, "connect");
    idle.on("error", () => {});
    const socket = createSocket("udp4");
    socket.send(query("x.example"), server.port, address);
    while (silent.asked.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    await server[Symbol.asyncDispose]();
    await using again = await open({ port: server.port });
    assert.ok(again);
    socket.close();
    idle.destroy();
  });
});

suite("reading", () => {
  test("upstreams", () => {
    assert.deepEqual(parseUpstream("192.0.2.1"), { host: "192.0.2.1", port: 53 });
    assert.deepEqual(parseUpstream("192.0.2.1:5353"), { host: "192.0.2.1", port: 5353 });
    assert.deepEqual(parseUpstream("2001:db8::1"), { host: "2001:db8::1", port: 53 });
    assert.deepEqual(parseUpstream("[2001:db8::1]:5353"), { host: "2001:db8::1", port: 5353 });
    assert.deepEqual(parseUpstream("fe80::1%eth0"), { host: "fe80::1%eth0", port: 53 });
    for (const bad of ["", "example.com", "300.1.1.1", "1.2.3.4:99999"])
      assert.equal(parseUpstream(bad), undefined, bad);
  });
  test("no bytes make it throw", () => {
    const sample = query("some.name.example", "TXT");
    for (let round = 0; round < 5000; round++) {
      const message = Buffer.from(sample);
      for (let i = 0; i < 3; i++) message[Math.floor(Math.random() * message.length)] = Math.floor(Math.random() * 256);
      readQuery(message.subarray(0, Math.floor(Math.random() * (message.length + 1))));
    }
  });
});
