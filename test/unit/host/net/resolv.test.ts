import assert from "node:assert/strict";
import { utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { suite, test } from "node:test";
import type { Clock } from "../../../../src/base/clock.ts";
import {
  hostsText,
  isLoopback,
  nameservers,
  openHostResolvers,
  resolvConfText,
} from "../../../../src/host/net/resolv.ts";
import { tmpDir } from "../../../support/tmp.ts";

const nextTurns = () => new Promise((resolve) => setTimeout(resolve, 50));

async function withFiles(...texts: (string | undefined)[]) {
  const tmp = await tmpDir();
  const files = texts.map((_, i) => join(tmp.path, `resolv-${i}`));
  let time = 0;
  let written = 1;
  const write = async (i: number, text: string) => {
    await writeFile(files[i]!, text);
    await utimes(files[i]!, written, written++); // two writes within one tick of the file system's clock are two changes
  };
  for (const [i, text] of texts.entries()) if (text !== undefined) await write(i, text);
  const clock: Clock = { now: () => time, monotonic: () => time, sleep: async () => {} };
  const resolvers = await openHostResolvers({ clock, own: ["10.62.0.1"], files });
  return {
    resolvers,
    write,
    pass: (ms: number) => (time += ms),
    [Symbol.asyncDispose]: () => tmp[Symbol.asyncDispose](),
  };
}

suite("reading resolv.conf", () => {
  test("nameserver lines in order, once each, nothing else", () => {
    const text = `# nameserver 192.0.2.9
nameserver 192.0.2.1
  nameserver\t192.0.2.2 # with a comment
nameserver 192.0.2.1
nameserver fe80::1%eth0
nameserver example.com
search example.com
options nameserver 192.0.2.8`;
    assert.deepEqual(nameservers(text), ["192.0.2.1", "192.0.2.2", "fe80::1%eth0"]);
  });
  test("loopback", () => {
    for (const yes of ["127.0.0.1", "127.0.0.53", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::"])
      assert.ok(isLoopback(yes), yes);
    for (const no of ["10.0.0.1", "128.0.0.1", "fe80::1", "2001:db8::1"]) assert.ok(!isLoopback(no), no);
  });
});

suite("the host's resolvers", () => {
  test("are those of the first file that has some", async () => {
    await using host = await withFiles("nameserver 192.0.2.1\n", "nameserver 192.0.2.2\n");
    assert.deepEqual(host.resolvers(), ["192.0.2.1"]);
  });
  test("behind a local stub, those of systemd-resolved", async () => {
    await using host = await withFiles("nameserver 127.0.0.53\noptions edns0\n", "nameserver 192.0.2.2\n");
    assert.deepEqual(host.resolvers(), ["192.0.2.2"]);
  });
  test("never loopback, never ourselves, also when nothing is left", async () => {
    await using host = await withFiles("nameserver 127.0.0.1\nnameserver 10.62.0.1\nnameserver ::1\n", undefined);
    assert.deepEqual(host.resolvers(), []);
  });
  test("follow a change, but look no more often than every 5 s", async () => {
    await using host = await withFiles("nameserver 192.0.2.1\n");
    await host.write(0, "nameserver 192.0.2.7\n");
    host.pass(4999);
    host.resolvers();
    await nextTurns();
    assert.deepEqual(host.resolvers(), ["192.0.2.1"]);
    host.pass(1);
    assert.deepEqual(host.resolvers(), ["192.0.2.1"], "it answers at once with what it has");
    await nextTurns();
    assert.deepEqual(host.resolvers(), ["192.0.2.7"]);
  });
});

suite("the functions' files", () => {
  test("resolv.conf", () => assert.equal(resolvConfText("10.62.0.1"), "nameserver 10.62.0.1\noptions ndots:1\n"));
  test("hosts, with and without a name of its own", () => {
    assert.equal(hostsText(), "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n");
    assert.match(hostsText("figlet-1"), /\n127\.0\.1\.1 figlet-1\n$/);
  });
});
