import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { AppError, type ErrorCode, isAppError } from "../../../src/base/errors.ts";
import { openLog } from "../../../src/base/log.ts";
import { Namespaces } from "../../../src/functions/namespaces.ts";
import { Secrets } from "../../../src/functions/secrets.ts";
import { gate, openPlatform, until } from "../../fakes/platform.ts";

const code = (wanted: ErrorCode) => (e: unknown) => isAppError(e, wanted);
const named = (name: string) => ({ name, labels: { openfaas: "1" }, annotations: {} });

/** Namespaces and secrets on a platform, with namespace team. */
async function open() {
  const p = await openPlatform();
  const openNamespaces = () =>
    new Namespaces({
      ...{
        store: p.namespaces,
        secrets: p.secrets,
        backend: p.backend,
        defaultNamespace: "fn",
        log: openLog("silent"),
      },
      occupants: (name) => p.functions().occupants(name),
    });
  const namespaces = openNamespaces();
  const secrets = new Secrets({ store: p.secrets, namespaces, backend: p.backend, overwrite: false });
  await namespaces.create(named("team"));
  p.backend.push("web:1");
  return { p, namespaces, openNamespaces, secrets, [Symbol.asyncDispose]: () => p[Symbol.asyncDispose]() };
}

suite("a namespace", () => {
  test("can be used when it is made: for functions, for secrets, and by the backend", async () => {
    await using w = await open();
    assert.deepEqual(w.namespaces.list(), ["fn", "team"]);
    assert.ok(w.p.backend.namespaces.has("team"));
    await w.secrets.create("team", "key", Buffer.from("x"));
    await w.p.create({ service: "web", namespace: "team", image: "web:1", secrets: ["key"] });
    assert.equal((await w.p.call("web.team")).text, "web:1");
  });

  test("that the backend refuses is not made", async () => {
    await using w = await open();
    w.p.backend.failNext("addNamespace", new AppError("NAMESPACE_TAKEN", ["moby"]));
    await assert.rejects(w.namespaces.create(named("moby")), code("NAMESPACE_TAKEN"));
    assert.deepEqual(w.namespaces.list(), ["fn", "team"]);
  });

  test("made by two at once is made by one of them", async () => {
    await using w = await open();
    const made = await Promise.allSettled([w.namespaces.create(named("new")), w.namespaces.create(named("new"))]);
    assert.deepEqual(made.map((m) => m.status).sort(), ["fulfilled", "rejected"]);
  });

  test("goes with its secrets, and with nothing of another", async () => {
    await using w = await open();
    for (const ns of ["fn", "team"]) await w.secrets.create(ns, "key", Buffer.from("x"));
    await w.namespaces.remove("team");
    assert.ok(!w.p.backend.namespaces.has("team"));
    assert.throws(() => w.namespaces.get("team"), code("NAMESPACE_UNKNOWN"));
    await assert.rejects(w.secrets.list("team"), code("NAMESPACE_NOT_FOUND"));
    assert.deepEqual([await w.p.secrets.list("team"), await w.p.secrets.list("fn")], [[], ["key"]]);
  });

  test("stays while it has a function", async () => {
    await using w = await open();
    await w.p.create({ service: "web", namespace: "team", image: "web:1" });
    await assert.rejects(w.namespaces.remove("team"), code("NAMESPACE_IN_USE"));
    assert.equal((await w.p.call("web.team")).text, "web:1");
    await w.p.functions().remove({ name: "web", namespace: "team" });
    await w.namespaces.remove("team");
  });

  test("stays while a function is on its way into it or out of it", async () => {
    await using w = await open();
    const { opened, open: go } = gate();
    w.p.backend.gate = opened;
    const deploying = w.p.create({ service: "web", namespace: "team", image: "web:1" });
    await assert.rejects(w.namespaces.remove("team"), code("NAMESPACE_IN_USE"));
    go();
    await deploying;
    const stop = gate();
    const end = w.p.backend.stop.bind(w.p.backend);
    w.p.backend.stop = async (replica, ms) => {
      await stop.opened;
      await end(replica, ms);
    };
    const removing = w.p.functions().remove({ name: "web", namespace: "team" });
    await until("it has no row", () => w.p.store.list().length === 0);
    await assert.rejects(w.namespaces.remove("team"), /being deleted/);
    stop.open();
    await removing;
    await w.namespaces.remove("team");
  });

  test("stays while images are being brought into it", async () => {
    await using w = await open();
    const { opened, open: go } = gate();
    const importing = w.namespaces.occupied("team", () => opened);
    await assert.rejects(w.namespaces.remove("team"), /an import of images/);
    go();
    await importing;
    await w.namespaces.remove("team");
    await assert.rejects(
      w.namespaces.occupied("team", async () => {}),
      code("NAMESPACE_NOT_FOUND"),
    );
  });

  test("that is leaving takes no function and no secret", async () => {
    await using w = await open();
    const removing = w.namespaces.remove("team");
    const secret = w.secrets.create("team", "key", Buffer.from("x"));
    await until("it is leaving", () => w.p.namespaces.get("team")?.leaving !== false);
    await assert.rejects(
      w.p.create({ service: "web", namespace: "team", image: "web:1" }),
      code("NAMESPACE_NOT_FOUND"),
    );
    await assert.rejects(secret, code("NAMESPACE_NOT_FOUND"));
    await removing;
    assert.deepEqual(await w.p.secrets.list("team"), []);
  });

  test("whose removal failed is no more, and is removed by the next try, a restart, or its being made again", async () => {
    const tries: { says: string; retry: (w: Awaited<ReturnType<typeof open>>) => Promise<void>; left: string[] }[] = [
      { says: "delete", retry: (w) => w.namespaces.remove("team"), left: ["fn"] },
      { says: "restart", retry: (w) => w.openNamespaces().open(), left: ["fn"] },
      { says: "create", retry: (w) => w.namespaces.create(named("team")), left: ["fn", "team"] },
    ];
    for (const { says, retry, left } of tries) {
      await using w = await open();
      await w.secrets.create("team", "key", Buffer.from("x"));
      w.p.backend.failNext("removeNamespace", new AppError("CONTAINERD_UNAVAILABLE", ["sock"]));
      await assert.rejects(w.namespaces.remove("team"), code("CONTAINERD_UNAVAILABLE"));
      assert.deepEqual(w.namespaces.list(), ["fn"]);
      await retry(w);
      assert.deepEqual([w.namespaces.list(), await w.p.secrets.list("team")], [left, []], says);
    }
  });

  test("in which others keep things stays as it was", async () => {
    await using w = await open();
    await w.secrets.create("team", "key", Buffer.from("x"));
    w.p.backend.failNext("removeNamespace", new AppError("NAMESPACE_IN_USE", ["team", "things"]));
    await assert.rejects(w.namespaces.remove("team"), code("NAMESPACE_IN_USE"));
    assert.deepEqual([w.namespaces.list(), await w.secrets.list("team")], [["fn", "team"], ["key"]]);
  });

  test("that was the default one stays when another becomes it", async () => {
    await using w = await open();
    await assert.rejects(w.namespaces.remove("fn"), code("NAMESPACE_DEFAULT"));
    Namespaces.ensureDefault(w.p.namespaces, "other");
    assert.deepEqual(w.p.namespaces.names(), ["fn", "other", "team"]);
    assert.deepEqual(w.namespaces.get("other").labels, { openfaas: "1" });
  });
});

suite("a secret", () => {
  test("that changes is shown to running functions before the change is answered", async () => {
    await using w = await open();
    await w.secrets.create("team", "key", Buffer.from("old"));
    await w.secrets.replace("team", "key", Buffer.from("new"));
    assert.equal(w.p.backend.count("refreshSecret team/key"), 2);
  });
});
