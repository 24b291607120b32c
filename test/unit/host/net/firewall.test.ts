import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { chainsOf, installation, isInstalled, removal } from "../../../../src/host/net/firewall.ts";

const settings = { bridge: "napd0", subnet: "10.62.0.0/16", address: "10.62.0.1", gatewayPort: 8080 };
const chains = chainsOf(settings);

/** What `iptables-save` prints once `text` was restored: enough of iptables to play install, spoil, install. */
function restore(saved: string, text: string): string {
  const tables = new Map<string, string[]>();
  const builtIn = { nat: ["POSTROUTING"], mangle: ["INPUT", "FORWARD"], filter: ["INPUT", "FORWARD"] };
  for (const [table, hooks] of Object.entries(builtIn))
    tables.set(
      table,
      hooks.map((hook) => `:${hook} ACCEPT [0:0]`),
    );
  let lines: string[] = [];
  for (const line of `${saved}\n${text}`.split("\n")) {
    const [verb = "", chain = "", ...rest] = line.split(" ");
    if (line.startsWith("*")) lines = tables.get(line.slice(1))!;
    else if (line.startsWith(":")) {
      const name = verb.slice(1);
      if (!lines.some((known) => known.startsWith(`:${name} `))) lines.push(line);
      else if (name.startsWith("NAPD-"))
        lines.splice(0, lines.length, ...lines.filter((l) => !l.startsWith(`-A ${name} `)));
    } else if (verb === "-A") lines.push(line);
    else if (verb === "-I")
      lines.splice(lines.findLastIndex((l) => l.startsWith(":")) + 1, 0, `-A ${chain} ${rest.slice(1).join(" ")}`);
    else if (verb === "-D") {
      const at = lines.indexOf(`-A ${line.slice(3)}`);
      assert.ok(at >= 0, `nothing to delete: ${line}`);
      lines.splice(at, 1);
    } else if (verb === "-X") {
      assert.ok(!lines.some((l) => l.startsWith(`-A ${chain} `) || l.endsWith(` -j ${chain}`)), `${chain} is in use`);
      lines.splice(0, lines.length, ...lines.filter((l) => !l.startsWith(`:${chain} `)));
    }
  }
  return [...tables].map(([table, all]) => `*${table}\n${all.join("\n")}\nCOMMIT\n`).join("");
}

const fresh = restore("", "");
const installed = restore(fresh, installation(chains, fresh));

suite("firewall rules", () => {
  test("names fit iptables' 28 characters with the longest bridge name", () => {
    for (const { name } of chainsOf({ ...settings, bridge: "fifteen-letters" })) assert.ok(name.length <= 28, name);
  });
  test("installing makes them installed", () => {
    assert.ok(!isInstalled(chains, ""));
    assert.ok(!isInstalled(chains, fresh));
    assert.ok(isInstalled(chains, installed));
  });
  test("and again changes nothing", () => {
    assert.equal(restore(installed, installation(chains, installed)), installed);
  });

  const spoilt: [string, string][] = [
    ["a rule is missing", installed.replace(/-A NAPD-XFWD-napd0 .*\n/, "")],
    ["a rule was added", installed.replace("COMMIT", "-A NAPD-NAT-napd0 -j ACCEPT\nCOMMIT")],
    ["the jump is gone", installed.replace("-A FORWARD -j NAPD-FWD-napd0\n", "")],
    ["the jump is there twice", installed.replace("-A FORWARD -j NAPD-FWD-napd0\n", "$&$&")],
    ["somebody put a rule before ours", installed.replace("-A FORWARD -j NAPD-FWD", "-A FORWARD -j DOCKER-USER\n$&")],
    ["the port is another", restore("", installation(chainsOf({ ...settings, gatewayPort: 81 }), ""))],
  ];
  for (const [says, saved] of spoilt)
    test(`${says}: seen and put right`, () => {
      assert.ok(!isInstalled(chains, saved));
      assert.ok(isInstalled(chains, restore(saved, installation(chains, saved))));
    });

  test("two instances stand side by side", () => {
    const other = chainsOf({ ...settings, bridge: "napd1", subnet: "10.63.0.0/16", address: "10.63.0.1" });
    const both = restore(installed, installation(other, installed));
    assert.ok(isInstalled(chains, both));
    assert.ok(isInstalled(other, both));
    assert.ok(isInstalled(chains, restore(both, removal(other, both))));
  });
  test("rules of others stay through install and removal", () => {
    const docker = restore(fresh, "*filter\n:DOCKER-USER - [0:0]\n-A FORWARD -j DOCKER-USER\nCOMMIT\n");
    const both = restore(docker, installation(chains, docker));
    assert.equal(restore(both, removal(chains, both)), docker);
  });
  test("removing leaves nothing, also where jumps were doubled, and from nothing removes nothing", () => {
    const doubled = installed.replace("-A FORWARD -j NAPD-FWD-napd0\n", "$&$&");
    assert.equal(restore(doubled, removal(chains, doubled)), fresh);
    assert.equal(removal(chains, fresh), "");
  });
  test("everything from the bridge that is not answered, DNS or the gateway is dropped", () => {
    const input = chains.find((chain) => chain.table === "mangle" && chain.hook === "INPUT")!;
    assert.equal(input.when, "-i napd0 ");
    assert.equal(input.rules.at(-1), "-j DROP");
    const ports = input.rules.flatMap(
      (rule) => / -p (\w+) .*--dport (\d+) -j RETURN$/.exec(rule)?.slice(1).join(" ") ?? [],
    );
    assert.deepEqual(ports, ["udp 53", "tcp 53", "tcp 8080"]);
  });
});
