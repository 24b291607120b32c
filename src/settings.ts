import { isIP, isIPv4 } from "node:net";
import { formatDuration, parseDuration } from "./base/durations.ts";
import type { LogLevel } from "./base/log.ts";
import { isNamespace, namespaceRule } from "./base/names.ts";
import { formatQuantity, parseMemory } from "./base/quantities.ts";
import { parseSubnet } from "./base/subnet.ts";
import { isTimeZone } from "./base/time-zone.ts";

/** One setting: what it means, its default, and how its text becomes a value (throws a sentence saying what must hold). */
export interface Setting<T> {
  readonly sentence: string;
  readonly fallback: T;
  /** A reload changes it; others take a restart. */
  readonly isLive?: true;
  read(text: string): T;
  write(value: T): string;
}

/** `live.ts` must hand it to whoever uses it. */
function live<T>(setting: Setting<T>): Setting<T> {
  return { ...setting, isLive: true };
}

function word(fallback: string, sentence: string, form: RegExp, rule: string): Setting<string> {
  const read = (t: string) => (form.test(t) ? t : fail(`must be ${rule}`));
  return { sentence, fallback, read, write: (v) => v };
}

const plainWord = /^[A-Za-z0-9][A-Za-z0-9_-]*$/;

function path(fallback: string, sentence: string): Setting<string> {
  const read = (t: string) => (t === "" || t.startsWith("/") ? t : fail("must be an absolute path"));
  return { sentence, fallback, read, write: (v) => v };
}

function words(
  fallback: string[],
  sentence: string,
  valid: (word: string) => boolean,
  rule: string,
): Setting<string[]> {
  const read = (t: string) => {
    const list = t.split(/[\s,]+/).filter((w) => w !== "");
    return list.every(valid) ? list : fail(rule);
  };
  return { sentence, fallback, read, write: (v) => v.join(" ") };
}

function choice<const T extends string>(values: readonly T[], fallback: T, sentence: string): Setting<T> {
  const read = (t: string) => values.find((v) => v === t) ?? fail(`must be one of ${values.join(", ")}`);
  return { sentence: `${sentence} One of ${values.join(", ")}.`, fallback, read, write: (v) => v };
}

function integer(fallback: number, min: number, max: number, sentence: string): Setting<number> {
  const read = (t: string) =>
    /^\d{1,12}$/.test(t) && +t >= min && +t <= max ? +t : fail(`must be a whole number from ${min} to ${max}`);
  return { sentence: `${sentence} From ${min} to ${max}.`, fallback, read, write: String };
}

function flag(fallback: boolean, sentence: string): Setting<boolean> {
  const read = (t: string) => (t === "true" || t === "false" ? t === "true" : fail("must be true or false"));
  return { sentence: `${sentence} true or false.`, fallback, read, write: String };
}

/** Bytes. */
function bytes(fallback: number, sentence: string, min = 0): Setting<number> {
  const rule = `must be an amount of bytes such as 256Mi or 4Gi${min > 0 ? `, ${formatQuantity(min)} at least` : ""}`;
  const read = (t: string) => {
    const value = t === "0" ? 0 : parseMemory(t);
    return value !== undefined && value >= min ? value : fail(rule);
  };
  return { sentence, fallback, read, write: formatQuantity };
}

/** Milliseconds. */
function duration(fallback: number, sentence: string): Setting<number> {
  const read = (t: string) => {
    const ms = parseDuration(t);
    return ms !== undefined && ms > 0 ? ms : fail("must be a duration above zero such as 30s or 1m30s");
  };
  return { sentence, fallback, read, write: formatDuration };
}

/** Milliseconds; infinite for `never`. */
function durationOrNever(fallback: number, sentence: string): Setting<number> {
  const read = (t: string) => {
    const ms = t === "never" ? Number.POSITIVE_INFINITY : parseDuration(t);
    return ms !== undefined && ms >= 0 ? ms : fail("must be a duration such as 1h, or never");
  };
  return { sentence, fallback, read, write: (v) => (v === Number.POSITIVE_INFINITY ? "never" : formatDuration(v)) };
}

