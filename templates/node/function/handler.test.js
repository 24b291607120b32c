const assert = require("node:assert/strict");
const { test } = require("node:test");
const handler = require("./handler.js");

/** A context that keeps what it is told. */
function context() {
  const told = {};
  return {
    told,
    status(status) {
      told.status = status;
      return this;
    },
    headers(headers) {
      told.headers = headers;
      return this;
    },
    succeed(value) {
      told.body = value;
    },
  };
}

test("greets whom the query names", async () => {
  const c = context();
  await handler({ method: "GET", path: "/", query: { name: "Ada" }, headers: {}, body: "" }, c);
  assert.equal(c.told.status, 200);
  assert.equal(c.told.body.greeting, "Hello, Ada");
});
