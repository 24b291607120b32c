import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { suite, test } from "node:test";
import { isAppError } from "../../src/base/errors.ts";
import { type Config, loadConfig, printConfig } from "../../src/config.ts";
import { tmpDir } from "../support/tmp.ts";

interface Given {
  ini?: string;
  environment?: NodeJS.ProcessEnv;
  flags?: string[];
}

async function load({ ini, environment = {}, flags = [] }: Given): Promise<Config> {
  await using dir = await tmpDir();
  const file = `${dir.path}/napd.ini`;
  if (ini !== undefined) await writeFile(file, ini);
  return loadConfig({ file, fileIsRequired: false, environment, flags });
}

/** Fails with CONFIG and a sentence that matches all of `texts`. */
function refuses(given: Given, ...texts: (string | RegExp)[]): Promise<void> {
  return assert.rejects(load(given), (e) => {
    assert.ok(isAppError(e, "CONFIG"), String(e));
    for (const text of texts)
      assert.ok(typeof text === "string" ? e.message.includes(text) : text.test(e.message), `${text}: ${e.message}`);
    return true;
  });
}

suite("where settings come from", () => {
  const ini = "[gateway]\nlisten = 1.1.1.1:1\n";
  const environment = { NAPD_GATEWAY_LISTEN: "2.2.2.2:2" };
  const flags = ["gateway.listen=3.3.3.3:3"];
  const rows: { says: string; given: Given; host: string }[] = [
    { says: "without any, the default holds", given: {}, host: "0.0.0.0" },
    { says: "the file sets", given: { ini }, host: "1.1.1.1" },
    { says: "the environment wins over the file", given: { ini, environment }, host: "2.2.2.2" },
    { says: "a flag wins over both", given: { ini, environment, flags }, host: "3.3.3.3" },
    { says: "the last flag wins", given: { flags: [...flags, "gateway.listen=4.4.4.4:4"] }, host: "4.4.4.4" },
  ];
  for (const { says, given, host } of rows)
    test(says, async () => assert.equal((await load(given)).gateway.listen.host, host));

  test("a setting with an underscore has it in the environment too", async () => {
    assert.equal((await load({ environment: { NAPD_FUNCTIONS_READY_TIMEOUT: "5s" } })).functions.ready_timeout, 5000);
  });

  test("variables that are none of ours are left alone", async () => {
    const environment = {
      PATH: "/bin",
      NAPD: "x",
      NAPD_FAILPOINTS: "x=exit",
      NAPD_START_DATA: "/x",
      napd_log_level: "x",
    };
    assert.deepEqual(await load({ environment }), await load({}));
  });

  test("a file that is asked for must be there", () => {
    const sources = { file: "/nowhere/napd.ini", environment: {}, flags: [] };
    assert.throws(() => loadConfig({ ...sources, fileIsRequired: true }), /\/nowhere\/napd\.ini/);
    loadConfig({ ...sources, fileIsRequired: false });
  });

  test("a file that cannot be read is refused, asked for or not", () => {
    const sources = { file: "/proc/self", environment: {}, flags: [] };
    assert.throws(() => loadConfig({ ...sources, fileIsRequired: false }), /\/proc\/self/);
  });

  test("comments, blanks around values and quotes do not matter", async () => {
    const config = await load({
      ini: '; all of it\n[log]\n# here\nlevel =   "debug"  \n\n[cgroup]\nparent=x ; the end\n',
    });
    assert.deepEqual([config.log.level, config.cgroup.parent], ["debug", "x"]);
  });

  test("nobody can change it afterwards", async () => {
    const config = (await load({})) as unknown as Record<string, Record<string, unknown>>;
    assert.throws(() => {
      config.log!.level = "debug";
    }, TypeError);
    assert.throws(() => {
      config.log = {};
    }, TypeError);
  });
});

