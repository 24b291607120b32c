import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { parseUsage } from "../../../src/host/cgroup.ts";

/** Files of a group as kernels write them, shortened. */
const v1 = {
  "cpuacct/cpuacct.usage": "1234567890\n",
  "memory/memory.usage_in_bytes": "52428800\n",
  "memory/memory.stat":
    "cache 40960\nrss 4096\ninactive_file 111\nactive_file 8192\ntotal_cache 40960\ntotal_inactive_file 2428800\ntotal_active_file 8192\n",
};
const v2 = {
  "cpu/cpu.stat": "usage_usec 1234567\nuser_usec 1000000\nsystem_usec 234567\nnr_periods 0\n",
  "memory/memory.current": "52428800\n",
  "memory/memory.stat":
    "anon 4096\nfile 40960\nworkingset_refault_file 7\ninactive_anon 9\ninactive_file 2428800\nactive_file 8192\n",
};

const without = (files: Record<string, string>, pattern: RegExp) =>
  Object.fromEntries(Object.entries(files).filter(([name]) => !pattern.test(name)));

const rows: [what: string, version: 1 | 2, files: Record<string, string>, cpu: number | undefined, memory: number][] = [
  ["v1", 1, v1, 1234567890, 50000000],
  ["v2", 2, v2, 1234567000, 50000000],
  ["v1 without accounting of memory, as Raspberry Pi OS has it", 1, without(v1, /^memory/), 1234567890, 0],
  ["v2 without the memory controller", 2, without(v2, /^memory/), 1234567000, 0],
  ["v1 without accounting of CPU", 1, without(v1, /^cpu/), 0, 50000000],
  [
    "v1 with less in use than was inactive a moment ago",
    1,
    { ...v1, "memory/memory.usage_in_bytes": "1\n" },
    1234567890,
    0,
  ],
  ["v2 whose statistics lack what is looked for", 2, { ...v2, "memory/memory.stat": "anon 1\n" }, 1234567000, 52428800],
  [
    "v1, more CPU time than 2^53 nanoseconds",
    1,
    { ...v1, "cpuacct/cpuacct.usage": "18014398509481984\n" },
    2 ** 54,
    50000000,
  ],
  ["v1, gone", 1, {}, undefined, 0],
  ["v2, gone", 2, {}, undefined, 0],
];

suite("the usage of a control group", () => {
  for (const [what, version, files, cpuNanoseconds, memoryBytes] of rows)
    test(what, () => {
      const wanted = cpuNanoseconds === undefined ? undefined : { cpuNanoseconds, memoryBytes };
      assert.deepEqual(
        parseUsage(version, (controller, file) => files[`${controller}/${file}`]),
        wanted,
      );
    });
});
