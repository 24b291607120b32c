/**
 * The queue's database, in a thread of its own: SQLite waits for the disk, and the event loop must not. What comes in
 * one turn is one transaction, so that one fsync serves all who wait for it (group commit).
 */
import { mkdirSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync, type SQLInputValue } from "node:sqlite";
import { parentPort, workerData } from "node:worker_threads";
import type { Depth, Lane, Message, MessageFilter, MessageInfo, NewMessage, Outcome, QueueStore } from "./store.ts";

/** What is asked for, in one turn of the event loop. */
export interface Request {
  readonly id: number;
  readonly method: Exclude<keyof QueueStore, symbol | "isShared" | "watch">;
  readonly args: readonly unknown[];
}

export interface Reply {
  readonly id: number;
  readonly value?: unknown;
  /** SQLite's sentence; `full` when there is no room for more. */
  readonly error?: { readonly message: string; readonly full: boolean };
}

/** Each entry brings the schema one version further; never edit one that was released. */
const migrations = [
  `CREATE TABLE messages (
     seq INTEGER PRIMARY KEY AUTOINCREMENT,
     call_id TEXT NOT NULL,
     lane TEXT NOT NULL,
     fn TEXT NOT NULL,
     state TEXT NOT NULL,
     target TEXT NOT NULL,
     headers TEXT NOT NULL,          -- JSON: names and values in turn
     body BLOB,
     file TEXT,                      -- instead of body, a name in the queue's directory
     bytes INTEGER NOT NULL,
     callback TEXT,
     attempts INTEGER NOT NULL DEFAULT 0,
     due INTEGER NOT NULL,           -- ms since the epoch, as created
     created INTEGER NOT NULL,
     status INTEGER,
     error TEXT
   ) STRICT;
   CREATE INDEX messages_work ON messages (lane, fn, state, due, seq);
   CREATE INDEX messages_call ON messages (call_id);
   CREATE INDEX messages_dead ON messages (seq) WHERE state = 'dead'`,
  // with created: whoever counts reads the index alone, not the bodies
  `DROP INDEX messages_work;
   CREATE INDEX messages_work ON messages (lane, fn, state, due, seq, created);
   CREATE INDEX messages_file ON messages (file) WHERE file IS NOT NULL`,
];

/** Free pages, 4 KiB each, that the file keeps for what comes; more are given back while nothing is asked. */
const keptPages = 4096;
/** Pages that are given back at a time; who asks meanwhile waits for so many. */
const pagesAtOnce = 500;

const { file, bodiesDir } = workerData as { file: string; bodiesDir: string };
const db = open();
const port = parentPort!;
let waiting: Request[] = [];
/** Body files whose messages go with the transaction under way. */
let leaving: string[] = [];
/** False for a database of before there was this. */
const canGiveBack = db.prepare("PRAGMA auto_vacuum").get()!.auto_vacuum === 2;
let isGivingBack = false;

port.on("message", (requests: Request[] | null) => {
  if (requests === null) {
    run();
    db.close();
    port.close();
    return;
  }
  if (waiting.length === 0) setImmediate(run);
  waiting.push(...requests);
});
port.postMessage([]);

function open(): DatabaseSync {
  mkdirSync(bodiesDir, { recursive: true, mode: 0o700 });
  const opened = new DatabaseSync(file);
  opened.exec("PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL");
  opened.exec("PRAGMA busy_timeout = 5000; PRAGMA journal_size_limit = 67108864");
  const version = Number(opened.prepare("PRAGMA user_version").get()!.user_version);
  if (version > migrations.length)
    throw new Error(`it was written by a newer napd (schema ${version}, this one knows ${migrations.length})`);
  for (let next = version; next < migrations.length; next++)
    opened.exec(`BEGIN IMMEDIATE; ${migrations[next]}; PRAGMA user_version = ${next + 1}; COMMIT`);
  const running = "SELECT seq FROM messages INDEXED BY messages_work WHERE state = 'running'";
  opened.exec(`UPDATE messages SET state = 'queued' WHERE seq IN (${running})`);
  const isKnown = opened.prepare("SELECT 1 FROM messages WHERE file = ?");
  // of uploads that nobody was answered for, and of messages that had just gone
  for (const name of readdirSync(bodiesDir)) if (!isKnown.get(name)) rmSync(join(bodiesDir, name), { force: true });
  return opened;
}

function run(): void {
  const requests = waiting;
  waiting = [];
  if (requests.length === 0) return;
  let replies: Reply[];
  try {
    replies = transaction(() => requests.map((request) => ({ id: request.id, value: perform(request) })));
  } catch {
    // one of them cannot be done: each for itself, so that the others are not refused along with it
    replies = requests.map((request) => {
      try {
        return transaction(() => ({ id: request.id, value: perform(request) }));
      } catch (e) {
        return { id: request.id, error: describe(e) };
      }
    });
  }
  port.postMessage(replies);
  setImmediate(giveBack);
}

/** A queue that was long does not keep the disk when it is short again. */
function giveBack(): void {
  if (waiting.length > 0 || !db.isOpen || !canGiveBack) return;
  try {
    const [row] = all("PRAGMA freelist_count");
    if (Number(row!.freelist_count) > keptPages) {
      db.exec(`PRAGMA incremental_vacuum(${pagesAtOnce})`);
      isGivingBack = true;
      setImmediate(giveBack);
    } else if (isGivingBack) {
      isGivingBack = false;
      db.exec("PRAGMA wal_checkpoint(TRUNCATE)"); // it is then that the file becomes shorter
    }
  } catch {
    // the disk is full, or somebody reads: there will be another time
  }
}

