import { readdir } from "node:fs/promises";
import { Bodies } from "../../src/queue/bodies.ts";
import { bodiesDir, SqliteStore } from "../../src/queue/sqlite.ts";
import { tmpDir } from "../support/tmp.ts";
import { queueContract } from "./queue.ts";

queueContract("SQLite", async () => {
  const dir = await tmpDir();
  let store = await SqliteStore.open(dir.path);
  return {
    bodies: new Bodies(bodiesDir(dir.path)),
    store: () => store,
    async reopen() {
      await store[Symbol.asyncDispose]();
      store = await SqliteStore.open(dir.path);
    },
    largeBodies: async () => (await readdir(bodiesDir(dir.path))).length,
    async [Symbol.asyncDispose]() {
      await store[Symbol.asyncDispose]();
      await dir[Symbol.asyncDispose]();
    },
  };
});
