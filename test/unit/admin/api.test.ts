/** The API as clients see it: a real HTTP server, real secrets, and functions that only write down what they are asked. */
import assert from "node:assert/strict";
import { after, suite, test } from "node:test";
import { AppError } from "../../../src/base/errors.ts";
import type {
  BackendImages,
  ImageComposition,
  ImageInfo,
  ImageUpload,
  LogLine,
  LogQuery,
} from "../../../src/functions/backend.ts";
import type { DeployOutcome, Functions } from "../../../src/functions/functions.ts";
import type { FunctionStatus } from "../../../src/functions/status.ts";
import { NamespaceStore } from "../../../src/store/namespaces.ts";
import { SecretStore } from "../../../src/store/secrets.ts";
import { openState } from "../../../src/store/state.ts";
import { basic, right, serveApi } from "../../fakes/api.ts";
import { FakeBackend } from "../../fakes/backend.ts";
import { tmpDir } from "../../support/tmp.ts";

const status: FunctionStatus = {
  ...{ name: "web", namespace: "fn", image: "web:1", invocationCount: 0, replicas: 1, availableReplicas: 1 },
  ...{ createdAt: "2026-01-02T03:04:05.678Z", state: "Ready" },
};

/** Has one function, web in fn. `calls` is what it was asked to do; `answer` is what deploys come to. */
class FakeFunctions
  implements Pick<Functions, "deploy" | "remove" | "scale" | "alert" | "list" | "get" | "occupants" | "logs">
{
  readonly calls: unknown[] = [];
  answer: DeployOutcome | Error = "serving";

  async deploy(...[spec, kind]: Parameters<Functions["deploy"]>): Promise<DeployOutcome> {
    this.calls.push([kind, spec]);
    if (this.answer instanceof Error) throw this.answer;
    return this.answer;
  }
  async remove(...[id]: Parameters<Functions["remove"]>): Promise<void> {
    this.calls.push(["remove", id]);
    this.#find(id);
  }
  async scale(...[id, replicas]: Parameters<Functions["scale"]>): Promise<void> {
    this.calls.push(["scale", id, replicas]);
    this.#find(id);
  }
  async alert(...[id, firing]: Parameters<Functions["alert"]>): Promise<void> {
    this.calls.push(["alert", id, firing]);
    if (id.name === "full") throw new AppError("STORE", ["state.db", "no space left"]);
  }
  list(namespace: string): FunctionStatus[] {
    if (namespace !== "fn" && namespace !== "team") throw new AppError("NAMESPACE_NOT_FOUND", [namespace]);
    return namespace === "fn" ? [status] : [];
  }
  get(id: { name: string; namespace: string }): FunctionStatus | undefined {
    return this.list(id.namespace).find((s) => s.name === id.name);
  }
  occupants(namespace: string): string | null {
    return namespace === "fn" ? "a function" : null;
  }
  async logs(query: LogQuery): Promise<AsyncIterable<LogLine>> {
    this.#find(query);
    return (async function* () {})();
  }
  #find({ name, namespace }: { name: string; namespace: string }): void {
    if (name !== "web" || namespace !== "fn") throw new AppError("FUNCTION_NOT_FOUND", [`${name}.${namespace}`]);
  }
}

/** Has one image, web:1, which function web uses; takes every archive but "nonsense". */
class FakeImages implements BackendImages {
  readonly calls: unknown[] = [];
  readonly info: ImageInfo = {
    ...{ name: "docker.io/library/web:1", namespace: "fn", digest: `sha256:${"0".repeat(64)}`, size: 10 },
    ...{ createdAt: 1e12, usedAt: 1e12, usedBy: ["web"] },
  };
  async list(namespace: string): Promise<ImageInfo[]> {
    return namespace === "fn" ? [this.info] : [];
  }
  pulls(namespace: string) {
    return [{ namespace, name: "ghcr.io/x:1", progress: { phase: "download", doneBytes: 3, totalBytes: 9 } as const }];
  }
  async remove(namespace: string, name: string): Promise<void> {
    this.calls.push(["remove", namespace, name]);
    if (name === "web:1") throw new AppError("IMAGE_IN_USE", [name, "function web"]);
    if (name !== "old:1") throw new AppError("IMAGE_UNKNOWN", [name, namespace]);
  }
  async import(namespace: string, { body, size, name }: ImageUpload): Promise<ImageInfo[]> {
    if (size !== undefined && size > 1e6) throw new AppError("IMAGE_TOO_LARGE", ["1 MB"]);
    let text = "";
    for await (const piece of body) text += piece;
    this.calls.push(["import", namespace, size, name, text]);
    if (text === "nonsense") throw new AppError("IMAGE_BAD_ARCHIVE", ["the uploaded archive", "it is none"]);
    return [this.info];
  }
  async compose(namespace: string, { body, ...composition }: ImageComposition): Promise<ImageInfo> {
    let text: string | undefined;
    for await (const piece of body ?? []) text = `${text ?? ""}${piece}`;
    this.calls.push(["compose", namespace, { ...composition, text }]);
    if (text === undefined) throw new AppError("IMAGE_LAYER_MISSING", [composition.layer!, namespace]);
    return this.info;
  }
  async prune(namespaces: readonly string[]) {
    return namespaces.map((namespace) => ({ name: "old:1", namespace, digest: "sha256:1", size: 1 }));
  }
}

/** One for all tests, and not on disk: making it takes longer than most tests. */
const stateDir = await tmpDir();
const db = openState(stateDir.path);
db.exec("PRAGMA synchronous = OFF");
after(async () => {
  db.close();
  await stateDir[Symbol.asyncDispose]();
});

