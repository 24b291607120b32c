import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { suite, test } from "node:test";
import { isAppError } from "../../../../src/base/errors.ts";
import { addressOf, substitute } from "../../../../src/host/net/cni.ts";

const template = JSON.parse(await readFile(new URL("../../../../cni/napd.conflist", import.meta.url), "utf8"));

suite("the network's configuration", () => {
  test("settings are put in with their types, and nothing is left open", () => {
    const values = {
      name: "napd0",
      bridge: "napd0",
      mtu: 1400,
      dataDir: "/d",
      subnet: "10.62.0.0/16",
      gateway: "10.62.0.1",
    };
    const list = substitute(template, values) as typeof template;
    assert.doesNotMatch(JSON.stringify(list), /</);
    const [bridge] = list.plugins;
    assert.deepEqual([bridge.bridge, bridge.mtu, bridge.ipMasq, bridge.isGateway], ["napd0", 1400, false, true]);
    assert.deepEqual(bridge.ipam.ranges, [[{ subnet: "10.62.0.0/16", gateway: "10.62.0.1" }]]);
  });
  test("a setting that does not exist is a mistake in the file", () => {
    assert.throws(
      () => substitute({ a: ["<nothing>"] }, {}),
      (e) => isAppError(e, "CONFIG"),
    );
  });
  test("text around a setting is no setting", () => assert.equal(substitute("a <b>", {}), "a <b>"));
});

suite("the address in an ADD result", () => {
  test("the IPv4 one, without its prefix", () => {
    assert.equal(addressOf({ ips: [{ address: "fd00::2/64" }, { address: "10.62.0.7/16" }] }), "10.62.0.7");
  });
  test("none is an error", () => {
    assert.throws(
      () => addressOf({ ips: [] }),
      (e) => isAppError(e, "HOST_COMMAND"),
    );
    assert.throws(
      () => addressOf({}),
      (e) => isAppError(e, "HOST_COMMAND"),
    );
  });
});