suite("a setting that does not exist", () => {
  const rows: { says: string; given: Given; texts: string[] }[] = [
    { says: "in the file", given: { ini: "[gateway]\nlisen = x\n" }, texts: ["gateway.lisen", "napd.ini"] },
    { says: "in a section that does not exist", given: { ini: "[gatway]\nlisten = x\n" }, texts: ["gatway.listen"] },
    { says: "outside of a section", given: { ini: "listen = x\n" }, texts: ["listen", "outside"] },
    {
      says: "in a section within a section",
      given: { ini: "[gateway.listen]\nport = 1\n" },
      texts: ["gateway.listen"],
    },
    {
      says: "in the environment",
      given: { environment: { NAPD_GATEWAY_LISEN: "x" } },
      texts: ["gateway.lisen", "NAPD_GATEWAY_LISEN"],
    },
    { says: "in a flag", given: { flags: ["gateway.lisen=x"] }, texts: ["--set gateway.lisen"] },
    {
      says: "with the name of what every object has",
      given: { flags: ["gateway.constructor=x"] },
      texts: ["constructor"],
    },
    { says: "in a section with such a name", given: { flags: ["constructor.name=x"] }, texts: ["constructor.name"] },
    { says: "in a flag without a value", given: { flags: ["log.level"] }, texts: ["section.key=value"] },
  ];
  for (const { says, given, texts } of rows) test(`${says} is refused by name`, () => refuses(given, ...texts));
});

suite("a value that cannot be", () => {
  const rows: [name: string, value: string, rule: RegExp][] = [
    ["gateway.listen", "8080", /ADDRESS:PORT/],
    ["gateway.listen", "", /ADDRESS:PORT/],
    ["gateway.listen", "0.0.0.0:", /ADDRESS:PORT/],
    ["gateway.listen", "0.0.0.0:http", /ADDRESS:PORT/],
    ["gateway.listen", "0.0.0.0:65536", /65535/],
    ["gateway.upstream_timeout", "0", /above zero/],
    ["gateway.upstream_timeout", "-5s", /above zero/],
    ["gateway.upstream_timeout", "soon", /duration.*30s/],
    ["functions.grace", "", /duration/],
    ["containerd.socket", "containerd.sock", /absolute path/],
    ["paths.data", "./data", /absolute path/],
    ["network.subnet", "10.63.0.0", /IPv4 subnet/],
    ["network.subnet", "10.63.0.0/7", /from 8 to 29/],
    ["network.subnet", "10.63.0.0/30", /from 8 to 29/],
    ["network.subnet", "10.63.0.0/x", /IPv4 subnet/],
    ["network.subnet", "10.63.0.256/16", /IPv4 subnet/],
    ["network.subnet", "fd00::/64", /IPv4 subnet/],
    ["network.subnet", "10.63.7.1/16", /first address is 10\.63\.0\.0/],
    ["network.plugins", "/usr/lib/cni lib", /absolute paths/],
    ["dns.servers", "1.1.1.1 dns.example", /IPv4 addresses/],
    ["images.pull_policy", "always", /one of Always, IfNotPresent, Never/],
    ["functions.namespace", "Open_FaaS", /lower-case/],
    ["network.bridge", "a-name-too-long-for-an-interface", /at most 15/],
    ["cgroup.parent", "../up", /letters, digits/],
    ["containerd.snapshotter", "", /name of a snapshotter/],
    ["functions.starts_at_once", "0", /from 1 to 1000/],
    ["functions.pids_limit", "15", /from 16 to 1000000/],
    ["functions.pids_limit", "1000001", /from 16 to 1000000/],
    ["functions.pids_limit", "1.5", /whole number/],
    ["functions.pids_limit", "many", /whole number/],
    ["logs.max_file", "1Ki", /64Ki at least/],
    ["logs.max_total", "much", /an amount of bytes such as/],
    ["functions.on_stop", "", /keep, remove/],
    ["log.level", "loud", /one of trace/],
  ];
  for (const [name, value, rule] of rows) {
    const [section, key] = name.split(".");
    test(`${name} = ${value} is refused, saying where it stands and what must hold`, async () => {
      await refuses({ flags: [`${name}=${value}`] }, `--set ${name}`, `${name} = ${value}`, rule);
      const variable = `NAPD_${section}_${key}`.toUpperCase();
      await refuses({ environment: { [variable]: value } }, variable, name, rule);
      await refuses({ ini: `[${section}]\n${key} = ${value}\n` }, "napd.ini", name, rule);
    });
  }
});

