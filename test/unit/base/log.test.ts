import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { pino } from "pino";
import { withPriority } from "../../../src/base/log.ts";

suite("lines for the journal", () => {
  const priorities = { trace: 7, debug: 7, info: 6, warn: 4, error: 3, fatal: 2 } as const;
  for (const [level, priority] of Object.entries(priorities))
    test(`${level} has priority ${priority}, also from a child`, () => {
      const lines: string[] = [];
      const log = pino({ level: "trace" }, withPriority({ write: (line) => void lines.push(line) }));
      log[level as keyof typeof priorities]("said");
      log.child({ image: "i" })[level as keyof typeof priorities]("said again");
      assert.equal(lines.length, 2);
      for (const line of lines) assert.match(line, new RegExp(`^<${priority}>\\{.*said.*\\}\\n$`));
    });
});
