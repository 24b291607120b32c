/** Backups as files and directories; test/system/backup.test.ts has napd around them. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { chmod, mkdir, readdir, readFile, stat, symlink, writeFile } from "node:fs/promises";
import { DatabaseSync } from "node:sqlite";
import { Writable } from "node:stream";
import { suite, test } from "node:test";
import { promisify } from "node:util";
import { gunzipSync, gzipSync } from "node:zlib";
import { isAppError } from "../../../src/base/errors.ts";
import { tarEnd, tarHeader, tarPadding } from "../../../src/base/tar.ts";
import { writeBackup } from "../../../src/store/backup.ts";
import { FunctionStore } from "../../../src/store/functions.ts";
import { finishRestore, restoreBackup } from "../../../src/store/restore.ts";
import { SecretStore } from "../../../src/store/secrets.ts";
import { openState, schemaVersion } from "../../../src/store/state.ts";
import { tmpDir } from "../../support/tmp.ts";

const run = promisify(execFile);
const main = `${import.meta.dirname}/../../../src/main.ts`;
const id = { namespace: "fn", name: "web" };
const longSecret = `${"s".repeat(250)}.x`;
const everyByte = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
const nowhere = new Writable({ write: (_chunk, _encoding, done) => done() });

/** A data directory with a function, secrets, credentials and logins, its database open as a running napd has it. */
async function open() {
  await using up = new AsyncDisposableStack();
  const { path } = up.use(await tmpDir());
  const dataDir = `${path}/data`;
  const db = openState(dataDir);
  up.defer(() => db.close());
  const store = new FunctionStore<{ image: string }>(db);
  store.insert(id, { image: "web:1" }, store.nextGeneration(), 2, 1000);
  const secrets = new SecretStore(`${dataDir}/secrets`);
  await secrets.put("fn", "key", everyByte);
  await secrets.put("fn", longSecret, Buffer.from("long"));
  await mkdir(`${dataDir}/credentials`, { mode: 0o700 });
  await writeFile(`${dataDir}/credentials/basic-auth-password`, "old password", { mode: 0o600 });
  await writeFile(`${dataDir}/docker-config.json`, "{}", { mode: 0o600 });
  const file = `${path}/backup.tgz`;
  const source = { dataDir, loginsFile: `${dataDir}/docker-config.json`, version: "1.2.3", now: 1e12 };
  const write = () => writeBackup(source, file, nowhere);
  const stack = up.move();
  return { path, dataDir, db, store, secrets, file, source, write, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

/** Every file below a directory with its mode and content, but for the database. */
async function contentOf(dir: string): Promise<Record<string, string>> {
  const entries = await readdir(dir, { recursive: true, withFileTypes: true });
  const files = entries.filter((e) => e.isFile() && !e.name.startsWith("state.db"));
  const pairs = files.map(async ({ parentPath, name }) => {
    const path = `${parentPath}/${name}`;
    return [
      path.slice(dir.length + 1),
      `${((await stat(path)).mode & 0o777).toString(8)} ${await readFile(path, "base64")}`,
    ];
  });
  return Object.fromEntries((await Promise.all(pairs)).sort());
}

function functionsOf(dataDir: string) {
  const db = openState(dataDir);
  try {
    const store = new FunctionStore<{ image: string }>(db);
    return { rows: store.list(), next: store.nextGeneration() };
  } finally {
    db.close();
  }
}

const restoreTo = (dataDir: string, file: string, force = false) => restoreBackup({ dataDir, file, force });

function refuses(why: RegExp) {
  return (e: unknown) => isAppError(e, "RESTORE") && why.test(e.message);
}

suite("a backup", () => {
  test("restores everything to an empty place, byte for byte, readable by its owner alone", async () => {
    await using t = await open();
    const written = await t.write();
    assert.deepEqual([written.functions, written.secrets, written.schema], [1, 2, schemaVersion]);
    assert.equal((await stat(t.file)).mode & 0o777, 0o600);
    const elsewhere = `${t.path}/elsewhere`;
    assert.deepEqual(await restoreTo(elsewhere, t.file), written);
    assert.deepEqual(await contentOf(elsewhere), await contentOf(t.dataDir));
    const { rows, next } = functionsOf(elsewhere);
    const [row] = t.store.list();
    assert.deepEqual(rows, [{ ...row, generation: rows[0]!.generation }]);
    assert.ok(next > rows[0]!.generation);
    assert.deepEqual(
      (await readdir(elsewhere)).filter((n) => /backup|restore/.test(n)),
      [],
    );
    assert.deepEqual(
      (await readdir(t.dataDir)).filter((n) => n.startsWith(".")),
      [],
    );
  });

  test("can go to standard output", async () => {
    await using t = await open();
    const pieces: Buffer[] = [];
    const out = new Writable({
      write(piece, _, done) {
        pieces.push(piece);
        done();
      },
    });
    await writeBackup(t.source, "-", out);
    await writeFile(t.file, Buffer.concat(pieces));
    assert.equal((await restoreTo(`${t.path}/elsewhere`, t.file)).functions, 1);
  });

  test("holds no link and nothing that is not ours", async () => {
    await using t = await open();
    await symlink("/etc/passwd", `${t.dataDir}/secrets/fn/link`);
    await writeFile(`${t.dataDir}/secrets/fn/.~draft`, "half");
    await writeFile(`${t.dataDir}/other`, "other");
    await t.write();
    await restoreTo(`${t.path}/elsewhere`, t.file);
    const names = Object.keys(await contentOf(`${t.path}/elsewhere`));
    assert.deepEqual(names, [
      "credentials/basic-auth-password",
      "docker-config.json",
      "secrets/fn/key",
      `secrets/fn/${longSecret}`,
    ]);
  });

  test("is whole or not there: a failure leaves the old one", async () => {
    await using t = await open();
    await writeFile(t.file, "the old one");
    await chmod(`${t.dataDir}/state.db`, 0o600);
    const source = { ...t.source, dataDir: `${t.path}/nothing` };
    await assert.rejects(writeBackup(source, t.file, nowhere), (e) => isAppError(e, "BACKUP"));
    const folder = { ...t.source };
    await assert.rejects(writeBackup(folder, `${t.path}/no/such/folder/x`, nowhere), (e) => isAppError(e, "BACKUP"));
    assert.equal(await readFile(t.file, "utf8"), "the old one");
    assert.deepEqual((await readdir(t.path)).sort(), ["backup.tgz", "data"]);
  });
});

suite("a restore", () => {
  test("of what is there already wants force, and then leaves nothing of it", async () => {
    await using t = await open();
    await t.write();
    const there = `${t.path}/there`;
    const db = openState(there);
    const store = new FunctionStore<{ image: string }>(db);
    for (let i = 0; i < 40; i++) store.nextGeneration();
    store.insert({ namespace: "fn", name: "other" }, { image: "other:1" }, store.nextGeneration(), 1, 1);
    await new SecretStore(`${there}/secrets`).put("fn", "other", Buffer.from("x"));
    db.close();
    const before = await contentOf(there);
    await assert.rejects(restoreTo(there, t.file), refuses(/holds state already.*--force/));
    assert.deepEqual(await contentOf(there), before);
    assert.deepEqual(
      functionsOf(there).rows.map((r) => r.name),
      ["other"],
    );

    await restoreTo(there, t.file, true);
    assert.deepEqual(await contentOf(there), await contentOf(t.dataDir));
    const { rows } = functionsOf(there);
    assert.deepEqual(
      rows.map((r) => r.name),
      ["web"],
    );
    assert.ok(rows[0]!.generation > 41, "what runs here under an old number is something else");
  });

  test("takes away what the backup does not have", async () => {
    await using t = await open();
    await writeBackup({ ...t.source, loginsFile: `${t.path}/none` }, t.file, nowhere);
    t.db.close();
    await restoreTo(t.dataDir, t.file, true);
    assert.deepEqual((await readdir(t.dataDir)).sort(), ["credentials", "secrets", "state.db"]);
    openState(t.dataDir).close();
    t.db.open();
  });

  /** A backup of these files, the manifest first unless it is one of them. */
  const packed = (files: [name: string, content: string | Buffer][]) =>
    gzipSync(
      Buffer.concat([
        ...files.flatMap(([name, content]) => {
          const body = Buffer.from(content);
          return [tarHeader({ name, size: body.length, mode: 0o600, mtime: 0 }), body, tarPadding(body.length)];
        }),
        tarEnd,
      ]),
    );
  const manifest = {
    ...{ format: 1, schema: schemaVersion, napd: "9.9.9", createdAt: "", functions: 0, secrets: 0 },
    items: ["state.db"],
  };
  const first = (more = {}): [string, string] => ["napd-backup.json", JSON.stringify({ ...manifest, ...more })];

  const rows: [what: string, change: (good: Buffer) => Buffer, why: RegExp][] = [
    ["nothing", () => Buffer.alloc(0), /./],
    ["no archive", () => Buffer.from("hello"), /no backup of napd, or damaged/],
    ["one that is cut off", (good) => good.subarray(0, good.length - 20), /no backup of napd, or damaged/],
    [
      "one that ends at a file's end, packed again",
      (good) => gzipSync(gunzipSync(good).subarray(0, 1024)),
      /state.db is missing/,
    ],
    [
      "a flipped bit",
      (good) => {
        const bad = Buffer.from(good);
        bad[bad.length >> 1]! ^= 1;
        return bad;
      },
      /./,
    ],
    ["another archive", () => packed([["hello", "hello"]]), /does not begin with napd-backup.json/],
    ["a manifest that is none", () => packed([["napd-backup.json", "{"]]), /napd-backup.json/],
    ["another format", () => packed([first({ format: 2 })]), /is not of format 1/],
    ["one of a newer napd", () => packed([first({ schema: 999 })]), /newer napd \(9\.9\.9, schema 999; .*install/],
    ["a file that leads out", () => packed([first(), ["secrets/../../x", "x"]]), /leads out of it/],
    ["a file that has no place", () => packed([first(), ["uploads/x", "x"]]), /an entry "uploads\/x"/],
    ["a secret with a bad name", () => packed([first(), ["secrets/fn/.hidden", "x"]]), /an entry/],
    ["a file that is there twice", () => packed([first(), ["state.db", "x"], ["state.db", "y"]]), /exist/],
    ["a database that is none", () => packed([first(), ["state.db", "x".repeat(5000)]]), /not a database/],
  ];
  for (const [what, change, why] of rows)
    test(`of ${what} is refused, and changes nothing`, async () => {
      await using t = await open();
      await t.write();
      await writeFile(t.file, change(await readFile(t.file)));
      const before = await contentOf(t.dataDir);
      await assert.rejects(restoreTo(t.dataDir, t.file, true), refuses(why));
      assert.deepEqual(await contentOf(t.dataDir), before);
      assert.deepEqual(
        (await readdir(t.dataDir)).filter((n) => n.startsWith("restore")),
        [],
      );
      assert.equal(t.store.list()[0]!.name, "web");
    });

  for (const [point, isRestored] of [
    ["restore.staged", false],
    ["restore.committed", true],
    ...["state.db", "secrets", "credentials", "docker-config.json"].map((item) => [`restore.${item}`, true] as const),
  ] as const)
    test(`killed at ${point} is ${isRestored ? "finished" : "forgotten"} by who opens the state next`, async () => {
      await using t = await open();
      await t.write();
      t.store.insert({ namespace: "fn", name: "late" }, { image: "late:1" }, t.store.nextGeneration(), 1, 1);
      await t.secrets.put("fn", "key", Buffer.from("later"));
      t.db.close();
      const args = [main, "restore", "--force", "--set", `paths.data=${t.dataDir}`, t.file];
      const env = { ...process.env, NAPD_FAILPOINTS: `${point}=exit` };
      await assert.rejects(run(process.execPath, args, { env }), (e: { signal?: string }) => e.signal === "SIGKILL");
      await finishRestore(t.dataDir);
      const names = functionsOf(t.dataDir).rows.map((row) => row.name);
      assert.deepEqual(names, isRestored ? ["web"] : ["late", "web"]);
      assert.deepEqual(await t.secrets.read("fn", "key"), isRestored ? everyByte : Buffer.from("later"));
      assert.deepEqual(
        (await readdir(t.dataDir)).filter((n) => n.startsWith("restore")),
        [],
      );
      t.db.open();
    });

  test("that was cut short after it was whole is finished by whoever comes next", async () => {
    await using t = await open();
    await t.write();
    const there = `${t.path}/there`;
    await restoreTo(there, t.file);
    // as it is when the first of two items has been moved: the rest waits, with what says what is to come
    await mkdir(`${there}/restore`, { mode: 0o700 });
    await writeFile(
      `${there}/restore/napd-backup.json`,
      JSON.stringify({ ...manifest, items: ["state.db", "credentials"] }),
    );
    await mkdir(`${there}/restore/credentials`);
    await writeFile(`${there}/restore/credentials/basic-auth-password`, "new password", { mode: 0o600 });
    await writeFile(`${there}/state.db-wal`, "of another database");
    for (let i = 0; i < 2; i++) {
      await finishRestore(there);
      assert.deepEqual(Object.keys(await contentOf(there)), ["credentials/basic-auth-password"]);
      assert.equal(await readFile(`${there}/credentials/basic-auth-password`, "utf8"), "new password");
      assert.deepEqual((await readdir(there)).sort(), ["credentials", "state.db"]);
    }
    const db = new DatabaseSync(`${there}/state.db`);
    assert.equal(db.prepare("SELECT count(*) AS n FROM functions").get()!.n, 1);
    db.close();
  });

  test("that was cut short before it was whole is forgotten", async () => {
    await using t = await open();
    await mkdir(`${t.dataDir}/restore.part`);
    await writeFile(`${t.dataDir}/restore.part/state.db`, "half");
    const before = await contentOf(t.dataDir);
    await finishRestore(t.dataDir);
    delete before["restore.part/state.db"];
    assert.deepEqual(await contentOf(t.dataDir), before);
    assert.equal(t.store.list().length, 1);
  });
});