suite("a value", () => {
  const rows: [flag: string, read: (c: Config) => unknown, value: unknown][] = [
    ["gateway.listen=:9000", (c) => c.gateway.listen, { host: "0.0.0.0", port: 9000 }],
    ["gateway.listen=127.0.0.1:0", (c) => c.gateway.listen, { host: "127.0.0.1", port: 0 }],
    ["gateway.listen=[::1]:8080", (c) => c.gateway.listen, { host: "::1", port: 8080 }],
    ["gateway.upstream_timeout=90", (c) => c.gateway.upstream_timeout, 90_000],
    ["gateway.upstream_timeout=1m30s", (c) => c.gateway.upstream_timeout, 90_000],
    ["network.subnet=192.168.128.0/17", (c) => c.network.subnet, "192.168.128.0/17"],
    ["dns.servers=1.1.1.1, 8.8.8.8", (c) => c.dns.servers, ["1.1.1.1", "8.8.8.8"]],
    ["dns.servers=", (c) => c.dns.servers, []],
    ["containerd.runc_root=", (c) => c.containerd.runc_root, ""],
    ["paths.run=/a=b", (c) => c.paths.run, "/a=b"],
    ["log.level= debug ", (c) => c.log.level, "debug"],
  ];
  for (const [flag, read, value] of rows)
    test(`${flag} means ${JSON.stringify(value)}`, async () =>
      assert.deepEqual(read(await load({ flags: [flag] })), value));
});

suite("a registry", () => {
  test("has mirrors in their order, plain HTTP and a CA", async () => {
    const ini = `[registries]
docker.io = mirror:https://one.example mirror:http://two.example:5000/
localhost:5000 = plain-http
registry.example.com = ca:/etc/ca.pem, mirror:https://three.example
`;
    assert.deepEqual((await load({ ini })).registries, [
      { host: "docker.io", mirrors: ["https://one.example", "http://two.example:5000"], plainHttp: false },
      { host: "localhost:5000", mirrors: [], plainHttp: true },
      { host: "registry.example.com", mirrors: ["https://three.example"], plainHttp: false, caFile: "/etc/ca.pem" },
    ]);
  });

  test("may be given by a flag, which replaces the file's", async () => {
    const ini = "[registries]\nr.example:5000 = mirror:https://one.example\n";
    const config = await load({ ini, flags: ["registries.r.example:5000=plain-http"] });
    assert.deepEqual(config.registries, [{ host: "r.example:5000", mirrors: [], plainHttp: true }]);
  });

  for (const word of ["mirror:one.example", "mirror:https://one.example/path", "http", "ca:relative.pem", "mirror:"])
    test(`with ${word} is refused, by host and word`, async () => {
      await refuses({ ini: `[registries]\nr.example = ${word}\n` }, "r.example", word, "napd.ini");
      await refuses({ flags: [`registries.r.example=${word}`] }, "--set registries.r.example", word);
    });
});

suite("a route", () => {
  test("leads from a host, or a path below it, to a function; the same one again replaces it", async () => {
    const ini = `[routes]
shop.example.com = shop
Shop.Example.com:443/Cart/ = cart.team
shop.example.com./Cart = cart.other
`;
    assert.deepEqual((await load({ ini, flags: ["routes.b.example=b"] })).routes, [
      { host: "shop.example.com", prefix: "", address: "shop" },
      { host: "shop.example.com", prefix: "/Cart", address: "cart.other" },
      { host: "b.example", prefix: "", address: "b" },
    ]);
  });

  for (const [key, value] of [
    ["localhost", "f"],
    ["127.0.0.1", "f"],
    ["a.example/../b", "f"],
    ["a.example", ""],
    ["a.example", "f.g.h"],
    ["a.example", "F"],
    ["a.example", "f/path"],
  ])
    test(`${key} = ${value} is refused`, async () => {
      await refuses({ ini: `[routes]\n${key} = ${value}\n` }, key!, "napd.ini");
      await refuses({ flags: [`routes.${key}=${value}`] }, "--set routes", key!);
    });
});

