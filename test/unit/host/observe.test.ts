import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { isOf } from "../../../src/host/observe.ts";

const at = (seconds: number, nanos = 0) => ({ seconds: String(seconds), nanos });

/** The exit of process 10, which ended in second 100, and what has its container's id now. */
const rows: { says: string; made: number | null; nanos?: number; pid: number | undefined; is: boolean }[] = [
  { says: "is of the task that is still there", made: 90, pid: 10, is: true },
  { says: "is not of another task, started under the same id since", made: 101, pid: 11, is: false },
  { says: "is not of another task, whatever the clock did meanwhile", made: 50, pid: 11, is: false },
  { says: "is of a container made before, whose task is cleared away already", made: 90, pid: undefined, is: true },
  { says: "is not of a container made since, whose task is still to come", made: 101, pid: undefined, is: false },
  { says: "is not of one made in the same second, but after it", made: 100, nanos: 600, pid: undefined, is: false },
  { says: "is of one made in the same second before it", made: 100, nanos: 400, pid: undefined, is: true },
  { says: "is taken for the container's when nobody knows when that was made", made: null, pid: undefined, is: true },
];

suite("an exit that is told late", () => {
  for (const { says, made, nanos = 0, pid, is } of rows)
    test(says, () => {
      const container = { created_at: made === null ? null : at(made, nanos) };
      const task = pid === undefined ? undefined : { pid };
      assert.equal(isOf({ pid: 10, exitedAt: at(100, 500) }, container, task), is);
    });
});
