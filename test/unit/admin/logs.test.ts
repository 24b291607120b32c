/** The route of logs on a real HTTP server: what it takes, how it tells, and that nobody's leaving is missed. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type IncomingMessage, request } from "node:http";
import type { AddressInfo } from "node:net";
import { suite, test } from "node:test";
import { type ApiOptions, openApi } from "../../../src/admin/api.ts";
import { AppError } from "../../../src/base/errors.ts";
import { openLog } from "../../../src/base/log.ts";
import { keyOf } from "../../../src/base/names.ts";
import type { LogLine, LogQuery } from "../../../src/functions/backend.ts";
import { until } from "../../fakes/platform.ts";

const now = Date.parse("2026-03-01T12:00:00Z");
const minutes = 60_000;

type Tell = (query: LogQuery, signal: AbortSignal) => AsyncIterable<LogLine>;

const line = (text: string, time = now): LogLine => ({ name: "web", namespace: "fn", instance: "web.1.0", time, text });

async function open(tell: Tell = async function* () {}) {
  await using up = new AsyncDisposableStack();
  const stopping = new AbortController();
  const queries: LogQuery[] = [];
  const logs = async (query: LogQuery, signal: AbortSignal) => {
    if (query.name !== "web") throw new AppError("FUNCTION_NOT_FOUND", [keyOf(query)]);
    queries.push(query);
    return tell(query, signal);
  };
  const listener = await openApi({
    // of the API only what the route of logs uses is there
    ...({ functions: { logs } } as unknown as ApiOptions),
    credentials: { user: "admin", password: "word" },
    defaultNamespace: "fn",
    release: { version: "1", sha: "0", commitMessage: "" },
    providerName: "napd",
    countRequest: () => {},
    stopping: stopping.signal,
    clock: { now: () => now, monotonic: () => 0, sleep: async () => {} },
    log: openLog("silent"),
  });
  const server = createServer(listener).listen(0, "127.0.0.1");
  await once(server, "listening");
  up.defer(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });

  async function get(query: string): Promise<IncomingMessage> {
    const { port } = server.address() as AddressInfo;
    const headers = { authorization: `Basic ${btoa("admin:word")}` };
    const req = request({ port, host: "127.0.0.1", path: `/system/logs?${query}`, agent: false, headers });
    req.end();
    const [response] = await once(req, "response");
    return response.on("error", () => {});
  }
  async function ask(query: string): Promise<{ status: number; type: string; text: string }> {
    const response = await get(query);
    let text = "";
    for await (const chunk of response) text += chunk;
    return { status: response.statusCode!, type: response.headers["content-type"]!, text };
  }
  const stack = up.move();
  return { get, ask, queries, stopping, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

suite("what is asked for", () => {
  const whole = { name: "web", namespace: "fn", instance: undefined, since: now - 5 * minutes, tail: undefined };
  const rows: { says: string; query: string; is: Partial<LogQuery> }[] = [
    { says: "the last five minutes without more", query: "name=web", is: {} },
    { says: "an empty parameter is none", query: "name=web&tail=&since=&instance=&namespace=", is: {} },
    { says: "a namespace", query: "name=web&namespace=team", is: { namespace: "team" } },
    { says: "a namespace behind the name", query: "name=web.team", is: { namespace: "team" } },
    { says: "the parameter before the one behind the name", query: "name=web.x&namespace=y", is: { namespace: "y" } },
    { says: "an instance", query: "name=web&instance=web.1.0", is: { instance: "web.1.0" } },
    { says: "the last of repeated ones", query: "name=a&tail=1&name=web&tail=2", is: { tail: 2 } },
    { says: "a tail of nothing is all", query: "name=web&tail=0", is: {} },
    { says: "a negative tail is all", query: "name=web&tail=-1", is: {} },
    { says: "a signed tail", query: "name=web&tail=%2B7", is: { tail: 7 } },
    { says: "since", query: "name=web&since=2026-03-01T11:00:00Z", is: { since: now - 60 * minutes } },
    {
      says: "since with fraction and offset",
      query: "name=web&since=2026-03-01T13:59:59.5%2B02:00",
      is: { since: now - 500 },
    },
    { says: "since in the future is the default", query: "name=web&since=2030-01-01T00:00:00Z", is: {} },
    ...["1", "t", "T", "TRUE", "true", "True"].map((yes) => ({
      says: `follow=${yes}`,
      query: `name=web&follow=${yes}`,
      is: { follow: true },
    })),
    ...["0", "f", "false", "yes", "on", "tRUE", ""].map((no) => ({
      says: `follow=${no} does not follow`,
      query: `name=web&follow=${no}`,
      is: {},
    })),
  ];
  for (const { says, query, is } of rows)
    test(says, async () => {
      await using api = await open();
      const { status, type, text } = await api.ask(query);
      assert.deepEqual([status, type, text], [200, "application/x-ndjson", ""]);
      assert.deepEqual(api.queries, [{ ...whole, follow: false, ...is }]);
    });

  const refused: { query: string; status: number; says: RegExp }[] = [
    ...["x", "1.5", "1e3", "0x10", " 1", "１"].map((tail) => ({
      query: `name=web&tail=${encodeURIComponent(tail)}`,
      status: 422,
      says: /query parameter tail=.* must be a whole number/,
    })),
    ...[
      "yesterday",
      "2026-03-01",
      "2026-03-01T11:00:00",
      "2026-02-30T00:00:00Z",
      "2026-03-01T24:00:00Z",
      "1772366400",
    ].map((since) => ({ query: `name=web&since=${since}`, status: 422, says: /since=.* must be a time of RFC 3339/ })),
    { query: "name=none", status: 404, says: /function none\.fn does not exist/ },
    { query: "name=..%2F..", status: 404, says: /does not exist/ },
    { query: "name=web&namespace=..", status: 404, says: /does not exist/ },
    { query: "", status: 404, says: /does not exist/ },
  ];
  for (const { query, status, says } of refused)
    test(`${query || "no name"} is answered ${status}`, async () => {
      await using api = await open();
      const answer = await api.ask(query);
      assert.equal(answer.status, status);
      assert.match(answer.text, says);
      assert.deepEqual(api.queries, []);
    });
});

suite("what is told", () => {
  test("a JSON object a line, with microseconds, control characters escaped", async () => {
    const texts = ["plain", "", "\u001b[31mred\u001b[0m", 'nul\u0000 tab\t quote"', "ü \uFFFD  "];
    await using api = await open(async function* () {
      for (const text of texts) yield line(text, now + 0.25);
    });
    const { text } = await api.ask("name=web");
    assert.ok(text.endsWith("\n"));
    const lines = text.slice(0, -1).split("\n");
    assert.ok(!text.includes("\u001b"));
    assert.deepEqual(
      lines.map((l) => JSON.parse(l)),
      texts.map((t) => ({
        name: "web",
        namespace: "fn",
        instance: "web.1.0",
        timestamp: "2026-03-01T12:00:00.000250Z",
        text: t,
      })),
    );
  });

  test("head and lines go out at once, and the end comes when napd stops", async () => {
    const go = Promise.withResolvers<void>();
    await using api = await open(async function* (_, signal) {
      await go.promise;
      yield line("one");
      await once(signal, "abort");
    });
    const response = await api.get("name=web&follow=true");
    assert.equal(response.statusCode, 200);
    go.resolve();
    const [chunk] = await once(response, "data");
    assert.match(String(chunk), /"text":"one"\}\n$/);
    api.stopping.abort();
    await once(response, "end");
    assert.ok(response.complete);
  });

  test("a client that leaves ends the reading", async () => {
    const ended = Promise.withResolvers<void>();
    await using api = await open(async function* (_, signal) {
      try {
        yield line("one");
        await once(signal, "abort");
      } finally {
        ended.resolve();
      }
    });
    const response = await api.get("name=web&follow=true");
    await once(response, "data");
    response.destroy();
    await ended.promise;
  });

  test("a slow client stops the reading, whatever there is to read, and its leaving ends it", async () => {
    let told = 0;
    const ended = Promise.withResolvers<void>();
    await using api = await open(async function* () {
      try {
        for (;;) {
          told++;
          yield line("x".repeat(60_000));
        }
      } finally {
        ended.resolve();
      }
    });
    const response = await api.get("name=web&follow=true");
    let before = -1;
    await until("nothing more is read", async () => {
      const same = told === before;
      before = told;
      await new Promise((resolve) => setTimeout(resolve, 100));
      return same;
    });
    assert.ok(told < 2000, `${told} lines for nobody`);
    response.destroy();
    await ended.promise;
  });

  test("a failure in the middle cuts the answer off", async () => {
    await using api = await open(async function* () {
      yield line("one");
      throw new Error("the disk is gone");
    });
    const response = await api.get("name=web");
    response.resume();
    await new Promise((resolve) => response.once("close", resolve));
    assert.ok(!response.complete);
  });
});