suite("the printed configuration", () => {
  const ini = (config: Config) => load({ ini: printConfig(config) });

  test("is one that reads back the same", async () => {
    const config = await load({});
    assert.deepEqual(await ini(config), config);
  });

  test("reads back the same with every setting changed, and characters that mean something in an ini file", async () => {
    const flags = [
      "gateway.listen=[::1]:9000",
      "gateway.upstream_timeout=1h2m3.004s",
      "gateway.tunnel_idle=10m",
      "gateway.max_body=10485760",
      "tls.listen=[::]:443",
      "tls.certificate=/etc/a.pem",
      "tls.key=/etc/a b.pem",
      "calls.max_inflight=7",
      "calls.queue=8",
      "cron.enabled=false",
      "cron.timezone=Europe/Berlin",
      "api.upsert=true",
      "api.secret_overwrite=true",
      "api.provider_name=faasd",
      "api.function_label=true",
      "containerd.socket=/tmp/a;b#c.sock",
      "containerd.snapshotter=native",
      "containerd.runc_root=/run/[x]",
      "cgroup.parent=functions",
      'paths.data=/srv/"quoted" it\'s',
      "paths.run=/run/a = b",
      "paths.logs=/var/log/back\\slash",
      "paths.watchdog=/opt/w",
      "network.bridge=br_1",
      "network.subnet=10.0.0.248/29",
      "network.plugins=/a /b",
      "dns.servers=1.1.1.1 9.9.9.9",
      "images.pull_policy=Never",
      "images.credentials=/root/.docker/config.json",
      "queue.url=nats://user:pa%3Bss@one:4222,nats://two",
      "queue.credentials=/etc/napd/queue.creds",
      "queue.ca=/etc/napd/ca.pem",
      "queue.name=other",
      "queue.ack_wait=7s",
      "queue.max_body=2Mi",
      "queue.max_pending=7",
      "queue.max_pending_function=6",
      "queue.concurrency=8",
      "queue.attempts=9",
      "queue.min_wait=11s",
      "queue.max_wait=12s",
      "queue.keep_dead=13h",
      "queue.backoff=full",
      "queue.retry_codes=500",
      "queue.keep_results=1h",
      "queue.max_result=2Mi",
      "queue.max_results=3Gi",
      "queue.callback_allow=127.0.0.0/8 ::1",
      "images.max_upload=1Ti",
      "images.gc_high=2",
      "images.gc_low=1",
      "images.gc_min_age=1ms",
      "images.disk_reserve=0",
      "functions.namespace=true",
      "functions.ready_timeout=1500ms",
      "functions.deploy_wait=0.25ms",
      "functions.grace=90",
      "functions.starts_at_once=1000",
      "functions.pids_limit=16",
      "logs.max_file=1Mi",
      "logs.max_total=1G",
      "logs.min_free=100M",
      "functions.on_stop=remove",
      "scale.zero=off",
      "scale.idle=1ms",
      "scale.stop_after=never",
      "scale.auto=off",
      "scale.freezer=containerd",
      "scale.page_out=on",
      "metrics.listen=0.0.0.0:9082",
      "log.level=silent",
      "log.format=journal",
      "registries.docker.io=mirror:https://one.example mirror:http://two.example:5000",
      "registries.localhost:5000=plain-http ca:/etc/a;b.pem",
      "routes.shop.example.com/a=shop.team",
      "gateway.headers_timeout=1s",
      "gateway.body_timeout=2s",
      "gateway.send_timeout=3s",
      "gateway.keep_alive=4s",
      "gateway.max_connections=5",
      "gateway.max_headers=60",
      "gateway.max_header_bytes=70000",
      "gateway.function_routes=refuse",
    ];
    const [defaults, config] = [await load({}), await load({ flags })];
    const same = Object.keys(defaults).flatMap((section) =>
      Object.entries(defaults[section as keyof Config]).flatMap(([key, value]) => {
        const now = (config[section as keyof Config] as unknown as Record<string, unknown>)[key];
        return JSON.stringify(now) === JSON.stringify(value) ? [`${section}.${key}`] : [];
      }),
    );
    assert.deepEqual(same, [], "this test has to change every setting");
    assert.deepEqual(await ini(config), config);
  });

  test("says of every setting what it means and what its default is", async () => {
    const lines = printConfig(await load({ flags: ["log.level=debug"] })).split("\n");
    const keys = lines.filter((line) => /^\w+ =/.test(line)).length;
    assert.equal(lines.filter((line) => /^; .+\. .*Default: \S/.test(line)).length, keys);
    assert.ok(lines.includes("level = debug"));
    assert.ok(lines.some((line) => /severity.*Default: info; live$/.test(line)));
  });
});
