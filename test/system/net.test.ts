/**
 * The network of functions on a real machine: bridge, namespaces, CNI plugins, firewall rules and DNS together.
 * Traffic goes to loopback and to namespaces made here. Each run has a bridge name and subnets of its own.
 */
import assert from "node:assert/strict";
import { randomBytes, randomInt } from "node:crypto";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { readdir, readFile, stat, unlink, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { after, before, suite, test } from "node:test";
import * as dns from "dns-packet";
import { isAppError } from "../../src/base/errors.ts";
import { execute, run } from "../../src/host/exec.ts";
import { ensureBridge, teardownBridge } from "../../src/host/net/bridge.ts";
import { Cni } from "../../src/host/net/cni.ts";
import { startDns } from "../../src/host/net/dns.ts";
import { ensureFirewall, teardownFirewall } from "../../src/host/net/firewall.ts";
import * as netns from "../../src/host/net/netns.ts";
import { freePort } from "../support/free-port.ts";
import { type TmpDir, tmpDir } from "../support/tmp.ts";

const bridge = `nt${randomBytes(4).toString("hex")}`;
const third = randomInt(256);
const subnet = `10.201.${third}.0/24`;
const gateway = `10.201.${third}.1`;
const gatewayPort = 8080;
const firewall = { bridge, subnet, address: gateway, gatewayPort };
const dir = () => tmp.path;
let tmp: TmpDir;

const openCni = () => Cni.open({ stateDir: dir(), bridge, subnet, gateway, mtu: 1400 });
const name = (suffix: string) => `${bridge}-${suffix}`;
const leases = async () =>
  (await readdir(`${dir()}/cni/ipam/${bridge}`)).filter((file) => file.startsWith("10.")).sort();
const links = async () => (await readdir("/sys/class/net")).sort();
const ports = async () => readdir(`/sys/class/net/${bridge}/brif`);
const rules = async () => (await run("iptables-save", [])).split("\n").filter((line) => line.includes(bridge));

/** A namespace on the bridge that is taken away at the end of the scope, as a replica would be. */
async function attach(cni: Cni, id: string) {
  await netns.create(id);
  const { address } = await cni.add(id, id);
  return {
    id,
    address,
    async [Symbol.asyncDispose]() {
      await cni.del(id, id);
      await netns.remove(id);
    },
  };
}

/** Runs a script of Node inside the namespace; `done(x)` prints x and ends. */
async function inside(ns: string, script: string): Promise<string> {
  const text = `const done = (x) => { console.log(String(x)); process.exit(0); }; ${script}`;
  return (await run("ip", ["netns", "exec", ns, process.execPath, "-e", text], { timeoutMs: 20_000 })).trim();
}

/** How a TCP connect from inside ends: "open", "ECONNREFUSED", or "silence" after 400 ms. */
const connectFrom = (ns: string, host: string, port: number) =>
  inside(
    ns,
    `const s = require("node:net").connect(${port}, "${host}"); setTimeout(() => done("silence"), 400);
     s.on("connect", () => done("open")).on("error", (e) => done(e.code));`,
  );

/** A TCP server inside the namespace that answers with the address it sees. */
async function serveIn(ns: string, port: number): Promise<AsyncDisposable> {
  const stop = new AbortController();
  const script = `require("node:net").createServer((s) => s.on("error", () => {}).end(s.remoteAddress)).listen(${port}, "0.0.0.0")`;
  const running = run("ip", ["netns", "exec", ns, process.execPath, "-e", script], {
    signal: stop.signal,
    timeoutMs: 60_000,
  }).catch(() => {});
  for (let i = 0; i < 100; i++) if ((await connectFrom(ns, "127.0.0.1", port)) === "open") break;
  return {
    async [Symbol.asyncDispose]() {
      stop.abort();
      await running;
    },
  };
}

async function listenOn(address: string, port: number): Promise<AsyncDisposable> {
  const server = createServer((socket) => socket.on("error", () => {}).end("hello"));
  server.listen(port, address);
  await once(server, "listening");
  return { [Symbol.asyncDispose]: () => new Promise<void>((done) => void server.close(() => done())) };
}

const root = process.getuid?.() === 0 && existsSync("/sys/class/net");

suite("network", { skip: !root && "needs root" }, () => {
  let linksBefore: string[];

  before(async () => {
    tmp = await tmpDir();
    linksBefore = await links();
    assert.equal(await ensureBridge({ name: bridge, subnet, mtu: 1400 }), gateway);
  });

  after(async () => {
    for (const left of await netns.list(bridge)) await netns.remove(left);
    await teardownFirewall(bridge);
    await teardownBridge(bridge);
    await tmp[Symbol.asyncDispose]();
    assert.deepEqual(await netns.list(bridge), []);
    assert.deepEqual(await rules(), []);
    // Others may add links of theirs meanwhile; none of ours may stay.
    const ours = (await links()).filter((link) => !linksBefore.includes(link) && (link === bridge || made.has(link)));
    assert.deepEqual(ours, []);
  });
  const made = new Set<string>();

  suite("bridge", () => {
    const show = async () => JSON.parse(await run("ip", ["-json", "-4", "address", "show", "dev", bridge]))[0];

    test("has its address, is up and has no IPv6; the kernel forwards", async () => {
      const link = await show();
      assert.deepEqual([link.addr_info[0].local, link.addr_info[0].prefixlen, link.mtu], [gateway, 24, 1400]);
      assert.ok(link.flags.includes("UP"));
      assert.equal((await readFile("/proc/sys/net/ipv4/ip_forward", "utf8")).trim(), "1");
      const ipv6 = `/proc/sys/net/ipv6/conf/${bridge}/disable_ipv6`;
      if (existsSync(ipv6)) assert.equal((await readFile(ipv6, "utf8")).trim(), "1");
    });

    test("somebody can listen on it at once", async () => {
      await using server = await listenOn(gateway, gatewayPort);
      assert.ok(server);
    });

    test("is repaired, and left alone when well", async () => {
      await run("ip", ["addr", "flush", "dev", bridge]);
      await run("ip", ["addr", "add", `10.202.${third}.1/24`, "dev", bridge]);
      await run("ip", ["link", "set", bridge, "down"]);
      await ensureBridge({ name: bridge, subnet, mtu: 1400 });
      await ensureBridge({ name: bridge, subnet, mtu: 1400 });
      const link = await show();
      assert.deepEqual(
        link.addr_info.map((a: { local: string }) => a.local),
        [gateway],
      );
      assert.ok(link.flags.includes("UP"));
    });

    test("another kind of interface of that name is refused", async () => {
      await assert.rejects(ensureBridge({ name: "lo", subnet }), (e) => isAppError(e, "CONFIG"));
    });
  });

  suite("namespaces", () => {
    const ns = name("ns");

    test("come and go, twice without complaint", async () => {
      await netns.create(ns);
      assert.ok(await netns.isLive(netns.path(ns)));
      assert.deepEqual(await netns.list(name("n")), [ns]);
      await assert.rejects(netns.create(ns), (e) => isAppError(e, "HOST_COMMAND"));
      await netns.remove(ns);
      await netns.remove(ns);
      assert.ok(!(await netns.isLive(netns.path(ns))));
      assert.deepEqual(await netns.list(name("n")), []);
    });

    test("an empty file in the place of one is not live, and is replaced", async () => {
      await netns.create(name("other")); // makes /run/netns
      await writeFile(netns.path(ns), "");
      assert.ok(!(await netns.isLive(netns.path(ns))));
      await netns.create(ns);
      assert.ok(await netns.isLive(netns.path(ns)));
      await netns.remove(ns);
      await netns.remove(name("other"));
    });

    test("a name that is a path is refused", async () => {
      for (const bad of ["../x", "a/b", "", "-a"])
        await assert.rejects(netns.create(bad), (e) => isAppError(e, "INTERNAL"));
    });
  });

  suite("attaching", () => {
    test("gives an address, lo and eth0, an isolated port, and takes all of it back", async () => {
      const cni = await openCni();
      const id = name("a");
      {
        await using fn = await attach(cni, id);
        for (const port of await ports()) made.add(port);
        assert.match(fn.address, new RegExp(`^10\\.201\\.${third}\\.\\d+$`));
        assert.deepEqual([...cni.stored()], [[id, { address: fn.address, netns: id }]]);
        assert.deepEqual(await leases(), [fn.address]);
        const shown = JSON.parse(await run("ip", ["-n", id, "-json", "address"]));
        assert.ok(shown.every((link: { flags: string[] }) => link.flags.includes("UP")));
        assert.deepEqual(
          shown.map((link: { ifname: string }) => link.ifname),
          ["lo", "eth0"],
        );
        assert.equal(shown[1].mtu, 1400);
        const [port, ...more] = await ports();
        assert.deepEqual(more, []);
        assert.equal((await readFile(`/sys/class/net/${port}/brport/isolated`, "utf8")).trim(), "1");
        await using server = await serveIn(id, 8080);
        assert.ok(server);
        await run("ip", ["netns", "exec", id, "true"]);
        assert.equal(await connectFromHost(fn.address, 8080), gateway);
      }
      assert.deepEqual([await leases(), await ports(), [...cni.stored()]], [[], [], []]);
      assert.ok(!existsSync(`${dir()}/cni/${id}.json`));
    });

    test("twice gives the same address and disturbs nothing", async () => {
      const cni = await openCni();
      await using fn = await attach(cni, name("b"));
      assert.equal((await cni.add(fn.id, fn.id)).address, fn.address);
      assert.deepEqual(await leases(), [fn.address]);
    });

    test("a restarted daemon knows what is attached", async () => {
      await using fn = await attach(await openCni(), name("c"));
      const again = await openCni();
      assert.deepEqual(again.stored().get(fn.id), { address: fn.address, netns: fn.id });
      assert.equal((await again.add(fn.id, fn.id)).address, fn.address);
      assert.equal((await stat(`${dir()}/cni/${fn.id}.json`)).mode & 0o777, 0o600);
      await again.del(fn.id, fn.id);
      assert.deepEqual(await leases(), []);
    });

    test("after a reboot, with the namespace gone, the old address is given back first", async () => {
      const cni = await openCni();
      const id = name("d");
      await netns.create(id);
      await cni.add(id, id);
      await netns.remove(id);
      await using fn = await attach(cni, id);
      assert.deepEqual(await leases(), [fn.address]);
    });

    test("detaching twice, without a namespace, or what never was attached", async () => {
      const cni = await openCni();
      const id = name("e");
      await netns.create(id);
      await cni.add(id, id);
      await netns.remove(id);
      await cni.del(id, id);
      await cni.del(id, id);
      await cni.del(name("never"), name("never"));
      assert.deepEqual(await leases(), []);
    });

    test("ten at once get ten addresses", async () => {
      const cni = await openCni();
      await using all = new AsyncDisposableStack();
      const made = await Promise.all(Array.from({ length: 10 }, (_, i) => attach(cni, name(`m${i}`))));
      for (const fn of made) all.use(fn);
      assert.equal(new Set(made.map((fn) => fn.address)).size, 10);
    });

    test("a failed ADD leaves nothing and says what the plugin said", async () => {
      const cni = await openCni();
      await assert.rejects(
        cni.add(name("f"), name("no-such-ns")),
        (e) => isAppError(e, "HOST_COMMAND") && /CNI ADD/.test(e.message),
      );
      assert.deepEqual([await leases(), [...cni.stored()]], [[], []]);
    });

    test("an aborted one too, whenever that comes", async () => {
      const cni = await openCni();
      const id = name("g");
      await netns.create(id);
      let aborted = 0;
      for (const ms of [0, 3, 6, 9, 12]) {
        const abort = new AbortController();
        const adding = cni.add(id, id, abort.signal);
        setTimeout(() => abort.abort(new Error("enough")), ms);
        await adding.then(
          () => cni.del(id, id), // was faster
          (e) => {
            assert.match(String(e), /enough/);
            aborted++;
          },
        );
        assert.deepEqual([await leases(), [...cni.stored()]], [[], []]);
      }
      assert.ok(aborted > 0);
      await netns.remove(id);
    });

    test("a sweep frees what is nobody's and leaves what lives", async () => {
      const cni = await openCni();
      await using alive = await attach(cni, name("h"));
      const dead = name("i");
      await netns.create(dead);
      await cni.add(dead, dead);
      await netns.remove(dead);
      // Killed between the plugin's end and the storing of its result: a lease without a result.
      const halfMade = name("j");
      await netns.create(halfMade);
      await cni.add(halfMade, halfMade);
      await unlink(`${dir()}/cni/${halfMade}.json`);
      const restarted = await openCni();
      const released = await restarted.sweep(new Set([alive.id]));
      assert.deepEqual(released.sort(), [dead, halfMade]);
      assert.deepEqual(await leases(), [alive.address]);
      await netns.remove(halfMade);
    });

    test("a sweep does not touch an ADD that is under way", async () => {
      const cni = await openCni();
      const id = name("k");
      let adding = true;
      const sweeping = (async () => {
        while (adding) {
          const released = await cni.sweep(new Set());
          if (adding) assert.deepEqual(released, []);
        }
      })();
      const attached = await attach(cni, id).finally(() => {
        adding = false;
      });
      await using fn = attached;
      assert.equal(fn.id, id);
      await sweeping;
    });

    test("without plugins it says what to install", async () => {
      await assert.rejects(
        Cni.open({ stateDir: dir(), bridge, subnet, gateway, pluginDirs: ["/nowhere"] }),
        (e) => isAppError(e, "HOST_LACKS") && e.message.includes("containernetworking-plugins"),
      );
    });

    test("an id that is a path is refused", async () => {
      const cni = await openCni();
      await assert.rejects(cni.add("../x", "x"), (e) => isAppError(e, "INTERNAL"));
    });
  });

  suite("what a function can reach", () => {
    // A namespace beyond the host, as the Internet is: 10.202.x.2, and an address such as clouds give credentials at.
    const outside = name("out");
    const hostEnd = `${bridge}o`;
    const outsideAddress = `10.202.${third}.2`;
    const linkLocal = `169.254.${third}.77`;

    before(async () => {
      await ensureFirewall(firewall);
      await netns.create(outside);
      await netns.loopbackUp(outside);
      await run("ip", ["link", "add", hostEnd, "type", "veth", "peer", "name", "eth0", "netns", outside]);
      made.add(hostEnd);
      await run("ip", ["addr", "add", `10.202.${third}.1/30`, "dev", hostEnd]);
      await run("ip", ["link", "set", hostEnd, "up"]);
      await run("ip", ["-n", outside, "addr", "add", `${outsideAddress}/30`, "dev", "eth0"]);
      await run("ip", ["-n", outside, "addr", "add", `${linkLocal}/32`, "dev", "eth0"]);
      await run("ip", ["-n", outside, "link", "set", "eth0", "up"]);
      await run("ip", ["-n", outside, "route", "add", subnet, "via", `10.202.${third}.1`]);
      await run("ip", ["route", "add", `${linkLocal}/32`, "dev", hostEnd]);
    });
    after(async () => {
      await netns.remove(outside);
      await execute("ip", ["link", "del", hostEnd]);
    });

    test("the gateway's port and nothing else of the host", async () => {
      await using fn = await attach(await openCni(), name("r"));
      const otherPort = await freePort();
      await using onBridge = await listenOn(gateway, gatewayPort);
      await using onAll = await listenOn("0.0.0.0", otherPort);
      assert.ok(onBridge && onAll);
      assert.equal(await connectFrom(fn.id, gateway, gatewayPort), "open");
      assert.equal(await connectFrom(fn.id, gateway, otherPort), "silence");
      assert.equal(await connectFrom(fn.id, `10.202.${third}.1`, otherPort), "silence");
      assert.equal(await connectFrom(fn.id, `10.202.${third}.1`, gatewayPort), "silence");
    });

    test("the world, under the host's address; but the world not the function", async () => {
      await using fn = await attach(await openCni(), name("s"));
      await using server = await serveIn(outside, 80);
      await using own = await serveIn(fn.id, 8080);
      assert.ok(server && own);
      const seen = await inside(
        fn.id,
        `const s = require("node:net").connect(80, "${outsideAddress}"); s.setTimeout(3000, () => done("silence"));
         s.on("data", done).on("error", (e) => done(e.code));`,
      );
      assert.match(seen, new RegExp(`10\\.202\\.${third}\\.1$`));
      assert.equal(await connectFrom(outside, fn.address, 8080), "silence");
      assert.equal(await connectFromHost(fn.address, 8080), gateway);
    });

    test("no link-local address, where clouds keep credentials", async () => {
      await using fn = await attach(await openCni(), name("t"));
      await using server = await serveIn(outside, 80);
      assert.ok(server);
      assert.equal(await connectFromHost(linkLocal, 80), `10.202.${third}.1`, "the host itself can");
      assert.equal(await connectFrom(fn.id, linkLocal, 80), "silence");
    });

    test("no other function, neither by IP nor below it", async () => {
      const cni = await openCni();
      await using one = await attach(cni, name("u"));
      await using two = await attach(cni, name("v"));
      await using server = await serveIn(two.id, 8080);
      assert.ok(server);
      assert.match(await connectFrom(one.id, two.address, 8080), /silence|EHOSTUNREACH/);
      // By the gateway's way round: the host would send it back to where it came from.
      await run("ip", ["-n", one.id, "route", "add", `${two.address}/32`, "via", gateway]);
      assert.equal(await connectFrom(one.id, two.address, 8080), "silence");
      // Nobody else's Ethernet address has ever been seen.
      const neighbours = await run("ip", ["-n", one.id, "neigh", "show", two.address]);
      assert.doesNotMatch(neighbours, /lladdr/);
      assert.equal(await connectFromHost(two.address, 8080), gateway, "while the gateway can");
    });

    test("DNS on the bridge: the gateway, functions, and the world through the host's resolvers", async () => {
      const upstreamPort = await freePort();
      const upstream = createSocket("udp4").bind(upstreamPort, "127.0.0.1");
      upstream.on("message", (message, client) => {
        const { id = 0, questions = [] } = dns.decode(message);
        const answers = [{ type: "A" as const, name: questions[0]!.name, data: "192.0.2.33" }];
        upstream.send(dns.encode({ type: "response", id, questions, answers }), client.port, client.address);
      });
      await once(upstream, "listening");
      await using fn = await attach(await openCni(), name("w"));
      {
        await using server = await startDns({
          address: gateway,
          subnet,
          isFunction: (fnName) => fnName === "figlet",
          upstreams: () => [`127.0.0.1:${upstreamPort}`],
        });
        assert.ok(server);
        const resolve = (host: string) =>
          inside(
            fn.id,
            `const { Resolver } = require("node:dns").promises; const r = new Resolver({ timeout: 2000, tries: 1 });
             r.setServers(["${gateway}"]); r.resolve4("${host}").then(done, (e) => done(e.code));`,
          );
        assert.equal(await resolve("gateway.openfaas"), gateway);
        assert.equal(await resolve("figlet"), gateway);
        assert.equal(await resolve("www.example.com"), "192.0.2.33");
      }
      upstream.close();
    });
  });

  suite("firewall", () => {
    test("is there once however often it is ensured, follows a new port, and goes", async () => {
      await ensureFirewall(firewall);
      await Promise.all([ensureFirewall(firewall), ensureFirewall(firewall)]);
      const first = await rules();
      await ensureFirewall(firewall);
      assert.deepEqual(await rules(), first);
      assert.equal(first.filter((line) => line.startsWith("-A FORWARD")).length, 2);
      await ensureFirewall({ ...firewall, gatewayPort: 9999 });
      const text = (await rules()).join("\n");
      assert.match(text, /--dport 9999/);
      assert.doesNotMatch(text, /--dport 8080/);
      await teardownFirewall(bridge);
      await teardownFirewall(bridge);
      assert.deepEqual(await rules(), []);
    });
  });
});

/** What a server at that address sends to the host. */
async function connectFromHost(host: string, port: number): Promise<string> {
  const script = `const s = require("node:net").connect(${port}, "${host}"); s.setTimeout(3000, () => { throw 0; });
    s.on("data", (d) => { console.log(String(d)); process.exit(0); });`;
  return (await run(process.execPath, ["-e", script])).trim();
}