/** Milliseconds; 0 for `off`. */
function durationOrOff(fallback: number, sentence: string): Setting<number> {
  const read = (t: string) => {
    const ms = t === "off" ? 0 : parseDuration(t);
    return ms !== undefined && ms >= 0 ? ms : fail("must be a duration such as 1h, or off");
  };
  return { sentence, fallback, read, write: (v) => (v === 0 ? "off" : formatDuration(v)) };
}

function timeZone(fallback: string, sentence: string): Setting<string> {
  const read = (t: string) =>
    t === "local" || isTimeZone(t) ? t : fail("must be a time zone such as Europe/Berlin, or local");
  return { sentence, fallback, read, write: (v) => v };
}

const onOff = ["on", "off"] as const;

export interface ListenAddress {
  host: string;
  port: number;
}

function listen(fallback: ListenAddress, sentence: string): Setting<ListenAddress> {
  const read = (t: string) => {
    const [, host = "", port = ""] = /^(.*):(\d{1,5})$/.exec(t) ?? fail("must be ADDRESS:PORT, such as 0.0.0.0:8080");
    if (+port > 65535) fail("has a port above 65535");
    return { host: host.replace(/^\[(.*)\]$/, "$1") || "0.0.0.0", port: +port };
  };
  return { sentence, fallback, read, write: (v) => `${v.host.includes(":") ? `[${v.host}]` : v.host}:${v.port}` };
}

/** Undefined, written as nothing: does not listen. */
function listenOrNot(sentence: string): Setting<ListenAddress | undefined> {
  const { read, write } = listen({ host: "", port: 0 }, "");
  return {
    sentence,
    fallback: undefined,
    read: (t) => (t === "" ? undefined : read(t)),
    write: (v) => (v === undefined ? "" : write(v)),
  };
}

/** `a.b.c.d/n`; its first address is the bridge's. */
function subnet(fallback: string, sentence: string): Setting<string> {
  const read = (t: string) => {
    parseSubnet(t);
    return t;
  };
  return { sentence, fallback, read, write: (v) => v };
}

/** Of IPv4 or IPv6, or a single address. */
function isSubnet(text: string): boolean {
  const [, address = "", prefix] = /^([^/]+)(?:\/(\d{1,3}))?$/.exec(text) ?? [];
  const family = isIP(address);
  return family !== 0 && (prefix === undefined || Number(prefix) <= (family === 4 ? 32 : 128));
}

/** Of one server or, with commas, of several of one cluster. */
function natsUrl(fallback: string, sentence: string): Setting<string> {
  const read = (t: string) => {
    const urls = t.split(",").map((part) => URL.parse(part.trim()));
    const isRight = urls.every((url) => url && /^(nats|tls):$/.test(url.protocol) && url.host && url.pathname === "");
    return t === "" || isRight ? t.replaceAll(" ", "") : fail("must be nats://HOST:PORT or tls://HOST:PORT");
  };
  return { sentence, fallback, read, write: (v) => v };
}

function fail(rule: string): never {
  throw new Error(rule);
}

