/**
 * The rooms of src and what each of them may import: imports point down this list, never up and never sideways.
 * Change the table in the commit that needs it.
 */
import assert from "node:assert/strict";
import { globSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { suite, test } from "node:test";

/** A room is a folder or a single file; the longest one that a path begins with is its room. */
const rooms: readonly (readonly [room: string, mayImport: readonly string[] | "everything"])[] = [
  ["nap.ts", ["cli", "base"]],
  [
    "main.ts",
    [
      "daemon.ts",
      "machine.ts",
      "live.ts",
      "teardown.ts",
      "install",
      "doctor",
      "config.ts",
      "release.ts",
      "host/containerd",
      "store",
      "installation.ts",
      "systemd",
      "base",
    ],
  ],
  // takes down what daemon.ts has built, by the same parts
  ["teardown.ts", ["daemon.ts", "machine.ts", "functions", "store", "config.ts", "base"]],
  ["daemon.ts", "everything"],
  // the half of the composition root that is about this machine
  [
    "machine.ts",
    [
      "live.ts",
      "config.ts",
      "functions",
      "host",
      "host/image",
      "host/containerd",
      "host/oci",
      "host/net",
      "logs",
      "installation.ts",
      "base",
    ],
  ],
  // puts programs, units and directories in their places; knows what is installed, and nothing of what runs in it
  ["install", ["config.ts", "release.ts", "host/exec.ts", "store", "installation.ts", "base"]],
  // looks at the machine as host will use it; nothing that runs needs it
  ["doctor", ["config.ts", "host/containerd", "host/net", "host/exec.ts", "base"]],
  // the settings that change while it runs
  ["live.ts", ["config.ts", "settings.ts", "base"]],
  ["config.ts", ["settings.ts", "base"]],
  ["settings.ts", ["base"]],
  ["release.ts", ["base"]],
  // installation.ts: templates come with the program; reference.ts: images have one grammar, which is pure
  ["cli", ["installation.ts", "host/image/reference.ts", "base"]],
  ["watchdog", ["http1", "base"]],
  ["gateway", ["invoke", "functions", "base"]],
  ["admin", ["trigger", "functions", "store", "logs", "metrics", "base"]],
  // invoke: calls as those from outside are made
  ["trigger", ["invoke", "base"]],
  // invoke: delivers as calls from outside are made, and answers who is refused as it does
  ["queue", ["invoke", "base"]],
  ["scale", ["functions", "base"]],
  ["invoke", ["functions", "upstream", "http1", "metrics", "base"]],
  ["functions", ["store", "upstream", "base"]],
  // connections to replicas; what it parses by, the watchdog parses by too
  ["upstream", ["http1"]],
  // logs: a replica's log file is one of the things that it holds, from its start to its removal
  [
    "host",
    [
      "host/image",
      "host/image/reference.ts",
      "host/containerd",
      "host/oci",
      "host/net",
      "host/exec.ts",
      "logs",
      "base",
    ],
  ],
  ["host/image", ["host/image/reference.ts", "host/containerd", "host/exec.ts", "base"]],
  ["host/containerd", ["installation.ts", "base"]],
  ["host/oci", ["base"]],
  ["host/net", ["host/exec.ts", "installation.ts", "base"]],
  ["host/exec.ts", ["base"]],
  // the grammar of image names, without any IO
  ["host/image/reference.ts", ["base"]],
  ["store", ["base"]],
  ["logs", ["base"]],
  ["metrics", ["base"]],
  // what the service manager and napd tell each other
  ["systemd", ["base"]],
  // the grammar of HTTP/1.1, without any IO
  ["http1", []],
  // where the files are that come with the program
  ["installation.ts", []],
  ["base", []],
];

/** Ways past the table, each with its reason. `values`: what may be imported besides types. */
const exceptions = [
  {
    from: "host",
    to: "functions/backend.ts",
    values: ["replicaId"],
    reason: "the seam: host implements what functions declares there, in the types declared there",
  },
  {
    from: "logs",
    to: "functions/backend.ts",
    values: ["replicaId"],
    reason: "the seam: logs implements the part of it that is told in lines",
  },
];

/** Who reads the environment, and why nobody else: whoever reads it has a setting that no table lists. */
const environmentReaders = ["main.ts", "nap.ts", "config.ts", "base/failpoints.ts", "watchdog"];

const root = join(import.meta.dirname, "../src");
const files = globSync("**/*.ts", { cwd: root }).sort();
const sources = new Map(files.map((file) => [file, readFileSync(join(root, file), "utf8")]));

interface Import {
  readonly target: string;
  /** Nothing but types: it is gone at run time. */
  readonly typesOnly: boolean;
  /** The values among what it names. */
  readonly values: readonly string[];
}

/** Imports and re-exports of files of ours, as our formatter leaves them: statements begin at the line's start. */
function importsOf(file: string, source: string): Import[] {
  const statement = /^(?:import|export)\s+(type\s+)?(?:([^;"]*?)\s*from\s+)?"(\.[^"]+)"/gm;
  const targetOf = (path: string): string => relative(root, join(root, dirname(file), path));
  const atStart = [...source.matchAll(statement)].map(([, type, clause = "", path]) => ({
    target: targetOf(path!),
    typesOnly: type !== undefined,
    values: clause
      .split(/[{},]/)
      .map((name) => name.trim())
      .filter((name) => name !== "" && !name.startsWith("type ")),
  }));
  const later = [...source.matchAll(/\bimport\("(\.[^"]+)"\)/g)].map(([, path]) => ({
    target: targetOf(path!),
    typesOnly: false,
    values: ["*"],
  }));
  return [...atStart, ...later];
}

function roomOf(file: string): string | undefined {
  return rooms
    .map(([room]) => room)
    .filter((room) => file === room || file.startsWith(`${room}/`))
    .sort((a, b) => b.length - a.length)[0];
}

/** What is wrong with a file's imports, one sentence each. */
function wrongImports(file: string, source: string): string[] {
  const room = roomOf(file);
  const mayImport = rooms.find(([name]) => name === room)?.[1];
  if (room === undefined || mayImport === undefined) return [`${file} is in no room of the table`];
  return importsOf(file, source).flatMap(({ target, typesOnly, values }) => {
    const to = roomOf(target);
    if (target.endsWith(".json") || to === room || mayImport === "everything") return [];
    if (to !== undefined && mayImport.includes(to)) return [];
    const exception = exceptions.find((e) => e.from === room && e.to === target);
    if (exception && (typesOnly || values.every((name) => exception.values.includes(name)))) return [];
    return [`${file} imports ${target}, but ${room} may import ${mayImport.join(", ") || "nothing"}`];
  });
}

function readsEnvironment(source: string): boolean {
  return /\bprocess\s*\.\s*env\b|\benv\b[^;]*from "node:process"|\{[^}]*\benv\b[^}]*\}\s*=\s*process\b/.test(source);
}

function waitsForProcesses(source: string): boolean {
  return /\b(exec|execFile|spawn)Sync\b/.test(source);
}

/** The first cycle in a graph as a path that ends where it begins, or undefined. */
function findCycle(graph: ReadonlyMap<string, readonly string[]>): string[] | undefined {
  const done = new Set<string>();
  const visit = (node: string, path: string[]): string[] | undefined => {
    if (path.includes(node)) return [...path.slice(path.indexOf(node)), node];
    if (done.has(node)) return undefined;
    for (const next of graph.get(node) ?? []) {
      const cycle = visit(next, [...path, node]);
      if (cycle) return cycle;
    }
    done.add(node);
    return undefined;
  };
  for (const node of graph.keys()) {
    const cycle = visit(node, []);
    if (cycle) return cycle;
  }
  return undefined;
}

suite("the rooms of src", () => {
  test("the table points down: no room may import one above it", () => {
    const order = rooms.map(([room]) => room);
    for (const [i, [room, mayImport]] of rooms.entries())
      for (const other of mayImport === "everything" ? [] : mayImport)
        assert.ok(order.indexOf(other) > i, `${room} may import ${other}`);
  });

  for (const file of files)
    test(`${file} imports only what its room may`, () => assert.deepEqual(wrongImports(file, sources.get(file)!), []));

  test("every import of a file of ours is one that the check sees", () => {
    for (const [file, source] of sources) {
      const mentioned = [...source.matchAll(/\bfrom\s+"\.|^import\s+"\.|\bimport\("\./gm)].length;
      assert.equal(importsOf(file, source).length, mentioned, file);
    }
  });

  test("no import cycle remains at run time", () => {
    const graph = new Map(
      [...sources].map(([file, source]) => [
        file,
        importsOf(file, source).flatMap((i) => (i.typesOnly ? [] : [i.target])),
      ]),
    );
    assert.equal(findCycle(graph)?.join(" → "), undefined);
  });

  test("the seam has no imports at run time, so that nobody who implements it gets the domain along", () => {
    for (const { to } of exceptions)
      assert.deepEqual(
        importsOf(to, sources.get(to)!).filter((i) => !i.typesOnly),
        [],
      );
  });

  test("there are no barrels", () => {
    assert.deepEqual(
      files.filter((file) => /(^|\/)index\.ts$/.test(file)),
      [],
    );
  });

  test("the environment is read in a few named places", () => {
    const readers = [...sources].filter(([, source]) => readsEnvironment(source)).map(([file]) => file);
    const isNamed = (file: string) => environmentReaders.some((name) => file === name || file.startsWith(`${name}/`));
    assert.deepEqual(
      readers.filter((file) => !isNamed(file)),
      [],
    );
  });

  test("no process is waited for synchronously", () => {
    assert.deepEqual(
      [...sources].filter(([, source]) => waitsForProcesses(source)).map(([file]) => file),
      [],
    );
  });
});

suite("the check of the rooms", () => {
  const rows: { says: string; file: string; source: string; wrong: number }[] = [
    {
      says: "an import of a room below passes",
      file: "store/a.ts",
      source: `import { b } from "../base/b.ts";`,
      wrong: 0,
    },
    {
      says: "an import of a room above fails",
      file: "base/a.ts",
      source: `import { b } from "../store/b.ts";`,
      wrong: 1,
    },
    { says: "types count too", file: "base/a.ts", source: `import type { B } from "../store/b.ts";`, wrong: 1 },
    { says: "sideways fails", file: "gateway/a.ts", source: `import { b } from "../admin/b.ts";`, wrong: 1 },
    {
      says: "an import over several lines is seen",
      file: "base/a.ts",
      source: `import {\n  b,\n  c,\n} from "../store/b.ts";`,
      wrong: 1,
    },
    { says: "a re-export is an import", file: "base/a.ts", source: `export { b } from "../store/b.ts";`, wrong: 1 },
    { says: "an import for its effect is one", file: "base/a.ts", source: `import "../store/b.ts";`, wrong: 1 },
    { says: "a file in no room fails", file: "utils/a.ts", source: "", wrong: 1 },
    {
      says: "an inner room may not import its outer one",
      file: "host/net/a.ts",
      source: `import { b } from "../context.ts";`,
      wrong: 1,
    },
    {
      says: "host may use the types of the seam",
      file: "host/a.ts",
      source: `import type { Backend } from "../functions/backend.ts";`,
      wrong: 0,
    },
    {
      says: "host may use replicaId of the seam",
      file: "host/a.ts",
      source: `import { type Backend, replicaId } from "../functions/backend.ts";`,
      wrong: 0,
    },
    {
      says: "host may use no other value of the seam",
      file: "host/a.ts",
      source: `import { replicaId, other } from "../functions/backend.ts";`,
      wrong: 1,
    },
    {
      says: "host may use nothing else of functions",
      file: "host/a.ts",
      source: `import type { Plan } from "../functions/plan.ts";`,
      wrong: 1,
    },
  ];
  for (const row of rows)
    test(row.says, () => assert.equal(wrongImports(row.file, row.source).length, row.wrong, row.source));

  test("a cycle is found and told as a path", () => {
    const graph = new Map([
      ["a", ["b"]],
      ["b", ["c", "d"]],
      ["c", []],
      ["d", ["b"]],
    ]);
    assert.deepEqual(findCycle(graph), ["b", "d", "b"]);
    assert.equal(findCycle(new Map([...graph, ["d", ["c"]]])), undefined);
  });

  for (const source of ["process.env.HOME", `import { env } from "node:process";`, "const { env } = process;"])
    test(`${source} reads the environment`, () => assert.ok(readsEnvironment(source)));

  for (const source of ["execFileSync(x)", "spawnSync(x)", "execSync(x)"])
    test(`${source} waits for a process`, () => assert.ok(waitsForProcesses(source)));
});
