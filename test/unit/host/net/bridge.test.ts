import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { isAppError } from "../../../../src/base/errors.ts";
import { contains, hostAddress, macOf, parseSubnet } from "../../../../src/base/subnet.ts";
import { defaultInterface, repairs } from "../../../../src/host/net/bridge.ts";

const settings = { name: "napd0", subnet: "10.62.0.0/16" };
const good = {
  ifname: "napd0",
  flags: ["BROADCAST", "UP"],
  mtu: 1500,
  address: "0a:58:0a:3e:00:01",
  addr_info: [
    { family: "inet", local: "10.62.0.1", prefixlen: 16 },
    { family: "inet6", local: "fe80::1", prefixlen: 64 },
  ],
};

suite("what has to be done to a bridge", () => {
  const rows: { says: string; found?: typeof good; mtu?: number; expect: string[] }[] = [
    {
      says: "there is none",
      expect: [
        "link add name napd0 address 0a:58:0a:3e:00:01 mtu 1500 type bridge",
        "addr add 10.62.0.1/16 dev napd0",
        "link set dev napd0 up",
      ],
    },
    { says: "all is well", found: good, expect: [] },
    { says: "it is down", found: { ...good, flags: ["BROADCAST"] }, expect: ["link set dev napd0 up"] },
    { says: "its address is gone", found: { ...good, addr_info: [] }, expect: ["addr add 10.62.0.1/16 dev napd0"] },
    {
      says: "it has the address of an earlier subnet",
      found: { ...good, addr_info: [{ family: "inet", local: "10.63.0.1", prefixlen: 16 }] },
      expect: ["addr del 10.63.0.1/16 dev napd0", "addr add 10.62.0.1/16 dev napd0"],
    },
    {
      says: "the prefix differs",
      found: { ...good, addr_info: [{ family: "inet", local: "10.62.0.1", prefixlen: 24 }] },
      expect: ["addr del 10.62.0.1/24 dev napd0", "addr add 10.62.0.1/16 dev napd0"],
    },
    {
      says: "its MAC follows its ports",
      found: { ...good, address: "02:00:00:00:00:01" },
      expect: ["link set dev napd0 address 0a:58:0a:3e:00:01"],
    },
    { says: "packets shall be smaller", found: good, mtu: 1400, expect: ["link set dev napd0 mtu 1400"] },
  ];
  for (const { says, found, mtu, expect } of rows)
    test(says, () => assert.deepEqual(repairs({ ...settings, ...(mtu && { mtu }) }, found), expect));
});

suite("subnets", () => {
  test("the host has the first address, and a MAC made of it", () => {
    assert.equal(hostAddress(parseSubnet("192.168.77.64/26")), "192.168.77.65");
    assert.equal(macOf(parseSubnet("192.168.77.64/26")), "0a:58:c0:a8:4d:41");
  });
  for (const bad of [
    "",
    "10.62.0.0",
    "10.62.0.0/",
    "10.62.0.0/7",
    "10.62.0.0/30",
    "10.62.0.1/16",
    "10.62.0/16",
    "fd00::/64",
    "10.62.0.0/1x",
    "10.62.0.0/16/2",
  ])
    test(`"${bad}" is refused`, () => {
      assert.throws(
        () => parseSubnet(bad),
        (e) => isAppError(e, "CONFIG"),
      );
    });
  test("membership", () => {
    const subnet = parseSubnet("172.16.128.0/17");
    for (const inside of ["172.16.128.0", "172.16.255.255", "::ffff:172.16.200.1"])
      assert.ok(contains(subnet, inside), inside);
    for (const outside of ["172.16.127.255", "172.17.128.0", "::1", "fd00::1", "", "x"])
      assert.ok(!contains(subnet, outside), outside);
  });
});

suite("the default route's interface", () => {
  const head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";
  const row = (link: string, destination: string, metric: number, mask: string) =>
    `${link}\t${destination}\t0101A8C0\t0003\t0\t0\t${metric}\t${mask}\t0\t0\t0\n`;
  test("the one with the lowest metric", () => {
    const text = head + row("wlan0", "00000000", 600, "00000000") + row("eth0", "00000000", 100, "00000000");
    assert.equal(defaultInterface(text + row("br0", "0000A8C0", 0, "00FFFFFF")), "eth0");
  });
  test("none on a machine without a way out", () => {
    assert.equal(defaultInterface(head), undefined);
    assert.equal(defaultInterface(head + row("br0", "0000A8C0", 0, "00FFFFFF")), undefined);
  });
});
