import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { isAppError } from "../../../src/base/errors.ts";
import { Admission } from "../../../src/functions/admission.ts";
import { callLimits, noLimits } from "../../../src/functions/call-limits.ts";

const limits = (maxInFlight: number, queue: number) => ({ ...noLimits, maxInFlight, queue });

/** Calls that note their turn. */
function calls(count: number) {
  const admitted: number[] = [];
  return { admitted, waiters: Array.from({ length: count }, (_, i) => ({ admitted: () => admitted.push(i) })) };
}

suite("admission", () => {
  test("lets everybody run where there is no limit", () => {
    const admission = new Admission();
    for (const waiter of calls(1000).waiters) assert.equal(admission.enter(waiter, noLimits), "running");
    assert.deepEqual([admission.running, admission.waiting], [1000, 0]);
  });

  test("lets some run, some wait, and refuses the rest", () => {
    const admission = new Admission();
    const answers = calls(4).waiters.map((waiter) => admission.enter(waiter, limits(1, 2)));
    assert.deepEqual(answers, ["running", "waiting", "waiting", "refused"]);
    assert.deepEqual([admission.running, admission.waiting], [1, 2]);
  });

  test("goes by the order of arrival, past those who left", () => {
    const admission = new Admission();
    const { admitted, waiters } = calls(4);
    for (const waiter of waiters) admission.enter(waiter, limits(1, 9));
    admission.withdraw(waiters[1]!);
    for (let i = 0; i < 3; i++) admission.leave(limits(1, 9));
    assert.deepEqual(admitted, [2, 3]);
    assert.deepEqual([admission.running, admission.waiting], [0, 0]);
  });

  test("follows limits that a deploy changes, as places get free", () => {
    const admission = new Admission();
    const { admitted, waiters } = calls(6);
    for (const waiter of waiters) admission.enter(waiter, limits(2, 9));
    admission.leave(limits(1, 9));
    assert.deepEqual(admitted, []);
    admission.leave(limits(3, 9));
    assert.deepEqual(admitted, [2, 3, 4]);
    admission.leave(noLimits);
    assert.deepEqual(admitted, [2, 3, 4, 5]);
    assert.equal(admission.running, 3);
  });

  test("stands a call that ends in the turn that it is admitted in", () => {
    const admission = new Admission();
    const one = limits(1, 9999);
    admission.enter({ admitted: () => {} }, one);
    let ended = 0;
    for (let i = 0; i < 1000; i++)
      admission.enter(
        {
          admitted: () => {
            ended++;
            admission.leave(one);
          },
        },
        one,
      );
    admission.leave(one);
    assert.deepEqual([ended, admission.running, admission.waiting], [1000, 0, 0]);
  });
});

suite("the limits of a function", () => {
  const defaults = { maxInFlight: 1, queue: 2, maxBodyBytes: 3 };
  const rows: [annotations: Record<string, string>, expected: object][] = [
    [{}, {}],
    [{ "napd.max-inflight": "10" }, { maxInFlight: 10 }],
    [
      { "napd.max-inflight": "0", "napd.queue": "0" },
      { maxInFlight: 0, queue: 0 },
    ],
    [{ "napd.max-body": "10Mi" }, { maxBodyBytes: 10 * 1024 * 1024 }],
    [{ "napd.max-body": "0" }, { maxBodyBytes: 0 }],
    [{ "napd.max-body": "1500" }, { maxBodyBytes: 1500 }],
  ];
  for (const [annotations, expected] of rows)
    test(`with ${JSON.stringify(annotations)}`, () =>
      assert.deepEqual(callLimits(annotations, defaults), { ...defaults, ...expected }));

  for (const name of ["napd.max-inflight", "napd.queue", "napd.max-body"])
    for (const value of ["", "-1", "1.5.2", "ten", "1e99", " 1"])
      test(`${name} "${value}" is refused, by name`, () =>
        assert.throws(
          () => callLimits({ [name]: value }, defaults),
          (e) => isAppError(e, "BAD_FUNCTION") && e.message.includes(name),
        ));
});
