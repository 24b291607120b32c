import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { type ErrorCode, isAppError } from "../../../src/base/errors.ts";
import { parseDeployment } from "../../../src/functions/spec.ts";

const parse = (body: unknown) => parseDeployment(body, "fn");
const web = { service: "web", image: "web:1" };

suite("the body of a deploy", () => {
  test("needs a name and an image, and nothing else", () => {
    assert.deepEqual(parse(web), { name: "web", namespace: "fn", image: "web:1" });
  });

  test("is kept as it was asked for, in every field", () => {
    const body = {
      ...web,
      image: "Docker.io/Library/Web:1@sha256:0123",
      namespace: "team",
      envProcess: "node index.js",
      envVars: { A: "1", EMPTY: "" },
      constraints: ["node.platform.os==linux"],
      secrets: ["key", "key", "other.pem"],
      labels: { "com.openfaas.scale.min": "2", "": "odd" },
      annotations: { topic: "cron-function", schedule: "*/5 * * * *" },
      limits: { memory: "0.5Gi", cpu: "1000m", "nvidia.com/gpu": "1" },
      requests: { memory: "128M" },
      readOnlyRootFilesystem: true,
    };
    const { service, ...rest } = body;
    assert.deepEqual(parse(body), { name: service, ...rest });
  });

  const kept: { says: string; value: string }[] = [
    { says: "an equals sign", value: "a=b=c" },
    { says: "a newline", value: "one\ntwo\n" },
    { says: "spaces around it", value: "  x  " },
    { says: "quotes, dollars and back slashes", value: "\"$HOME\" 'a' \\n" },
    { says: "letters of any kind", value: "größe 大 🙂" },
    { says: "nothing", value: "" },
    { says: "131,069 bytes", value: "x".repeat(131_069) },
  ];
  for (const { says, value } of kept)
    test(`may have an environment variable with ${says} in it`, () =>
      assert.deepEqual(parse({ ...web, envVars: { A: value } }).envVars, { A: value }));

  const spellings: { says: string; body: object }[] = [
    { says: "capital letters", body: { SERVICE: "web", IMAGE: "web:1", ENVVARS: { A: "b" } } },
    { says: "Go's field names", body: { Service: "web", Image: "web:1", EnvVars: { A: "b" } } },
    { says: "small letters", body: { service: "web", image: "web:1", envvars: { A: "b" } } },
  ];
  for (const { says, body } of spellings)
    test(`may spell its keys in ${says}`, () =>
      assert.deepEqual(parse(body), { name: "web", namespace: "fn", image: "web:1", envVars: { A: "b" } }));

  test("keeps the case of what is not a key of ours", () => {
    assert.deepEqual(parse({ ...web, envVars: { Image: "a", image: "b" } }).envVars, { Image: "a", image: "b" });
  });

  test("may have null where a map, a list or a text can be missing", () => {
    const empty = {
      ...{ namespace: null, envProcess: null, envVars: null, constraints: null, secrets: null, labels: null },
      ...{ annotations: null, limits: null, requests: null, readOnlyRootFilesystem: null },
    };
    assert.deepEqual(parse({ ...web, ...empty }), parse(web));
  });

  test("leaves out what is empty, as the other side compares it, and keeps empty labels and annotations", () => {
    const body = {
      ...web,
      namespace: "",
      envProcess: "",
      envVars: {},
      limits: {},
      requests: {},
      readOnlyRootFilesystem: false,
    };
    assert.deepEqual(parse({ ...body, labels: {}, annotations: {} }), { ...parse(web), labels: {}, annotations: {} });
  });

  test("may have fields that nobody knows", () => {
    assert.deepEqual(parse({ ...web, network: "func_functions", registryAuth: "x", future: { a: [1] } }), parse(web));
  });

  test("may limit nothing by an empty text", () => {
    assert.deepEqual(parse({ ...web, limits: { memory: "", cpu: "" } }).limits, { memory: "", cpu: "" });
  });

  test("may ask for little, but not be limited to less than a container needs", () => {
    assert.deepEqual(parse({ ...web, requests: { memory: "1Mi" } }).requests, { memory: "1Mi" });
    assert.deepEqual(parse({ ...web, limits: { memory: "4Mi" } }).limits, { memory: "4Mi" });
  });

  test("spells the keys of its limits in any case, leaves out null, and does not keep what nobody knows", () => {
    const body = { LIMITS: { Memory: "64Mi", CPU: null, "NVIDIA.com/gpu": "1", disk: 5 }, requests: { memory: null } };
    assert.deepEqual(parse({ ...web, ...body }).limits, { memory: "64Mi", "nvidia.com/gpu": "1" });
    assert.equal(parse({ ...web, ...body }).requests, undefined);
  });

  test("keeps every key of a map, also those that objects have by themselves", () => {
    const text = '{"__proto__":"a","constructor":"b","hasOwnProperty":"c"}';
    for (const field of ["envVars", "labels", "annotations"] as const) {
      const spec = parse(JSON.parse(`{"service":"web","image":"web:1","${field}":${text}}`));
      assert.equal(JSON.stringify(spec[field]), text);
    }
    assert.equal(({} as Record<string, unknown>).a, undefined);
  });

  test("takes the last of two spellings of a key", () => {
    assert.equal(parse({ ...web, Image: "web:2" }).image, "web:2");
  });

  for (const [says, inBody, query, namespace] of [
    ["its own", "team", "other", "team"],
    ["the query's", "", "other", "other"],
    ["the query's", null, "other", "other"],
    ["the default", undefined, "", "fn"],
    ["the default", undefined, undefined, "fn"],
  ] as const)
    test(`is for ${says} namespace with ${inBody} in the body and ${query} in the query`, () =>
      assert.equal(parseDeployment({ ...web, namespace: inBody }, "fn", query).namespace, namespace));

  const bad: { says: string; body: unknown; code: ErrorCode; text: RegExp }[] = [
    { says: "nothing", body: undefined, code: "BAD_JSON", text: /the body/ },
    { says: "null", body: null, code: "BAD_JSON", text: /the body/ },
    { says: "a list", body: [web], code: "BAD_JSON", text: /the body/ },
    { says: "a text", body: "web", code: "BAD_JSON", text: /the body/ },
    { says: "an empty object", body: {}, code: "BAD_FUNCTION", text: /service: a function needs a name/ },
    { says: "no image", body: { service: "web" }, code: "BAD_FUNCTION", text: /image: a function needs an image/ },
    { says: "a blank image", body: { ...web, image: " " }, code: "BAD_FUNCTION", text: /image/ },
    { says: "a number as name", body: { ...web, service: 5 }, code: "BAD_JSON", text: /service/ },
    {
      says: "capitals in the name",
      body: { ...web, service: "Web" },
      code: "BAD_FUNCTION",
      text: /service: "Web" must/,
    },
    { says: "a dot in the name", body: { ...web, service: "web.fn" }, code: "BAD_FUNCTION", text: /service/ },
    { says: "a path as name", body: { ...web, service: "../etc" }, code: "BAD_FUNCTION", text: /service/ },
    { says: "too long a name", body: { ...web, service: "a".repeat(64) }, code: "BAD_FUNCTION", text: /63/ },
    { says: "a path as namespace", body: { ...web, namespace: ".." }, code: "BAD_FUNCTION", text: /namespace/ },
    { says: "a number in the environment", body: { ...web, envVars: { A: 1 } }, code: "BAD_JSON", text: /envVars\.A/ },
    { says: "null in the environment", body: { ...web, envVars: { A: null } }, code: "BAD_JSON", text: /envVars\.A/ },
    { says: "a list as environment", body: { ...web, envVars: ["A=b"] }, code: "BAD_JSON", text: /envVars/ },
    { says: "NUL in a value", body: { ...web, envVars: { A: "x\0y" } }, code: "BAD_FUNCTION", text: /envVars\.A.*NUL/ },
    {
      says: "NUL in a variable's name",
      body: { ...web, envVars: { "A\0": "x" } },
      code: "BAD_FUNCTION",
      text: /envVars/,
    },
    {
      says: "an equals sign in a variable's name",
      body: { ...web, envVars: { "A=B": "x" } },
      code: "BAD_FUNCTION",
      text: /envVars/,
    },
    {
      says: "a variable without a name",
      body: { ...web, envVars: { "": "x" } },
      code: "BAD_FUNCTION",
      text: /envVars/,
    },
    {
      says: "a value that Linux does not hand on",
      body: { ...web, envVars: { A: "x".repeat(131_070) } },
      code: "BAD_FUNCTION",
      text: /131072 bytes.*131071.*secret/,
    },
    {
      says: "a value that is too long only in bytes",
      body: { ...web, envVars: { A: "ü".repeat(70_000) } },
      code: "BAD_FUNCTION",
      text: /140002 bytes/,
    },
    {
      says: "more in the environment than Linux hands on",
      body: {
        ...web,
        envVars: Object.fromEntries(Array.from({ length: 11 }, (_, i) => [`A${i}`, "x".repeat(100_000)])),
      },
      code: "BAD_FUNCTION",
      text: /envVars: 1100\d\d\d bytes.*1048576/,
    },
    {
      says: "a process longer than Linux hands on",
      body: { ...web, envProcess: "x".repeat(131_063) },
      code: "BAD_FUNCTION",
      text: /envProcess.*131071/,
    },
    { says: "NUL in the process", body: { ...web, envProcess: "a\0b" }, code: "BAD_FUNCTION", text: /envProcess/ },
    { says: "a number as label", body: { ...web, labels: { a: 1 } }, code: "BAD_JSON", text: /labels\.a/ },
    {
      says: "a truth as annotation",
      body: { ...web, annotations: { a: true } },
      code: "BAD_JSON",
      text: /annotations\.a/,
    },
    { says: "a text as secrets", body: { ...web, secrets: "key" }, code: "BAD_JSON", text: /secrets/ },
    {
      says: "a path as secret",
      body: { ...web, secrets: ["../key"] },
      code: "BAD_FUNCTION",
      text: /secrets: "\.\.\/key"/,
    },
    { says: "a number as memory", body: { ...web, limits: { memory: 128 } }, code: "BAD_JSON", text: /limits\.memory/ },
    { says: "a number as GPU", body: { ...web, limits: { "nvidia.com/gpu": 1 } }, code: "BAD_JSON", text: /limits/ },
    { says: "a list as limits", body: { ...web, limits: [] }, code: "BAD_JSON", text: /limits/ },
    {
      says: "memory in unknown units",
      body: { ...web, limits: { memory: "128MB" } },
      code: "BAD_FUNCTION",
      text: /limits\.memory.*128Mi/,
    },
    {
      says: "too little memory",
      body: { ...web, limits: { memory: "3Mi" } },
      code: "BAD_FUNCTION",
      text: /limits\.memory.*4Mi/,
    },
    {
      says: "no memory at all",
      body: { ...web, limits: { memory: "0" } },
      code: "BAD_FUNCTION",
      text: /limits\.memory/,
    },
    {
      says: "a request that is none",
      body: { ...web, requests: { memory: "lots" } },
      code: "BAD_FUNCTION",
      text: /requests\.memory/,
    },
    {
      says: "cores that are none",
      body: { ...web, limits: { cpu: "one" } },
      code: "BAD_FUNCTION",
      text: /limits\.cpu.*500m/,
    },
    { says: "too few cores", body: { ...web, limits: { cpu: "9m" } }, code: "BAD_FUNCTION", text: /limits\.cpu.*10m/ },
    { says: "too many cores", body: { ...web, limits: { cpu: "4097" } }, code: "BAD_FUNCTION", text: /4096/ },
    {
      says: "a text as truth",
      body: { ...web, readOnlyRootFilesystem: "true" },
      code: "BAD_JSON",
      text: /readOnlyRootFilesystem/,
    },
  ];
  for (const { says, body, code, text } of bad)
    test(`with ${says} is refused, naming the field`, () =>
      assert.throws(
        () => parse(body),
        (e) => {
          assert.ok(isAppError(e, code), String(e));
          assert.match(e.message, text);
          return true;
        },
      ));
});
