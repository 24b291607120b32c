import assert from "node:assert/strict";
import { test } from "node:test";
import handler from "./handler.ts";
import type { Context } from "./types.ts";

test("greets whom the query names", async () => {
  const told: { status?: number; body?: unknown } = {};
  const context = {
    status(status: number) {
      told.status = status;
      return this;
    },
    headers() {
      return this;
    },
    succeed(value: unknown) {
      told.body = value;
    },
  } as unknown as Context;
  await handler({ method: "GET", path: "/", query: { name: "Ada" }, headers: {}, body: "hi" }, context);
  assert.deepEqual(told, { status: 200, body: { greeting: "Hello, Ada", received: "hi" } });
});