function transaction<T>(work: () => T): T {
  leaving = [];
  let result: T;
  db.exec("BEGIN IMMEDIATE");
  try {
    result = work();
    db.exec("COMMIT");
  } catch (e) {
    if (db.isTransaction) db.exec("ROLLBACK");
    throw e;
  }
  for (const name of leaving) rmSync(join(bodiesDir, name), { force: true });
  return result;
}

function describe(e: unknown): NonNullable<Reply["error"]> {
  const { message, errcode } = e as Error & { errcode?: number };
  return { message, full: errcode !== undefined && (errcode & 0xff) === 13 }; // SQLITE_FULL
}

type Row = Record<string, SQLInputValue>;

function all(sql: string, ...values: SQLInputValue[]): Row[] {
  let statement = statements.get(sql);
  if (!statement) {
    statement = db.prepare(sql);
    statements.set(sql, statement);
  }
  return statement.all(...values) as Row[];
}

function perform({ method, args }: Request): unknown {
  return (methods[method] as (...given: readonly unknown[]) => unknown)(...args);
}

/** Rows that a statement has removed. */
function removed(rows: Row[]): Row[] {
  for (const { file: name } of rows) if (typeof name === "string") leaving.push(name);
  return rows;
}

function put({ callId, lane, fn, target, headers, body, callback, created }: NewMessage): void {
  all(
    `INSERT INTO messages (call_id, lane, fn, state, target, headers, body, file, bytes, callback, due, created)
     VALUES (?, ?, ?, 'queued', ?, ?, ?, ?, ?, ?, ?, ?)`,
    ...[callId, lane, fn, target, JSON.stringify(headers), body.data, body.file, body.bytes, callback],
    ...[created, created],
  );
}

const statements = new Map<string, ReturnType<DatabaseSync["prepare"]>>();

const methods: { [M in Request["method"]]: (...args: never[]) => unknown } = {
  put,

  take(lane: Lane, fn: string, limit: number, now: number) {
    const rows = all(
      `UPDATE messages SET state = 'running', attempts = attempts + 1 WHERE seq IN (
         SELECT seq FROM messages WHERE lane = ? AND fn = ? AND state = 'queued' AND due <= ? ORDER BY due, seq LIMIT ?
       ) RETURNING *`,
      ...[lane, fn, now, limit],
    );
    rows.sort((a, b) => Number(a.due) - Number(b.due) || Number(a.seq) - Number(b.seq));
    const [next] = all("SELECT min(due) AS due FROM messages WHERE lane = ? AND fn = ? AND state = 'queued'", lane, fn);
    return { messages: rows.map(toMessage), nextDue: next!.due };
  },

  settle(seq: number, outcome: Outcome) {
    const { to, next, status = null, error = null } = outcome;
    const rows =
      to === "done"
        ? removed(all("DELETE FROM messages WHERE seq = ? RETURNING file", seq))
        : all(
            "UPDATE messages SET state = ?, due = coalesce(?, due), status = ?, error = ? WHERE seq = ? RETURNING seq",
            ...[to, to === "queued" ? outcome.due : null, status, error, seq],
          );
    if (rows.length > 0 && next) put(next);
    return rows.length > 0;
  },

  depths(): Depth[] {
    return all(
      `SELECT lane, fn, sum(state = 'queued') AS queued, sum(state = 'running') AS running, sum(state = 'dead') AS dead,
         min(iif(state = 'dead', NULL, created)) AS oldest FROM messages GROUP BY lane, fn`,
    ) as unknown as Depth[];
  },

  list({ fn, namespace, state, callId, limit }: MessageFilter): MessageInfo[] {
    const conditions: [sql: string, ...values: SQLInputValue[]][] = [];
    if (callId !== undefined) conditions.push(["call_id = ?", callId]);
    if (fn !== undefined) conditions.push(["lane IN ('call', 'callback') AND fn = ?", fn]);
    if (namespace !== undefined) conditions.push(["fn LIKE '%.' || ?", namespace]);
    if (state !== undefined) conditions.push([`state = '${state}'`]);
    const where = conditions.length === 0 ? "" : `WHERE ${conditions.map(([sql]) => sql).join(" AND ")}`;
    // which ones, the indexes tell; only those that are shown are read
    const rows = all(
      `SELECT call_id AS callId, lane, fn, target, state, attempts, bytes, callback, created, due, status, error
       FROM messages WHERE seq IN (SELECT seq FROM messages ${where} ORDER BY seq LIMIT ?) ORDER BY seq`,
      ...[...conditions.flatMap(([, ...values]) => values), limit],
    );
    return rows as unknown as MessageInfo[];
  },

  remove(callId: string) {
    return removed(all("DELETE FROM messages WHERE call_id = ? RETURNING seq, lane, fn, state, file", callId));
  },

  revive(callId: string, now: number) {
    return all(
      `UPDATE messages SET state = 'queued', attempts = 0, due = ? WHERE call_id = ? AND state = 'dead'
       RETURNING lane, fn`,
      ...[now, callId],
    );
  },

  bury(before: number, keep: number) {
    const old = "DELETE FROM messages WHERE state = 'dead' AND (created < ? OR seq IN (";
    const beyond = "SELECT seq FROM messages WHERE state = 'dead' ORDER BY seq DESC LIMIT -1 OFFSET ?";
    return removed(all(`${old}${beyond})) RETURNING file`, before, keep)).length;
  },
};

function toMessage(row: Row): Message {
  const { seq, call_id, lane, fn, target, headers, body, file: name, bytes, callback, attempts, created } = row;
  return {
    seq: Number(seq),
    callId: String(call_id),
    lane: lane as Lane,
    fn: String(fn),
    target: String(target),
    headers: JSON.parse(String(headers)),
    body: { bytes: Number(bytes), data: body, file: name } as Message["body"],
    callback: callback as string | null,
    attempts: Number(attempts),
    created: Number(created),
  };
}
