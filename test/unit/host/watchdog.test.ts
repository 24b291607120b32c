import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { isAppError } from "../../../src/base/errors.ts";
import { injectedEnvironment, type WatchdogQuestion } from "../../../src/host/watchdog.ts";

const question: WatchdogQuestion = { choice: "auto", env: {}, image: { cmd: ["httpd", "-f"] } };
const lock = { suppress_lock: "true" };

suite("whether our watchdog goes into a container", () => {
  const rows: { says: string; asked: Partial<WatchdogQuestion>; env: Record<string, string> | undefined }[] = [
    { says: "not where nobody says what to run", asked: {}, env: undefined },
    { says: "where the function has a process", asked: { env: { fprocess: "wc -c" } }, env: lock },
    { says: "where it has one under the other name", asked: { env: { function_process: "wc -c" } }, env: lock },
    { says: "into an image without any program", asked: { env: { fprocess: "wc" }, image: {} }, env: lock },
    {
      says: "not where only the image names a process, which something in it must read",
      asked: { image: { cmd: ["run"], env: ["fprocess=cat"] } },
      env: undefined,
    },
    ...[
      ["fwatchdog"],
      ["/usr/bin/fwatchdog"],
      ["/of-watchdog"],
      ["tini", "--", "fwatchdog"],
      ["/bin/sh", "-c", "cd /app; exec fwatchdog"],
    ].flatMap((words) =>
      [{ entrypoint: words }, { cmd: words }].map((image) => ({
        says: `not where the image has one: ${JSON.stringify(image)}`,
        asked: { env: { fprocess: "cat" }, image },
        env: undefined,
      })),
    ),
    {
      says: "where a word only looks like one",
      asked: { env: { fprocess: "cat" }, image: { cmd: ["fwatchdog.sh", "my-of-watchdog"] } },
      env: lock,
    },
    { says: "not when it is told not to", asked: { choice: "image", env: { fprocess: "cat" } }, env: undefined },
    {
      says: "when it is told to, beside the one of the image",
      asked: { choice: "inject", env: { fprocess: "cat" }, image: { cmd: ["fwatchdog"] } },
      env: lock,
    },
    {
      says: "when it is told to, for the image's own program",
      asked: { choice: "inject", image: { entrypoint: ["python3"], cmd: ["-u", "app.py"] } },
      env: { ...lock, fprocess: "python3 -u app.py" },
    },
    {
      says: "when it is told to, with the process that the image names",
      asked: { choice: "inject", image: { cmd: ["x"], env: ["A=b=c", "fprocess=cat"] } },
      env: lock,
    },
    {
      says: "when it is told to serve files",
      asked: { choice: "inject", env: { mode: "static" }, image: {} },
      env: lock,
    },
    {
      says: "when it is told to, and the image says that it serves files",
      asked: { choice: "inject", image: { env: ["mode=static"] } },
      env: lock,
    },
  ];
  for (const { says, asked, env } of rows)
    test(says, () => assert.deepEqual(injectedEnvironment({ ...question, ...asked }), env));

  for (const cmd of [[], ["sh", "-c", "echo hello"], ["echo", ""]])
    test(`refuses to guess how to run ${JSON.stringify(cmd)}`, () =>
      assert.throws(
        () => injectedEnvironment({ ...question, choice: "inject", image: { cmd } }),
        (e) => isAppError(e, "IMAGE_UNUSABLE") && /envProcess/.test(e.message),
      ));
});