/** Every setting of napd, by section. This table is what `--print-config` and the reference print. */
export const settings = {
  gateway: {
    listen: listen(
      { host: "0.0.0.0", port: 8080 },
      "Address and port of the gateway and the API, unless napd.socket says where.",
    ),
    upstream_timeout: live(
      duration(
        60_000,
        "How long a call may take, including the wake-up, unless annotation napd.timeout says otherwise.",
      ),
    ),
    headers_timeout: live(
      duration(30_000, "How long a request's head may take, from the connection or its first byte."),
    ),
    body_timeout: live(
      duration(
        60_000,
        "How long a request's body may bring nothing while the answer has not begun and nobody else is waited for.",
      ),
    ),
    send_timeout: live(duration(60_000, "How long a caller may take nothing of an answer that waits for it.")),
    keep_alive: live(duration(65_000, "How long a connection stays open without a request.")),
    max_connections: live(
      integer(10_000, 1, 1_000_000, "Connections at once, of each listener; further ones are closed at once."),
    ),
    max_headers: live(integer(1000, 10, 100_000, "Fields of a request's head.")),
    max_header_bytes: integer(1_048_576, 8192, 16_777_216, "Bytes of a request's head."),
    function_routes: choice(
      ["allow", "refuse"],
      "allow",
      "Whether functions may ask for hosts of their own by annotation napd.route; section [routes] gives them either way.",
    ),
    tunnel_idle: duration(
      3_600_000,
      "How long a WebSocket or another upgraded connection may be silent in both directions before it is closed.",
    ),
    max_body: live(
      bytes(0, "Largest body of a call, 0: no limit; annotation napd.max-body overrides it for one function."),
    ),
  },
  tls: {
    listen: listenOrNot("Address and port for HTTPS, such as 0.0.0.0:443, beside gateway.listen; empty for none."),
    certificate: live(
      path(
        "",
        "PEM file with the certificate for tls.listen and what leads up to its root; read anew when it changes.",
      ),
    ),
    key: live(path("", "PEM file with the certificate's key; read anew when it changes.")),
  },
  calls: {
    max_inflight: live(
      integer(
        0,
        0,
        999_999,
        "Calls of one function that run at a time, over all its replicas; 0: no limit. Annotation napd.max-inflight overrides it.",
      ),
    ),
    queue: live(
      integer(
        100,
        0,
        999_999,
        "Calls beyond that limit that wait for their turn; further ones are answered 429. Annotation napd.queue overrides it.",
      ),
    ),
  },
  queue: {
    url: natsUrl(
      "",
      "NATS server with JetStream that keeps asynchronous calls and shares them among machines: nats://[USER:PASSWORD@]HOST[:PORT] or tls://…, several of a cluster with commas between them; empty to keep them on this machine.",
    ),
    credentials: path("", "File with a user's JWT and key (.creds) for that server; empty for none."),
    ca: path("", "File with certificates (PEM) to trust in that server's; empty for the system's."),
    name: word(
      "napd",
      "Begins the names of streams and subjects there: machines with the same name share one queue.",
      plainWord,
      "letters, digits, hyphens and underscores",
    ),
    ack_wait: duration(
      30_000,
      "How long a machine may be silent before others make the calls that it had under way; the same on all of them.",
    ),
    max_body: bytes(256 * 2 ** 20, "Largest body of an asynchronous call.", 1),
    max_pending: integer(
      100_000,
      1,
      100_000_000,
      "Asynchronous calls and callbacks that may wait or run; further calls are answered 429. As many that were given up are kept.",
    ),
    max_pending_function: live(
      integer(
        50_000,
        1,
        100_000_000,
        "The same of one function, so that it leaves room for others. Annotation napd.async-queue overrides it.",
      ),
    ),
    concurrency: live(
      integer(
        10,
        1,
        9999,
        "Asynchronous calls of one function that run at a time, unless annotation napd.async-concurrency says otherwise.",
      ),
    ),
    attempts: live(
      integer(
        10,
        1,
        9999,
        "How often an asynchronous call is tried, unless annotation com.openfaas.retry.attempts says otherwise.",
      ),
    ),
    min_wait: live(
      duration(
        10_000,
        "How long it waits for its second attempt, and then twice as long each time, unless annotation com.openfaas.retry.min_wait says otherwise.",
      ),
    ),
    max_wait: live(
      duration(
        120_000,
        "How long it waits for another attempt at most, unless annotation com.openfaas.retry.max_wait says otherwise.",
      ),
    ),
    backoff: live(
      choice(["equal", "full", "exponential"], "equal", "How much of these waits is by chance: half, all, or nothing."),
    ),
    retry_codes: live(
      words(
        ["408", "429", "500", "502", "503", "504"],
        "Statuses that are tried again, unless annotation com.openfaas.retry.codes says otherwise.",
        (word) => /^[1-5]\d\d$/.test(word),
        "must be HTTP statuses such as 429 503",
      ),
    ),
    keep_results: live(
      durationOrOff(
        0,
        "How long results of asynchronous calls are kept for GET /system/queue/CALL-ID/result, or off. Annotation napd.async-results overrides it.",
      ),
    ),
    max_result: bytes(2 ** 20, "Largest answer that is kept as a result."),
    max_results: bytes(256 * 2 ** 20, "Space for all results; the oldest make room."),
    keep_dead: duration(7 * 24 * 3_600_000, "How long calls that were given up are kept, from when they came."),
    callback_allow: words(
      [],
      "Internal addresses that callbacks may go to, such as 127.0.0.0/8; 0.0.0.0/0 and ::/0 for all.",
      isSubnet,
      "must be addresses, each with or without a prefix length such as /8",
    ),
  },
  cron: {
    enabled: flag(
      true,
      "Whether functions are called at the times of their annotation schedule; not where an OpenFaaS cron-connector does that.",
    ),
    timezone: timeZone(
      "local",
      "Time zone of schedules that name none, such as Europe/Berlin; local is this machine's.",
    ),
  },
  api: {
    upsert: flag(
      false,
      "Whether PUT of a function that does not exist makes it, and POST of one that does updates it, instead of 404 and 409.",
    ),
    secret_overwrite: flag(
      false,
      "Whether POST of a secret that exists replaces it, as scripts for faasd expect, instead of 409.",
    ),
    provider_name: word(
      "napd",
      "Name of the provider in /system/info; some clients and test suites go by it.",
      plainWord,
      "letters, digits, hyphens and underscores",
    ),
    function_label: flag(
      false,
      "Whether functions are shown with the label faas_function, which a conformance suite looks for and faas-cli diff takes for a difference.",
    ),
  },
  containerd: {
    socket: path("/run/containerd/containerd.sock", "containerd's socket."),
    snapshotter: word(
      "overlayfs",
      "containerd's snapshotter for images and containers.",
      plainWord,
      "the name of a snapshotter",
    ),
    runc_root: path(
      "",
      "Where runc keeps its state; empty for containerd's own choice. For a containerd that shares the machine with another.",
    ),
  },
  cgroup: {
    parent: word(
      "napd",
      "Name of the cgroup under which those of the functions are made.",
      plainWord,
      "letters, digits, hyphens and underscores",
    ),
  },
  paths: {
    data: path("/var/lib/napd", "What must last: state.db, secrets, credentials."),
    run: path("/run/napd", "What may vanish at a reboot: network results, copies of secrets for running functions."),
    logs: path("/var/log/napd", "Logs of the functions."),
    watchdog: path(
      "",
      "Folder with the watchdog that goes into images without one; empty for the one that comes with napd.",
    ),
  },
  network: {
    bridge: word(
      "napd0",
      "Name of the bridge; also of its firewall chains.",
      /^[A-Za-z][A-Za-z0-9_-]{0,14}$/,
      "at most 15 letters, digits, hyphens and underscores, beginning with a letter",
    ),
    subnet: subnet("10.63.0.0/16", "Addresses of the functions; the first one is the gateway's."),
    plugins: words(
      ["/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"],
      "Where the CNI plug-ins are looked for.",
      (w) => w.startsWith("/"),
      "must be absolute paths",
    ),
  },
  dns: {
    servers: words(
      [],
      "Resolvers for names that are not ours; empty for those of the host.",
      isIPv4,
      "must be IPv4 addresses",
    ),
  },
  images: {
    pull_policy: live(
      choice(
        ["Always", "IfNotPresent", "Never"],
        "Always",
        "Whether a deploy asks the registry; annotation napd.pull-policy overrides it for one function.",
      ),
    ),
    credentials: path(
      "",
      "Logins of registries, in the format of docker's config.json; empty for docker-config.json in paths.data.",
    ),
    max_upload: live(bytes(4 * 2 ** 30, "Largest archive of images that can be uploaded, packed and unpacked.")),
    gc_high: live(
      integer(85, 1, 100, "Percent of containerd's file system in use above which unused images are removed."),
    ),
    gc_low: live(integer(80, 0, 100, "Percent in use down to which they are, least recently used first.")),
    gc_min_age: live(
      duration(2 * 60_000, "How long an image stays after its last use before it may be removed by itself."),
    ),
    disk_reserve: bytes(
      256 * 2 ** 20,
      "Space that stays free: deploys and large asynchronous calls that would take it are refused.",
    ),
  },
  functions: {
    namespace: {
      ...word("openfaas-fn", "The default namespace of functions.", plainWord, namespaceRule),
      read: (t: string) => (isNamespace(t) ? t : fail(`must be ${namespaceRule}`)),
    },
    ready_timeout: live(duration(60_000, "How long a replica may take to get ready before it counts as failed.")),
    deploy_wait: live(
      duration(50_000, "How long a deploy waits for readiness before it answers that the rollout goes on."),
    ),
    grace: live(duration(30_000, "How long a stopping replica may finish its requests and then its own shut-down.")),
    starts_at_once: integer(
      4,
      1,
      1000,
      "How many replicas may be on their way up at once; the others wait for their turn.",
    ),
    pids_limit: live(integer(512, 16, 1_000_000, "Processes and threads that one replica may have.")),
    on_stop: choice(
      ["keep", "remove"],
      "keep",
      "Whether functions run on when napd stops, or are taken down (their deployment stays).",
    ),
  },
  scale: {
    zero: live(
      choice(
        onOff,
        "on",
        "Whether functions that nobody calls are put to sleep, unless label com.openfaas.scale.zero says otherwise.",
      ),
    ),
    idle: live(
      duration(
        60_000,
        "How long nobody calls a function before it is frozen, unless label com.openfaas.scale.zero-duration says otherwise.",
      ),
    ),
    stop_after: live(
      durationOrNever(
        3_600_000,
        "How long a function is frozen before its replicas are stopped, which gives their memory back; never, or annotation napd.stop-after for one function.",
      ),
    ),
    auto: live(
      choice(
        onOff,
        "on",
        "Whether load changes the number of replicas of functions with label com.openfaas.scale.max, .type or .target.",
      ),
    ),
    freezer: choice(
      ["cgroup", "containerd"],
      "cgroup",
      "Who freezes: napd by the control group, which is several times faster, or containerd's Pause and Resume.",
    ),
    page_out: choice(
      onOff,
      "off",
      "Whether the memory of frozen functions is moved to swap at once (cgroup v2, Linux 5.19 or newer).",
    ),
  },
  logs: {
    max_file: live(bytes(10 * 2 ** 20, "How much of what one replica says is kept; what is older goes.", 2 ** 16)),
    max_total: live(
      bytes(2 ** 30, "How much is kept of all functions together; logs of ended replicas go first.", 2 ** 20),
    ),
    min_free: live(
      bytes(
        2 ** 28,
        "Below so much free space on the file system of paths.logs, logs of ended replicas go and others are cut to 256 KiB.",
      ),
    ),
  },
  metrics: {
    listen: listen(
      { host: "127.0.0.1", port: 8082 },
      "Address and port of /metrics, for Prometheus. No password is asked for there; port 0 takes any.",
    ),
  },
  log: {
    level: live(
      choice<LogLevel>(["trace", "debug", "info", "warn", "error", "silent"], "info", "Least severity that is logged."),
    ),
    format: choice(
      ["auto", "plain", "journal"],
      "auto",
      "Whether lines have their time, or their priority for systemd's journal; auto finds out which of both.",
    ),
  },
} satisfies Record<string, Record<string, Setting<unknown>>>;

export type Settings = typeof settings;
export type Value<S> = S extends Setting<infer T> ? T : never;
