import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { suite, test } from "node:test";
import { pages, sentence } from "../../../scripts/build-docs.ts";
import { AppError, isAppError, listErrors, messageOf, systemCode } from "../../../src/base/errors.ts";

const root = join(import.meta.dirname, "../../..");

suite("the catalogue of errors", () => {
  for (const { code, status, say } of listErrors()) {
    test(`${code} has a status of an error and a sentence that uses all it is given`, () => {
      assert.ok(status >= 400 && status < 600, `${status}`);
      const text = sentence(say);
      assert.notEqual(text.trim(), "");
      assert.doesNotMatch(text, /undefined|NaN|\[object/);
      const given = [...(/^\(([^)]*)\)/.exec(say.toString())?.[1] ?? "").matchAll(/\w+/g)].map(([name]) => name);
      for (const name of given)
        assert.ok(text.includes(name === "ms" ? "60 s" : `{${name}}`), `${name} is not in: ${text}`);
    });
    test(`${code} is written in capitals`, () => assert.match(code, /^[A-Z]+(_[A-Z]+)*$/));
  }

  for (const [file, text] of Object.entries(pages()))
    test(`${file} is what npm run build:docs writes`, () => assert.equal(readFileSync(join(root, file), "utf8"), text));

  test("docs/errors.md lists exactly its codes and statuses", () => {
    const page = readFileSync(join(root, "docs/errors.md"), "utf8");
    const listed = [...page.matchAll(/^\| `(\w+)` \| (\d+) \|/gm)].map(([, code, status]) => `${code} ${status}`);
    assert.deepEqual(
      listed,
      listErrors().map(({ code, status }) => `${code} ${status}`),
    );
  });
});

suite("an error of the catalogue", () => {
  const cause = new Error("below");
  const error = new AppError("SECRET_MISSING", ["key", "fn"], { cause });

  test("has its code, its status, its sentence and its cause", () => {
    assert.deepEqual([error.code, error.status, error.cause, error.name], ["SECRET_MISSING", 400, cause, "AppError"]);
    assert.equal(
      error.message,
      "secret key does not exist in namespace fn; create it before the function that uses it",
    );
  });

  test("is told from others, and by its code from its like", () => {
    assert.ok(isAppError(error));
    assert.ok(isAppError(error, "SECRET_MISSING"));
    assert.ok(!isAppError(error, "SECRET_EXISTS"));
    for (const other of [
      cause,
      { code: "SECRET_MISSING", status: 400, message: "looks like it" },
      null,
      undefined,
      "x",
    ])
      assert.ok(!isAppError(other));
  });
});

test("anything thrown has a sentence", () => {
  assert.deepEqual([new Error("a"), "b", 3, null, undefined].map(messageOf), ["a", "b", "3", "null", "undefined"]);
});

test("the system's code is there where the system gave one", () => {
  const thrown = (work: () => void) => {
    try {
      work();
    } catch (e) {
      return e;
    }
  };
  assert.equal(systemCode(thrown(() => readFileSync("/nowhere"))), "ENOENT");
  for (const other of [new Error("x"), { code: "ENOENT" }, Object.assign(new Error("x"), { code: 5 }), null, "ENOENT"])
    assert.equal(systemCode(other), undefined);
});
