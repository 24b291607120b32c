/**
 * The recorded behaviour of the OpenFaaS watchdogs (contracts/watchdog.md §6), asked of our binary: every case of
 * test/cases/watchdog-cases.json must come out as recorded, as its `better` says, or as the table of deliberate
 * differences says, which is printed in docs/watchdog.md.
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { before, suite, test } from "node:test";
import { type Case, type CaseEvent, type Expectation, readCases } from "./watchdog/case.ts";
import { differences, differencesTable, rewordings } from "./watchdog/differences.ts";
import { runCase } from "./watchdog/run.ts";

const root = join(import.meta.dirname, "../..");
const binary = join(root, `dist/fwatchdog-linux-${process.arch}`);
const cases = readCases();
const overrides = new Map([...differences.flatMap((d) => Object.entries(d.cases)), ...Object.entries(rewordings)]);

before(() => {
  execFileSync(process.execPath, [join(root, "scripts/build-watchdog.ts")]);
});

/** The recorded expectation with what is better, or ours, in its place. */
function expectationOf(c: Case): { expect: Expectation; timeline: CaseEvent[] } {
  const override = overrides.get(c.name);
  if (override) {
    const timeline = (c.timeline ?? []).map((event, i) => {
      const patch = override.events?.[i];
      return patch ? { ...event, expect: changed(event.expect ?? {}, patch) } : event;
    });
    return { expect: changed({ ...c.expect, ...c.better }, override.expect ?? {}), timeline };
  }
  if (!c.better) return { expect: c.expect, timeline: c.timeline ?? [] };
  // What was measured of the wrong behaviour says nothing about the right one.
  const { error: _e, minMs: _a, minTtfbMs: _b, stderrRegex: _c, ...recorded } = c.expect;
  const changesBody = c.better.body !== undefined || c.better.bodyContains || c.better.status !== undefined;
  if (changesBody) for (const key of ["body", "bodyRegex", "headers"] as const) delete recorded[key];
  return { expect: { ...recorded, ...c.better }, timeline: c.timeline ?? [] };
}

/** `undefined` in a patch takes a member away. */
function changed(expect: Expectation, patch: { [K in keyof Expectation]?: Expectation[K] | undefined }): Expectation {
  return Object.fromEntries(Object.entries({ ...expect, ...patch }).filter(([, value]) => value !== undefined));
}

function run(c: Case): Promise<void> {
  const { expect, timeline } = expectationOf(c);
  return runCase(c, expect, timeline, binary);
}

/** Upper bounds on times are for a machine that does nothing else. */
function isTimed(c: Case): boolean {
  const { expect, timeline } = expectationOf(c);
  const all = [expect, ...timeline.map((event) => event.expect ?? {})];
  return all.some((e) => e.maxMs !== undefined || e.maxTtfbMs !== undefined || e.maxExitMs !== undefined);
}

function isSlow(c: Case): boolean {
  return c.timeline !== undefined || c.waitMs !== undefined || c.waitExitMs !== undefined || c.settleMs !== undefined;
}

const groups = Object.groupBy(cases, (c) => (isTimed(c) ? "timed" : isSlow(c) ? "waiting" : "quick"));
const parallel = { quick: 4, waiting: 6, timed: 1 };

for (const [group, concurrency] of Object.entries(parallel))
  suite(`recorded watchdog cases: ${group}`, { concurrency, timeout: 120_000 }, () => {
    for (const c of groups[group as keyof typeof parallel] ?? []) test(c.name, () => run(c));
  });

test("docs/watchdog.md has the table of differences", () => {
  // The formatter aligns the columns.
  const page = readFileSync(join(root, "docs/watchdog.md"), "utf8").replace(/ +\|/g, " |").replace(/-{3,}/g, "---");
  assert.ok(page.includes(differencesTable()), `the page needs this table:\n${differencesTable()}`);
});

test("docs/watchdog.md names every variable that the watchdog reads", () => {
  const page = readFileSync(join(root, "docs/watchdog.md"), "utf8");
  const source = readFileSync(join(root, "src/watchdog/config.ts"), "utf8");
  const read = [...source.matchAll(/\benv\.(\w+)|\(env, "(\w+)"/g)].map(([, a, b]) => a ?? b!);
  assert.deepEqual(
    [...new Set(read)].filter((name) => !page.includes(`| \`${name}\``)),
    [],
  );
});

test("the table of differences names cases that exist, once", () => {
  const names = [...differences.flatMap((d) => Object.keys(d.cases)), ...Object.keys(rewordings)];
  assert.deepEqual(
    names.filter((name) => !cases.some((c) => c.name === name)),
    [],
  );
  assert.equal(new Set(names).size, names.length);
});
