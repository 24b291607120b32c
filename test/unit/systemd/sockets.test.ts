import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { isAppError } from "../../../src/base/errors.ts";
import { inheritedSockets } from "../../../src/systemd/sockets.ts";

const mine = String(process.pid);

const rows: [says: string, environment: NodeJS.ProcessEnv, found: [fd: number, name: string][]][] = [
  ["none without socket activation", {}, []],
  ["none that are another process'", { LISTEN_PID: "1", LISTEN_FDS: "1" }, []],
  ["from the third descriptor on", { LISTEN_PID: mine, LISTEN_FDS: "1", LISTEN_FDNAMES: "gateway" }, [[3, "gateway"]]],
  [
    "with their names in order",
    { LISTEN_PID: mine, LISTEN_FDS: "2", LISTEN_FDNAMES: "gateway:tls" },
    [
      [3, "gateway"],
      [4, "tls"],
    ],
  ],
  [
    "also without names",
    { LISTEN_PID: mine, LISTEN_FDS: "2" },
    [
      [3, ""],
      [4, ""],
    ],
  ],
];

suite("sockets that napd was started with", () => {
  for (const [says, environment, found] of rows)
    test(says, () => {
      const given = { ...environment, OTHER: "stays" };
      assert.deepEqual(
        inheritedSockets(given),
        found.map(([fd, name]) => ({ fd, name })),
      );
      assert.deepEqual(given, { OTHER: "stays" });
    });

  test("a number that is none is refused", () => {
    const refused = () => inheritedSockets({ LISTEN_PID: mine, LISTEN_FDS: "many" });
    assert.throws(refused, (e) => isAppError(e, "CONFIG"));
  });
});
