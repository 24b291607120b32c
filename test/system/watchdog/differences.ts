import type { Expectation } from "./case.ts";

/** What one case sees instead of what was recorded: `undefined` means that it is not looked at. */
interface Override {
  expect?: { [K in keyof Expectation]?: Expectation[K] | undefined };
  /** The same for events, by their place in the timeline. */
  events?: Record<number, { [K in keyof Expectation]?: Expectation[K] | undefined }>;
}

/** One deliberate difference from the OpenFaaS watchdogs, with the recorded cases in which it shows. */
export interface Difference {
  /** What the reference does. */
  theirs: string;
  /** What we do. */
  ours: string;
  why: string;
  cases: Record<string, Override>;
}

/** A request as the recorded upstream saw it. */
function echo(method: string, url: string, headers: [string, string][], body = ""): { expect: Expectation } {
  const sorted = [...headers].sort();
  return {
    expect: {
      body: JSON.stringify({ method, url, httpVersion: "1.1", headers: sorted, bodyLength: body.length, body }),
    },
  };
}

const host: [string, string] = ["Host", "127.0.0.1:{PORT}"];
const nothingOfTheirs = { headers: undefined };
/** Only the wording of log lines differs. */
const reworded: Override = { expect: { stderrRegex: undefined } };

/** The table of docs/watchdog.md; the wording of our own messages is not in it. */
export const differences: readonly Difference[] = [
  {
    theirs: "Paths with `//` or `..` are answered with a redirect (301) before the function sees them.",
    ours: "The path reaches the function as it was sent; static mode resolves it.",
    why: "Clients turn a redirected POST into a GET.",
    cases: {
      "classic-path-clean-redirect": { expect: { status: 200, body: "", ...nothingOfTheirs } },
      "classic-double-slash-redirect": { expect: { status: 200, body: "x", ...nothingOfTheirs } },
      "ser-double-slash-redirect": { expect: { status: 200, body: "x", ...nothingOfTheirs } },
      "http-double-slash": { expect: { status: 200, body: "upstream GET //a//b\n", ...nothingOfTheirs } },
    },
  },
  {
    theirs:
      "http mode rewrites requests: `Content-Length` becomes chunks, `User-Agent` and `Accept-Encoding` are added (and gzip is then unpacked), names are capitalised, streams get `X-Forwarded-For`.",
    ours: "Requests and answers pass as they are: names, order, length and encoding.",
    why: "Functions see what the caller sent; servers that need a length get it; nothing is packed and unpacked in vain.",
    cases: {
      "http-post-echo-headers": echo(
        "POST",
        "/echo?x=%20",
        [
          ["Content-Length", "5"],
          ["Content-Type", "text/x"],
          ["Host", "my.host:1"],
          ["X-Multi", "a"],
          ["X-Multi", "b"],
          ["x-lower", "v"],
        ],
        "hello",
      ),
      "http-connection-close-request": echo("GET", "/echo", [host]),
      "http-post-empty": echo("POST", "/echo", [host, ["Content-Length", "0"]]),
      "http-buffer-empty": echo("POST", "/echo", [host, ["Content-Length", "0"]]),
      "http-buffer-get": echo("GET", "/echo", [host]),
      "http-expect-100": echo("POST", "/echo", [host, ["Content-Length", "4"], ["Expect", "100-continue"]], "body"),
      "http-call-id-passthrough": echo("GET", "/echo", [host, ["X-Call-Id", "cid"], ["X-Start-Time", "123"]]),
      "new-http-echo-headers": echo("POST", "/echo", [host, ["Content-Length", "5"], ["X-A", "1"]], "hello"),
      "new-sse-echo-headers": echo("GET", "/echo", [
        host,
        ["Accept", "text/event-stream"],
        ["X-Forwarded-For", "10.0.0.1"],
      ]),
      "http-gzip-transparent": {
        expect: { body: undefined, bodyLength: 30, headers: { "Content-Encoding": "gzip" } },
      },
    },
  },
  {
    theirs:
      "Hop-by-hop headers (`Connection` and what it names, `Keep-Alive`, `TE`, `Proxy-*` …) are passed on both ways.",
    ours: "They end at the watchdog.",
    why: "RFC 9110 §7.6.1: they speak about one connection, and passing them on breaks keep-alive.",
    cases: {
      "http-hop-by-hop-request": echo("GET", "/echo", [host]),
      "http-hop-by-hop-response": { expect: nothingOfTheirs },
    },
  },
  {
    theirs: "An absolute request target (`GET http://host/x`) fails with 500 in http mode.",
    ours: "It is taken as its path.",
    why: "RFC 9112 §3.2.2: servers must accept it.",
    cases: {
      "http-absolute-form-request": { expect: { status: 200, body: "upstream GET /x\n", ...nothingOfTheirs } },
    },
  },
  {
    theirs: "Streams (SSE, NDJSON) ignore `exec_timeout` and the base path of `upstream_url`.",
    ours: "Both apply to every call; raise `exec_timeout` (0 turns it off) for long streams.",
    why: "One rule for all calls; a limit that does not limit is no limit.",
    cases: {
      "new-sse-ignores-exec-timeout": { expect: { error: "truncated-body", minMs: 250, body: "data: 0\n\n" } },
      "new-sse-ignores-upstream-base-path": { expect: { body: "upstream GET /base/x\n" } },
    },
  },
  {
    theirs: "Streaming mode answers 200 whatever happens, and ends the answer as if it were complete.",
    ours: "A process that fails before its first output is a 500 with the reason; one that fails later, or is killed by `exec_timeout`, ends the connection in the middle of the answer.",
    why: "Otherwise nobody can tell half an answer from a whole one.",
    cases: {
      "stream-exit-nonzero-is-200": { expect: { error: "truncated-body" } },
      "stream-exec-timeout": { expect: { error: "truncated-body" } },
      "stream-exec-timeout-grandchild": { expect: { error: "truncated-body", minMs: 250 } },
    },
  },
  {
    theirs: "Streaming mode closes the connection after a large body.",
    ours: "The connection stays.",
    why: "The body has been read to its end.",
    cases: { "stream-big-echo": { expect: { closed: undefined } } },
  },
  {
    theirs: "A body that does not arrive within `read_timeout` is a 500 in serializing mode.",
    ours: "400, as in classic mode.",
    why: "It is the client's fault.",
    cases: { "ser-read-timeout": { expect: { status: 400 } } },
  },
  {
    theirs: "After `write_timeout` the client waits on until the function ends, and then sees a closed connection.",
    ours: "The connection is closed when the time is over; the function runs to its end.",
    why: "Nothing better can come any more.",
    cases: { "classic-write-timeout-empty-reply": { expect: { minMs: 450, maxMs: 900 } } },
  },
  {
    theirs:
      "A log line longer than `log_buffer_size` ends the forwarding of logs for good, and a function that writes on hangs.",
    ours: "Long lines are passed on in pieces; nothing is lost.",
    why: "Logs must not break functions.",
    cases: {
      "ser-long-stderr-line-loses-logging": {
        expect: { stderrRegex: ["stderr: x{150}$", "stderr: later$"], logNotRegex: undefined },
      },
      "http-long-log-line-stops-logging": {
        expect: {
          stderrRegex: undefined,
          stdoutRegex: ["stdout: L{70000}$", "stdout: after$"],
          logNotRegex: undefined,
        },
      },
      "new-long-log-line-stops-logging": {
        expect: {
          stderrRegex: undefined,
          stdoutRegex: ["stdout: L{70000}$", "stdout: after$"],
          logNotRegex: undefined,
        },
      },
      "http-long-log-line-then-hang": { events: { 0: nothingOfTheirs, 1: { sh: "200\n" } } },
    },
  },
  {
    theirs: "A function that ends with 0 in http mode leaves a watchdog that looks healthy and serves nobody.",
    ours: "The watchdog ends with 1, whatever the exit code was.",
    why: "Whoever supervises the container starts it anew.",
    cases: {
      "http-child-exit-0-watchdog-stays": {
        expect: { exitCode: 1 },
        events: {
          0: { status: undefined, headers: undefined, error: "connect: ConnectionRefusedError" },
          1: { status: undefined, headers: undefined, body: undefined, error: "connect: ConnectionRefusedError" },
        },
      },
    },
  },
  {
    theirs: "SIGTERM goes to the function first, which then drops the calls under way.",
    ours: "It goes to the function when its calls are finished.",
    why: "Scaling down must not lose calls.",
    cases: {
      "http-sigterm-child-exit0": {
        expect: { body: "slept 1500\n", headers: undefined },
        events: { 1: { status: 200, body: "upstream GET /late\n", headers: undefined } },
      },
      "http-sigterm-child-exit3": { expect: { exitCode: 0, stderrRegex: undefined, body: "slept 1500\n" } },
      "http-sigterm-child-drains": {
        events: { 1: { status: 200, body: "upstream GET /late\n", headers: undefined } },
      },
    },
  },
  {
    theirs: "SIGINT kills the watchdog at once and leaves the lock file.",
    ours: "SIGINT is a SIGTERM without `healthcheck_interval`; a second one does not wait for calls.",
    why: "Ctrl-C leaves nothing behind.",
    cases: { "classic-sigint": { expect: { exitCode: 0 }, events: { 1: { exists: false } } } },
  },
  {
    theirs: "Calls that come before the function listens fail with 500 in http mode.",
    ours: "They wait until it listens, at most `exec_timeout`; only when that has passed it is 504.",
    why: "A cold start is no error.",
    cases: {
      "http-upstream-slow-start": {
        expect: { status: 200, body: "upstream GET /x\n", headers: undefined },
      },
    },
  },
  {
    theirs: "Orphans of functions stay zombies when the watchdog is PID 1.",
    ours: "They are collected.",
    why: "Zombies use up the process table of the container.",
    cases: { "pid1-orphans-become-zombies": { events: { 1: { sh: "0\n" } } } },
  },
  {
    theirs:
      "An invalid `port` becomes a random one in the of family; an upstream URL without scheme is found out per call.",
    ours: "Both end the start with 1 and say why.",
    why: "Nobody could reach such a function.",
    cases: {
      "of-bad-port": { expect: { exitCode: 1 } },
      "http-upstream-localhost-noscheme": { expect: { exitCode: 1 } },
    },
  },
  {
    theirs: "A lock file that cannot be written is exit code 2, or 0 in newer releases.",
    ours: "1, with the reason.",
    why: "It is a failed start like any other.",
    cases: { "classic-lock-unwritable": { expect: { exitCode: 1, stderrRegex: undefined } } },
  },
  {
    theirs: "`--run-healthcheck` of newer releases needs a valid configuration.",
    ours: "It looks for the lock file and nothing else.",
    why: "That is the question.",
    cases: { "new-run-healthcheck-needs-fprocess": { expect: { exitCode: 0 } } },
  },
  {
    theirs: "`mode=inproc` starts and answers nothing.",
    ours: "It is refused at start with exit code 2, like any mode that is unknown.",
    why: "It is for Go programs that have the reference built in.",
    cases: { "new-inproc-no-handler": { expect: { error: undefined, exitCode: 2 } } },
  },
  {
    theirs: "Only `log_callid` is read, although its documentation says `log_call_id`.",
    ours: "Both names work.",
    why: "People follow the documentation.",
    cases: {
      "new-log-call-id-documented-name-ignored": { expect: { stderrRegex: ["\\(0\\.\\d{4}s\\) \\[abc-1\\]$"] } },
    },
  },
  {
    theirs: "Early releases of classic with `jwt_auth` do not tell the function `X-Auth-Seconds`.",
    ours: "They are told, as by newer ones.",
    why: "The newest release counts.",
    cases: { "classic-jwt-ok-03x": { expect: { body: "ok auth=set az=set\n" } } },
  },
];

/** Cases whose log lines say the same in other words. */
export const rewordings: Record<string, Override> = {
  "http-upstream-down": reworded,
  "new-sse-flushed": reworded,
  "new-x-timeout-shorter": { expect: { stderrRegex: ["exec_timeout: 300ms"] } },
};

/** The differences as rows of a Markdown table. */
export function differencesTable(): string {
  const rows = differences.map(({ theirs, ours, why }) => `| ${theirs} | ${ours} | ${why} |\n`);
  return `| The reference | napd | Why |\n| --- | --- | --- |\n${rows.join("")}`;
}