async function open(options: Parameters<typeof serveApi>[1] = {}) {
  await using up = new AsyncDisposableStack();
  const dir = up.use(await tmpDir());
  const functions = new FakeFunctions();
  const images = new FakeImages();
  const backend = new FakeBackend();
  const secrets = new SecretStore(`${dir.path}/secrets`);
  db.exec("DELETE FROM namespaces");
  const namespaces = new NamespaceStore(db);
  for (const name of ["fn", "team"])
    namespaces.put({ name, labels: { openfaas: "1" }, annotations: {}, leaving: false });
  const { ask, port } = up.use(await serveApi({ functions, namespaces, secrets, backend, images }, options));
  const stack = up.move();
  return {
    ...{ ask, port, functions, secrets, namespaces, backend, images },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

const web = { service: "web", image: "web:1" };
const id = { name: "web", namespace: "fn" };

/** Every route behind the password, with a body that it takes and what it answers then. */
const routes: { method: string; path: string; body?: unknown; status: number; json?: true }[] = [
  { method: "GET", path: "/system/functions", status: 200 },
  { method: "POST", path: "/system/functions", body: web, status: 202 },
  { method: "PUT", path: "/system/functions", body: web, status: 202 },
  { method: "DELETE", path: "/system/functions", body: { functionName: "web" }, status: 202 },
  { method: "GET", path: "/system/function/web", status: 200 },
  { method: "POST", path: "/system/scale-function/web", body: { replicas: 2 }, status: 202 },
  { method: "GET", path: "/system/secrets", status: 200 },
  { method: "POST", path: "/system/secrets", body: { name: "new", value: "x" }, status: 202 },
  { method: "PUT", path: "/system/secrets", body: { name: "key", value: "x" }, status: 202 },
  { method: "DELETE", path: "/system/secrets", body: { name: "key" }, status: 202 },
  { method: "POST", path: "/system/alert", body: { alerts: [] }, status: 200 },
  { method: "GET", path: "/system/images", status: 200 },
  { method: "POST", path: "/system/images", body: "archive", status: 201, json: true },
  { method: "DELETE", path: "/system/images", body: { name: "old:1" }, status: 202 },
  { method: "GET", path: "/system/images/pulls", status: 200 },
  { method: "POST", path: "/system/images/prune", status: 200, json: true },
  { method: "GET", path: "/system/queue", status: 200 },
  { method: "GET", path: "/system/queue/call-1", status: 200 },
  { method: "DELETE", path: "/system/queue/call-1", status: 202 },
  { method: "POST", path: "/system/queue/call-1/retry", status: 202 },
  { method: "GET", path: "/system/queue/call-1/result", status: 202, json: true },
  { method: "GET", path: "/system/queue-stats", status: 200 },
  { method: "GET", path: "/system/cron", status: 200 },
  { method: "POST", path: "/system/cron/tick/run", status: 202, json: true },
  { method: "GET", path: "/system/info", status: 200 },
  { method: "GET", path: "/system/namespaces", status: 200 },
  { method: "GET", path: "/system/logs?name=web", status: 200 },
  ...["/system/namespace", "/system/namespaces"].flatMap((path) => [
    { method: "GET", path: `${path}/team`, status: 200 },
    { method: "POST", path: `${path}/team`, body: { name: "new", labels: { openfaas: "1" } }, status: 201 },
    { method: "PUT", path: `${path}/team`, body: { name: "team", labels: { openfaas: "1" } }, status: 202 },
    { method: "DELETE", path: `${path}/team`, body: { name: "team" }, status: 202 },
  ]),
];

const refused: { says: string; authorization: string | null }[] = [
  { says: "no credentials", authorization: null },
  { says: "a wrong password", authorization: basic("admin", "wrong") },
  { says: "an empty password", authorization: basic("admin", "") },
  { says: "a wrong user", authorization: basic("root", "pass:word") },
  { says: "the password as user", authorization: basic("pass:word", "admin") },
  { says: "a token", authorization: "Bearer pass:word" },
  { says: "nothing behind the scheme", authorization: "Basic " },
  { says: "what is not base64", authorization: "Basic admin:pass:word" },
  { says: "more than the credentials", authorization: `${right}, ${right}` },
];

suite("every route of the API", () => {
  test("is in this table", async () => {
    await using api = await open();
    for (const path of new Set(routes.map((r) => r.path)))
      for (const method of ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"]) {
        const answer = await api.ask(method, path, { body: method === "GET" ? undefined : {} });
        const isRoute = routes.some((r) => r.path === path && r.method === method);
        assert.equal(answer.status !== 405, isRoute, `${method} ${path}: ${answer.status}`);
      }
  });

  for (const { method, path, body, status, json } of routes) {
    for (const { says, authorization } of refused)
      test(`${method} ${path} with ${says} is answered 401, and nothing happens`, async () => {
        await using api = await open();
        await api.secrets.put("fn", "key", Buffer.from("old"));
        const answer = await api.ask(method, path, { body, authorization });
        assert.deepEqual([answer.status, answer.text], [401, "invalid credentials"]);
        assert.equal(answer.headers["www-authenticate"], 'Basic realm="Restricted"');
        assert.equal(answer.headers["content-type"], "text/plain; charset=utf-8");
        assert.deepEqual(api.functions.calls, []);
        assert.equal(String(await api.secrets.read("fn", "key")), "old");
        assert.deepEqual(await api.secrets.list("fn"), ["key"]);
      });

    for (const scheme of ["Basic", "basic", "BASIC"])
      test(`${method} ${path} with the right credentials, scheme ${scheme}, is answered ${status}`, async () => {
        await using api = await open();
        await api.secrets.put("fn", "key", Buffer.from("old"));
        const answer = await api.ask(method, path, { body, authorization: basic("admin", "pass:word", scheme) });
        assert.equal(answer.status, status, answer.text);
        if (method !== "GET" && !json) assert.equal(answer.text, "");
        else assert.match(answer.headers["content-type"]!, /^application\/(json|x-ndjson)/);
      });
  }

  test("asks for credentials before it reads a body", async () => {
    await using api = await open();
    const body = Buffer.alloc(8 * 1024 * 1024, " ");
    assert.equal((await api.ask("POST", "/system/functions", { body, authorization: null })).status, 401);
  });
});

suite("what is no route", () => {
  for (const path of [
    "/nowhere",
    "/system",
    "/system/",
    "/system/functions/",
    "/system/nothing",
    "/healthz/",
    "/SYSTEM/functions",
  ])
    for (const method of ["GET", "POST"])
      test(`${method} ${path} is answered 404`, async () => {
        await using api = await open();
        const { status, headers, text } = await api.ask(method, path, { authorization: null });
        assert.deepEqual([status, text], [404, "404 page not found\n"]);
        assert.equal(headers["content-type"], "text/plain; charset=utf-8");
        assert.equal(headers["x-content-type-options"], "nosniff");
      });

  for (const path of [
    "/nowhere",
    "/system/functions/",
    "/system/function/a%20b",
    `/system/function/${"x".repeat(300)}`,
  ])
    test(`POST ${path.slice(0, 30)} is answered 404 whatever its body is`, async () => {
      await using api = await open();
      const { status, text } = await api.ask("POST", path, { body: "{", authorization: null });
      assert.deepEqual([status, text], [404, "404 page not found\n"]);
    });

  for (const path of ["/system/info%", "/system/function/%ff"])
    test(`GET ${path} cannot be decoded and is answered 400`, async () => {
      await using api = await open();
      const { status, headers } = await api.ask("GET", path, { authorization: null });
      assert.deepEqual([status, headers["content-type"]], [400, "text/plain; charset=utf-8"]);
    });

  for (const method of ["PATCH", "OPTIONS", "TRACE", "PROPFIND", "PURGE", "SEARCH", "QUERY", "LINK"])
    for (const path of ["/system/functions", "/system/namespace/", "/healthz"])
      test(`${method} ${path} is answered 405 with nothing else, whatever its body is`, async () => {
        await using api = await open();
        const { status, headers, text } = await api.ask(method, path, { body: "{" });
        assert.deepEqual([status, text, headers.allow], [405, "", undefined]);
      });

  for (const [method, path] of [
    ["PATCH", "/system/functions"],
    ["HEAD", "/system/functions"],
    ["POST", "/system/function/web"],
    ["GET", "/system/scale-function/web"],
    ["DELETE", "/system/info"],
  ] as const) {
    test(`${method} ${path} is answered 405 with nothing else`, async () => {
      await using api = await open();
      const { status, headers, text } = await api.ask(method, path);
      assert.deepEqual([status, text, headers.allow], [405, "", undefined]);
    });
    test(`${method} ${path} without credentials is answered 401 first`, async () => {
      await using api = await open();
      assert.equal((await api.ask(method, path, { authorization: null })).status, 401);
    });
  }
});

suite("a path that is spelled otherwise", () => {
  // what a router, a proxy or a browser may take for /system/functions
  const spellings = [
    "/%73ystem/functions",
    "/system/%66unctions",
    "//system/functions",
    "/system//functions",
    "/./system/functions",
    "/x/../system/functions",
    "/healthz/../system/functions",
    "/healthz/%2e%2e/system/functions",
    "/healthz/%2E./system/functions",
    "/system/functions/",
    "/system/functions/.",
    "/system/functions;x",
    "/system/functions%3Bx",
    "/system/functions%00",
    "/system%2Ffunctions",
    "/system%5Cfunctions",
    "/system\\functions",
    "/SYSTEM/functions",
    "/system/functions%20",
    "/system/functions?x",
    "/system/functions#x",
    "http://elsewhere/system/functions",
    "/healthz?/../system/functions",
  ];
  for (const path of spellings)
    for (const method of ["GET", "POST"])
      test(`${method} ${path} reaches nothing without credentials`, async () => {
        await using api = await open();
        const { status, text } = await api.ask(method, path, { body: web, authorization: null });
        assert.ok(
          [301, 400, 401, 404, 405].includes(status) || (path.startsWith("/healthz?") && status === 200),
          `${status}`,
        );
        assert.ok(!text.includes("web:1"), text);
        assert.deepEqual(api.functions.calls, []);
      });

  for (const [method, path, location] of [
    ["GET", "//system//functions", "/system/functions"],
    ["POST", "/system/./functions?namespace=a//b", "/system/functions?namespace=a//b"],
    ["DELETE", "/system/../healthz", "/healthz"],
  ] as const)
    test(`${method} ${path} is answered 301 to the clean one`, async () => {
      await using api = await open();
      const { status, headers, text } = await api.ask(method, path, { authorization: null });
      assert.deepEqual([status, headers.location, text], [301, location, ""]);
    });

  test("is the same when only letters are in per cent", async () => {
    await using api = await open();
    assert.equal((await api.ask("GET", "/%73ystem/in%66o")).status, 200);
  });
});

suite("health", () => {
  for (const method of ["GET", "HEAD"])
    test(`${method} /healthz is answered 200 with nothing, to everybody`, async () => {
      await using api = await open();
      const { status, text } = await api.ask(method, "/healthz", { authorization: null });
      assert.deepEqual([status, text], [200, ""]);
    });

  test("POST /healthz is answered 405", async () => {
    await using api = await open();
    assert.equal((await api.ask("POST", "/healthz", { authorization: null })).status, 405);
  });

  test("GET / leads to the user interface", async () => {
    await using api = await open();
    const { status, headers } = await api.ask("GET", "/", { authorization: null });
    assert.deepEqual([status, headers.location], [307, "/ui/"]);
  });
});

suite("a body", () => {
  const posts = routes.filter((r) => typeof r.body === "object");
  for (const { method, path, body, status } of posts) {
    for (const type of [undefined, "application/json", "text/plain", "application/x-www-form-urlencoded", "nonsense"])
      test(`${method} ${path} is read as JSON when its type is ${type}`, async () => {
        await using api = await open();
        await api.secrets.put("fn", "key", Buffer.from("old"));
        const answer = await api.ask(method, path, {
          body,
          headers: type === undefined ? {} : { "Content-Type": type },
        });
        assert.equal(answer.status, status, answer.text);
      });

    for (const bad of [
      "",
      "{",
      "nonsense",
      "[]",
      "null",
      '"text"',
      "5",
      "[".repeat(100_000),
      "\0",
      '{"a":"\n"}',
      "{} {}",
    ])
      test(`${method} ${path} refuses ${JSON.stringify(bad.slice(0, 20))} with a sentence`, async () => {
        await using api = await open();
        const answer = await api.ask(method, path, { body: bad });
        assert.equal(answer.status, 400);
        assert.match(answer.text, /not the JSON that this route takes.+\n$/s);
        assert.deepEqual(api.functions.calls, []);
      });

    test(`${method} ${path} refuses what is not UTF-8`, async () => {
      await using api = await open();
      const bytes = Buffer.concat([
        Buffer.from(JSON.stringify(body).slice(0, -1)),
        Buffer.from(',"x":"'),
        Buffer.from([0xff, 0x22, 0x7d]),
      ]);
      const answer = await api.ask(method, path, { body: bytes });
      assert.deepEqual([answer.status, /not UTF-8/.test(answer.text)], [400, true]);
    });

    test(`${method} ${path} takes a byte order mark, and keys in capitals`, async () => {
      await using api = await open();
      await api.secrets.put("fn", "key", Buffer.from("old"));
      const text = JSON.stringify(body).replace(/"(\w+)":/g, (_, key) =>
        key === "openfaas" ? `"openfaas":` : `"${key.toUpperCase()}":`,
      );
      const answer = await api.ask(method, path, { body: `\ufeff${text}` });
      assert.equal(answer.status, status, answer.text);
    });

    test(`${method} ${path} refuses more than 4 MiB, naming the limit`, async () => {
      await using api = await open();
      const answer = await api.ask(method, path, { body: JSON.stringify(body) + " ".repeat(4 * 1024 * 1024) });
      assert.equal(answer.status, 413);
      assert.match(answer.text, /larger than the 4194304 bytes/);
    });
  }
});

suite("functions", () => {
  for (const [method, kind] of [
    ["POST", "create"],
    ["PUT", "update"],
  ] as const) {
    test(`${method} deploys what the body describes`, async () => {
      await using api = await open();
      await api.ask(method, "/system/functions", { body: { ...web, envVars: { A: "b=c" }, labels: {} } });
      assert.deepEqual(api.functions.calls, [[kind, { ...id, image: "web:1", envVars: { A: "b=c" }, labels: {} }]]);
    });

    test(`${method} says when the rollout goes on after the answer`, async () => {
      await using api = await open();
      api.functions.answer = "continues";
      const answer = await api.ask(method, "/system/functions", { body: web });
      assert.deepEqual([answer.status, answer.headers["x-napd-rollout"]], [202, "continues"]);
    });

    test(`${method} refuses what no function can be, naming the field`, async () => {
      await using api = await open();
      const answer = await api.ask(method, "/system/functions", { body: { ...web, service: "Web" } });
      assert.deepEqual([answer.status, /^service: .+\n$/.test(answer.text)], [400, true]);
    });

    const failures = [
      new AppError("FUNCTION_NOT_FOUND", ["web.fn"]),
      new AppError("FUNCTION_EXISTS", ["web.fn"]),
      new AppError("SECRET_MISSING", ["key", "fn"]),
      new AppError("NAMESPACE_NOT_FOUND", ["fn"]),
      new AppError("IMAGE_REGISTRY_UNREACHABLE", ["web:1", "r.example", "refused"]),
      new AppError("REPLICA_EXITED", ["web.1.0", 7, "before it was ready", "oops"]),
      new AppError("SHUTTING_DOWN", []),
    ];
    for (const error of failures)
      test(`${method} that fails with ${error.code} is answered ${error.status} and its sentence`, async () => {
        await using api = await open();
        api.functions.answer = error;
        const answer = await api.ask(method, "/system/functions", { body: web });
        assert.deepEqual([answer.status, answer.text], [error.status, `${error.message}\n`]);
        assert.equal(answer.headers["content-type"], "text/plain; charset=utf-8");
        assert.equal(answer.headers["x-content-type-options"], "nosniff");
      });

    test(`${method} that fails with what nobody foresaw is answered 500`, async () => {
      await using api = await open();
      api.functions.answer = new TypeError("x is not a function");
      const answer = await api.ask(method, "/system/functions", { body: web });
      assert.deepEqual([answer.status, answer.text], [500, "internal error: x is not a function\n"]);
    });
  }

  const places: { says: string; query: string; inBody?: string | null; namespace: string }[] = [
    { says: "the default", query: "", namespace: "fn" },
    { says: "the query's", query: "?namespace=team", namespace: "team" },
    { says: "the body's", query: "", inBody: "team", namespace: "team" },
    { says: "the body's, whatever the query says", query: "?namespace=fn", inBody: "team", namespace: "team" },
    { says: "the query's when the body has an empty one", query: "?namespace=team", inBody: "", namespace: "team" },
    { says: "the query's when the body has null", query: "?namespace=team", inBody: null, namespace: "team" },
    { says: "the default when the query's is empty", query: "?namespace=", namespace: "fn" },
    { says: "the last of the query's", query: "?namespace=fn&namespace=team", namespace: "team" },
  ];
  for (const { says, query, inBody, namespace } of places) {
    const given = inBody === undefined ? {} : { namespace: inBody };
    test(`a delete looks in the namespace that counts: ${says}`, async () => {
      await using api = await open();
      await api.ask("DELETE", `/system/functions${query}`, { body: { functionName: "web", ...given } });
      assert.deepEqual(api.functions.calls, [["remove", { name: "web", namespace }]]);
    });
    test(`scaling looks in the namespace that counts: ${says}`, async () => {
      await using api = await open();
      await api.ask("POST", `/system/scale-function/web${query}`, {
        body: { replicas: 3, serviceName: "other", ...given },
      });
      assert.deepEqual(api.functions.calls, [["scale", { name: "web", namespace }, 3]]);
    });
    test(`deleting a secret looks in the namespace that counts: ${says}`, async () => {
      await using api = await open();
      await api.secrets.put("fn", "key", Buffer.from("x"));
      await api.secrets.put("team", "key", Buffer.from("x"));
      assert.equal(
        (await api.ask("DELETE", `/system/secrets${query}`, { body: { name: "key", ...given } })).status,
        202,
      );
      assert.deepEqual(await api.secrets.list(namespace), []);
      assert.deepEqual(await api.secrets.list(namespace === "fn" ? "team" : "fn"), ["key"]);
    });
  }

  test("the path of a scaling may have the namespace in it", async () => {
    await using api = await open();
    await api.ask("POST", "/system/scale-function/web.team", { body: { replicas: 0 } });
    assert.deepEqual(api.functions.calls, [["scale", { name: "web", namespace: "team" }, 0]]);
  });

  for (const replicas of [
    "-1",
    "1.5",
    '"2"',
    "null",
    "true",
    "2.0",
    "1e1",
    "1e300",
    "-0",
    "18446744073709551616",
    "[]",
  ])
    test(`scaling to ${replicas} is refused`, async () => {
      await using api = await open();
      const answer = await api.ask("POST", "/system/scale-function/web", { body: `{"replicas":${replicas}}` });
      assert.deepEqual([answer.status, /replicas/.test(answer.text)], [400, true]);
      assert.deepEqual(api.functions.calls, []);
    });

  test("scaling takes every uint64", async () => {
    await using api = await open();
    for (const replicas of ["0", "18446744073709551615"])
      await api.ask("POST", "/system/scale-function/web", { body: `{"replicas":${replicas}}` });
    assert.deepEqual(
      api.functions.calls.map((call) => (call as unknown[])[2]),
      [0, 2 ** 64],
    );
  });

  for (const functionName of ["", null, 5, undefined])
    test(`a delete of ${JSON.stringify(functionName)} is refused`, async () => {
      await using api = await open();
      const answer = await api.ask("DELETE", "/system/functions", { body: { functionName } });
      assert.deepEqual([answer.status, /functionName/.test(answer.text)], [400, true]);
      assert.deepEqual(api.functions.calls, []);
    });

  for (const method of ["PUT", "POST"])
    test(`${method} makes or updates, whichever is due, when the setting says so`, async () => {
      await using api = await open({ upsert: true });
      await api.ask(method, "/system/functions", { body: web });
      assert.deepEqual(api.functions.calls, [["upsert", { ...id, image: "web:1" }]]);
    });

  test("are shown with the label that a conformance suite wants, when the setting says so", async () => {
    await using api = await open({ functionLabel: true });
    const wanted = { ...status, labels: { faas_function: "web" } };
    assert.deepEqual(JSON.parse((await api.ask("GET", "/system/functions")).text), [wanted]);
    assert.deepEqual(JSON.parse((await api.ask("GET", "/system/function/web")).text), wanted);
  });

  for (const [query, isShown] of [
    ["?usage=1", true],
    ["?usage=true", true],
    ["?usage=T", true],
    ["?usage=TRUE", true],
    ["?usage=0", false],
    ["?usage=false", false],
    ["?usage=yes", false],
    ["", false],
  ] as const)
    test(`what it uses is ${isShown ? "" : "not "}told for "${query}"`, async () => {
      const used = { cpu: 12.5, totalMemoryBytes: 4096 };
      await using api = await open({ usage: async () => used });
      const { usage } = JSON.parse((await api.ask("GET", `/system/function/web${query}`)).text);
      assert.deepEqual(usage, isShown ? used : undefined);
    });

  for (const [method, path, body] of [
    ["DELETE", "/system/functions", { functionName: "ghost" }],
    ["POST", "/system/scale-function/ghost", { replicas: 1 }],
  ] as const)
    test(`${method} ${path} of a function that does not exist is answered 404 with its name`, async () => {
      await using api = await open();
      const answer = await api.ask(method, path, { body });
      assert.deepEqual([answer.status, /function ghost\.fn does not exist/.test(answer.text)], [404, true]);
    });

  test("each alert goes to the function that it names; what names none is passed over", async () => {
    await using api = await open();
    const alerts = [
      { status: "firing", labels: { alertname: "APIHighInvocationRate", function_name: "web.team" } },
      { status: "resolved", labels: { function_name: "web" } },
      { status: "firing", labels: { alertname: "Watchdog" } },
      { status: "firing" },
    ];
    const answer = await api.ask("POST", "/system/alert", { body: { status: "firing", receiver: "scale-up", alerts } });
    assert.deepEqual([answer.status, answer.text], [200, ""]);
    assert.deepEqual(api.functions.calls, [
      ["alert", { name: "web", namespace: "team" }, true],
      ["alert", { name: "web", namespace: "fn" }, false],
    ]);
  });

  test("an alert that cannot be followed is told by number, and does not keep the others back", async () => {
    await using api = await open();
    const alerts = ["full.fn", "web.fn", "full.team"].map((function_name) => ({
      status: "firing",
      labels: { function_name },
    }));
    const answer = await api.ask("POST", "/system/alert", { body: { alerts } });
    assert.equal(answer.status, 500);
    assert.match(answer.text, /^\[0\] the state database.*\n\[1\] the state database.*\n$/);
    assert.equal(api.functions.calls.length, 3);
  });

  for (const body of ["", "{", "[]", '{"alerts":{}}', '{"alerts":[{"labels":{"function_name":1}}]}'])
    test(`an alert ${body || "without a body"} is refused`, async () => {
      await using api = await open();
      assert.equal((await api.ask("POST", "/system/alert", { body })).status, 400);
      assert.deepEqual(api.functions.calls, []);
    });

  test("the list is an array of one namespace", async () => {
    await using api = await open();
    assert.deepEqual(JSON.parse((await api.ask("GET", "/system/functions")).text), [status]);
    assert.equal((await api.ask("GET", "/system/functions?namespace=team")).text, "[]");
  });

  test("the list of a namespace that does not exist is answered 400", async () => {
    await using api = await open();
    const { status, text } = await api.ask("GET", "/system/functions?namespace=ghost");
    assert.deepEqual([status, /namespace ghost/.test(text)], [400, true]);
  });

  for (const path of [
    "web",
    "web.fn",
    "we%62",
    "web?usage=0",
    "web?usage=no",
    "web?namespace=fn",
    "web.team?namespace=fn",
  ])
    test(`GET /system/function/${path} tells of the function`, async () => {
      await using api = await open();
      assert.deepEqual(JSON.parse((await api.ask("GET", `/system/function/${path}`)).text), status);
    });

  for (const path of ["ghost", "web.team", "web?namespace=team", `${"x".repeat(200)}`])
    test(`GET /system/function/${path.slice(0, 20)} is answered 404 with nothing`, async () => {
      await using api = await open();
      const answer = await api.ask("GET", `/system/function/${path}`);
      assert.deepEqual([answer.status, answer.text], [404, ""]);
    });
});

suite("secrets", () => {
  const everyByte = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
  const values: { says: string; body: object; bytes: Buffer }[] = [
    { says: "a text", body: { value: "word" }, bytes: Buffer.from("word") },
    { says: "a text with its newline", body: { value: "word\n" }, bytes: Buffer.from("word\n") },
    { says: "letters of any kind", body: { value: "größe 大" }, bytes: Buffer.from("größe 大") },
    { says: "nothing", body: {}, bytes: Buffer.alloc(0) },
    { says: "every byte there is", body: { rawValue: everyByte.toString("base64") }, bytes: everyByte },
    {
      says: "bytes, which win over the text",
      body: { value: "trimmed", rawValue: everyByte.toString("base64") },
      bytes: everyByte,
    },
    { says: "the text when there are no bytes", body: { value: "word", rawValue: "" }, bytes: Buffer.from("word") },
  ];
  for (const { says, body, bytes } of values)
    test(`may be ${says}`, async () => {
      await using api = await open();
      assert.equal((await api.ask("POST", "/system/secrets", { body: { name: "key", ...body } })).status, 202);
      assert.ok((await api.secrets.read("fn", "key"))!.equals(bytes));
      await api.secrets.put("fn", "key", Buffer.from("old"));
      assert.equal((await api.ask("PUT", "/system/secrets", { body: { name: "key", ...body } })).status, 202);
      assert.ok((await api.secrets.read("fn", "key"))!.equals(bytes));
    });

  test("are listed by name and never by value", async () => {
    await using api = await open();
    await api.secrets.put("team", "b", Buffer.from("hidden"));
    await api.secrets.put("team", "a", Buffer.from("hidden"));
    const { text } = await api.ask("GET", "/system/secrets?namespace=team");
    assert.deepEqual(JSON.parse(text), [
      { name: "a", namespace: "team" },
      { name: "b", namespace: "team" },
    ]);
    assert.equal((await api.ask("GET", "/system/secrets")).text, "[]");
  });

  test("that exist are not overwritten by POST", async () => {
    await using api = await open();
    await api.secrets.put("fn", "key", Buffer.from("old"));
    const answer = await api.ask("POST", "/system/secrets", { body: { name: "key", value: "new" } });
    assert.deepEqual([answer.status, /key exists already in namespace fn/.test(answer.text)], [409, true]);
    assert.equal(String(await api.secrets.read("fn", "key")), "old");
  });

  test("that exist are replaced by POST when the setting says so", async () => {
    await using api = await open({ overwrite: true });
    await api.secrets.put("fn", "key", Buffer.from("old"));
    assert.equal((await api.ask("POST", "/system/secrets", { body: { name: "key", value: "new" } })).status, 202);
    assert.equal(String(await api.secrets.read("fn", "key")), "new");
  });

  test("made by two at once are made by one of them", async () => {
    await using api = await open();
    const answers = await Promise.all(
      ["a", "b", "c"].map((value) => api.ask("POST", "/system/secrets", { body: { name: "key", value } })),
    );
    assert.deepEqual(answers.map((a) => a.status).sort(), [202, 409, 409]);
  });

  for (const rawValue of ["a", "ab", "a-b_", "YWJj=", "YR==", "Y W I=", "YWI=\0", "YQ", "====", "größe"])
    test(`cannot be the bytes ${JSON.stringify(rawValue)}`, async () => {
      await using api = await open();
      const answer = await api.ask("POST", "/system/secrets", { body: { name: "key", value: "x", rawValue } });
      assert.deepEqual([answer.status, /rawValue/.test(answer.text)], [400, true], answer.text);
      assert.deepEqual(await api.secrets.list("fn"), []);
    });

  test("may have up to 1 MiB, as text or as bytes", async () => {
    await using api = await open();
    const most = Buffer.alloc(1024 * 1024, "x");
    for (const [name, body] of [
      ["text", { value: most.toString() }],
      ["bytes", { rawValue: most.toString("base64") }],
    ] as const) {
      assert.equal((await api.ask("POST", "/system/secrets", { body: { name, ...body } })).status, 202);
      assert.ok((await api.secrets.read("fn", name))!.equals(most));
    }
    for (const body of [{ value: `${most}x` }, { rawValue: Buffer.concat([most, most]).toString("base64") }]) {
      const answer = await api.ask("PUT", "/system/secrets", { body: { name: "text", ...body } });
      assert.deepEqual([answer.status, /more than the 1048576/.test(answer.text)], [400, true]);
    }
    assert.ok((await api.secrets.read("fn", "text"))!.equals(most));
  });

  test("are not told by the answer to a body that cannot be read", async () => {
    await using api = await open();
    for (const body of [
      '{"name":"a","value":"hidden"',
      '{"value":hidden}',
      '{"value":"hidden\n"}',
      '{"value":"hidden"} x',
      '["hidden"]',
    ])
      assert.doesNotMatch((await api.ask("POST", "/system/secrets", { body })).text, /hidden/);
  });

  for (const method of ["PUT", "DELETE"])
    test(`that do not exist are answered 404 by ${method}, and not made`, async () => {
      await using api = await open();
      const answer = await api.ask(method, "/system/secrets", { body: { name: "key", value: "new" } });
      assert.deepEqual([answer.status, /key does not exist in namespace fn/.test(answer.text)], [404, true]);
      assert.deepEqual(await api.secrets.list("fn"), []);
    });

  for (const method of ["POST", "PUT", "DELETE"]) {
    for (const name of ["", "../key", "a/b", "..", "/etc/passwd", "a\0b", " key", "x".repeat(254)])
      test(`cannot be called ${JSON.stringify(name.slice(0, 20))} by ${method}`, async () => {
        await using api = await open();
        const answer = await api.ask(method, "/system/secrets", { body: { name, value: "x" } });
        assert.equal(answer.status, 400, answer.text);
      });
    test(`cannot be in a namespace that does not exist, by ${method}`, async () => {
      await using api = await open();
      for (const namespace of ["ghost", "..", "../fn"]) {
        const answer = await api.ask(method, "/system/secrets", { body: { name: "key", namespace } });
        assert.equal(answer.status, 400, answer.text);
      }
    });
    test(`need a name that is a text, by ${method}`, async () => {
      await using api = await open();
      for (const body of [{}, { name: 5 }, { name: null }, { name: ["key"] }])
        assert.equal((await api.ask(method, "/system/secrets", { body })).status, 400);
    });
  }
});

suite("what napd says of itself", () => {
  test("is what clients look for: provider, orchestration, versions, architecture", async () => {
    await using api = await open();
    const info = JSON.parse((await api.ask("GET", "/system/info")).text);
    assert.deepEqual([info.provider.provider, info.provider.orchestration], ["napd", "containerd"]);
    for (const version of [info.provider.version, info.version]) {
      assert.equal(version.release, "1.2.3");
      assert.ok(typeof version.sha === "string" && version.sha !== "");
    }
    assert.ok(["amd64", "arm64"].includes(info.arch), info.arch);
  });

  test("is the provider's name that the setting gives", async () => {
    await using api = await open({ providerName: "faasd" });
    assert.equal(JSON.parse((await api.ask("GET", "/system/info")).text).provider.provider, "faasd");
  });

  test("goes to nobody: there is no telemetry", async () => {
    await using api = await open();
    assert.equal((await api.ask("GET", "/system/telemetry")).status, 404);
  });
});

suite("images", () => {
  test("are listed as JSON, with times as text", async () => {
    await using api = await open();
    const [image] = JSON.parse((await api.ask("GET", "/system/images")).text);
    const time = "2001-09-09T01:46:40.000Z";
    assert.deepEqual(image, { ...api.images.info, createdAt: time, usedAt: time });
    const pulls = JSON.parse((await api.ask("GET", "/system/images/pulls?namespace=team")).text);
    assert.deepEqual(pulls, [
      { namespace: "team", name: "ghcr.io/x:1", phase: "download", doneBytes: 3, totalBytes: 9 },
    ]);
    assert.equal((await api.ask("GET", "/system/images?namespace=team")).text, "[]");
    assert.equal((await api.ask("GET", "/system/images?namespace=other")).status, 400);
  });

  test("an upload reaches the import whole, with its length, name and namespace, whatever type it says to be", async () => {
    await using api = await open();
    const body = "x".repeat(900_000);
    const path = "/system/images?name=web:1&namespace=team";
    const answer = await api.ask("POST", path, { body, headers: { "Content-Type": "application/x-tar" } });
    assert.deepEqual([answer.status, JSON.parse(answer.text)[0].name], [201, "docker.io/library/web:1"]);
    assert.deepEqual(api.images.calls, [["import", "team", 900_000, "web:1", body]]);
  });

  test("a layer reaches the composition with what the query says; without a body it is asked for by its digest", async () => {
    await using api = await open();
    const layer = `sha256:${"a".repeat(64)}`;
    const changes = { env: { A: "1", __proto__x: "" }, cmd: ["./serve", "ä b"], workingDir: "/app", user: "1:2" };
    const query = new URLSearchParams({ name: "web:1", base: "base:2", layer, pull: "Always", namespace: "team" });
    const path = `/system/images?${query}&config=${encodeURIComponent(JSON.stringify(changes))}`;
    const missing = await api.ask("POST", path);
    assert.deepEqual([missing.status, /a{64} is not in namespace team; send it/.test(missing.text)], [404, true]);
    const made = await api.ask("POST", path, { body: "layer" });
    assert.deepEqual([made.status, JSON.parse(made.text)[0].name], [201, "docker.io/library/web:1"]);
    const asked = { name: "web:1", base: "base:2", pull: "Always", layer, changes };
    assert.deepEqual(api.images.calls, [
      ["compose", "team", { ...asked, size: 0, text: undefined }],
      ["compose", "team", { ...asked, size: 5, text: "layer" }],
    ]);
  });

  const composed = (config: string) => `/system/images?name=web:1&base=b&config=${encodeURIComponent(config)}`;
  const refusals: [what: string, method: string, path: string, body: string, status: number, text: RegExp][] = [
    ["a composition without a name", "POST", "/system/images?base=b", "layer", 400, /parameter name is missing/],
    ["a composition of nothing", "POST", "/system/images?base=b&name=web:1", "", 400, /no body; send the layer/],
    ["an odd policy", "POST", "/system/images?base=b&name=web:1&pull=x", "layer", 400, /pull must be one of Always/],
    ["no digest", "POST", "/system/images?base=b&name=web:1&layer=md5:0", "layer", 400, /layer must be sha256/],
    ["a config that is no JSON", "POST", composed("{"), "layer", 400, /config: /],
    ["a config of another kind", "POST", composed("[]"), "layer", 400, /config: it: .*object/],
    ["a misspelt config", "POST", composed('{"Cmd":[]}'), "layer", 400, /config: it: .*Cmd/],
    ["a command that is no list", "POST", composed('{"cmd":"x"}'), "layer", 400, /config: cmd: /],
    ["a NUL in a command", "POST", composed('{"cmd":["\\u0000"]}'), "layer", 400, /config: cmd.0: .*NUL/],
    ["a variable with =", "POST", composed('{"env":{"a=":"b"}}'), "layer", 400, /config: env: names/],
    ["a number for a variable", "POST", composed('{"env":{"a":1}}'), "layer", 400, /config: env.a: .*string/],
    ["a relative folder", "POST", composed('{"workingDir":"app"}'), "layer", 400, /config: workingDir: /],
    ["a user with a blank", "POST", composed('{"user":"a b"}'), "layer", 400, /config: user: must be/],
    ["no archive at all", "POST", "/system/images", "", 400, /no body/],
    ["an archive that is none", "POST", "/system/images", "nonsense", 400, /not an image archive/],
    ["one that is too large, before it is read", "POST", "/system/images", "x".repeat(9e6), 413, /images\.max_upload/],
    ["an upload to nowhere", "POST", "/system/images?namespace=no", "archive", 400, /namespace no is not valid/],
    ["removal of what is used", "DELETE", "/system/images?name=web:1", "", 409, /used by function web/],
    ["removal of what is not there", "DELETE", "/system/images?name=none", "", 404, /none is not in namespace fn/],
    ["removal of nothing in particular", "DELETE", "/system/images", "", 400, /name/],
    ["pruning nowhere", "POST", "/system/images/prune?namespace=no", "", 400, /namespace no is not valid/],
  ];
  for (const [what, method, path, body, status, text] of refusals)
    test(`${what} is refused`, async () => {
      await using api = await open();
      const answer = await api.ask(method, path, { body });
      assert.deepEqual([answer.status, text.test(answer.text)], [status, true], answer.text);
    });

  test("pruning is for one namespace, or for all", async () => {
    await using api = await open();
    const names = async (path: string) =>
      JSON.parse((await api.ask("POST", path)).text).map((i: { namespace: string }) => i.namespace);
    assert.deepEqual(await names("/system/images/prune?namespace=team"), ["team"]);
    assert.deepEqual(await names("/system/images/prune"), ["fn", "team"]);
  });
});
