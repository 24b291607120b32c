import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { suite, test } from "node:test";
import { parse } from "ini";
import { type Config, loadConfig, sampleConfig } from "../../src/config.ts";
import { liveSettings, planReload, update } from "../../src/live.ts";
import { type Setting, settings } from "../../src/settings.ts";
import { tmpDir } from "../support/tmp.ts";

const configOf = (...flags: string[]) =>
  loadConfig({ file: "/nonexistent", fileIsRequired: false, environment: {}, flags });

/** Names of the settings that `read` looks at. */
function lookedAt(config: Config, read: (config: Config) => unknown): string[] {
  const seen = new Set<string>();
  const watch = (section: string, values: object) =>
    new Proxy(values, {
      get(target, key) {
        seen.add(`${section}.${String(key)}`);
        return Reflect.get(target, key);
      },
    });
  read(
    Object.fromEntries(Object.entries(config).map(([section, values]) => [section, watch(section, values)])) as never,
  );
  return [...seen].sort();
}

suite("settings that a reload changes", () => {
  test("are those that the table marks, and no others", () => {
    const marked = Object.entries(settings).flatMap(([section, entries]) =>
      Object.entries(entries as Record<string, Setting<unknown>>).flatMap(([key, { isLive }]) =>
        isLive ? [`${section}.${key}`] : [],
      ),
    );
    assert.deepEqual(lookedAt(configOf(), liveSettings), marked.sort());
  });

  test("reach whoever holds their group", () => {
    const live = liveSettings(configOf());
    const { defaults, logs, gateway } = live;
    update(live, configOf("calls.max_inflight=3", "logs.max_file=1Mi", "gateway.keep_alive=5s", "log.level=debug"));
    assert.equal(defaults.limits.maxInFlight, 3);
    assert.equal(logs.maxFileBytes, 2 ** 20);
    assert.equal(gateway.keepAliveMs, 5000);
    assert.equal(live.level, "debug");
  });

  const rows: [says: string, before: string[], after: string[], changed: string[], restart: string[]][] = [
    ["nothing that stays", ["log.level=warn"], ["log.level=warn"], [], []],
    ["the same in other words", ["gateway.keep_alive=60s"], ["gateway.keep_alive=1m"], [], []],
    ["one that is live", [], ["scale.idle=5m"], ["scale.idle"], []],
    ["one that is not", [], ["gateway.listen=:9000"], [], ["gateway.listen"]],
    ["one that is not set any more", ["log.level=warn"], [], ["log.level"], []],
    ["registries", [], ["registries.r.lan=plain-http"], ["registries"], []],
    ["routes", [], ["routes.a.example=f"], [], ["routes"]],
    ["several", [], ["dns.servers=9.9.9.9", "logs.min_free=1Gi"], ["logs.min_free"], ["dns.servers"]],
  ];
  for (const [says, before, after, changed, restart] of rows)
    test(`a reload says of ${says}: ${[...changed, ...restart].join(" and ") || "nothing"}`, () => {
      const plan = planReload(configOf(...before), configOf(...after));
      assert.deepEqual({ changed: plan.changed, restart: plan.restart }, { changed, restart });
    });

  test("those that take a restart stay as they are, and are named again by the next reload", () => {
    const next = configOf("gateway.listen=:9000", "log.level=warn");
    const { config } = planReload(configOf(), next);
    assert.equal(config.gateway.listen.port, 8080);
    assert.equal(config.log.level, "warn");
    assert.deepEqual(planReload(config, next).restart, ["gateway.listen"]);
  });
});

suite("the sample file", () => {
  const read = async (text: string) => {
    await using tmp = await tmpDir();
    const file = `${tmp.path}/napd.ini`;
    await writeFile(file, text);
    return loadConfig({ file, fileIsRequired: true, environment: {}, flags: [] });
  };

  test("sets nothing", async () => assert.deepEqual(await read(sampleConfig()), configOf()));

  test("has every setting, and each with its default behind the semicolon", async () => {
    const uncommented = sampleConfig()
      .split("\n")
      .map((line) => line.replace(/^;(?=\w+ =)/, ""))
      .join("\n");
    assert.deepEqual(planReload(configOf(), await read(uncommented)), planReload(configOf(), configOf()));
    const found = Object.entries(parse(uncommented)).flatMap(([section, values]) =>
      Object.keys(values).map((key) => `${section}.${key}`),
    );
    const all = Object.entries(settings).flatMap(([section, entries]) =>
      Object.keys(entries).map((key) => `${section}.${key}`),
    );
    assert.deepEqual(found.sort(), all.sort());
  });
});
