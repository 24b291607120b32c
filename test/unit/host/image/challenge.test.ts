import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { parseChallenges } from "../../../../src/host/image/challenge.ts";

const rows: [sentence: string, header: string | string[] | undefined, found: unknown][] = [
  ["nothing", undefined, []],
  ["an empty text", "", []],
  ["basic with a realm", 'Basic realm="a registry"', [{ scheme: "basic", parameters: { realm: "a registry" } }]],
  [
    "bearer as Docker Hub sends it",
    'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull"',
    [
      {
        scheme: "bearer",
        parameters: {
          realm: "https://auth.docker.io/token",
          service: "registry.docker.io",
          scope: "repository:a/b:pull",
        },
      },
    ],
  ],
  [
    "a comma in a quoted value",
    'Bearer realm="r",scope="repository:a:pull,push",error="invalid_token"',
    [{ scheme: "bearer", parameters: { realm: "r", scope: "repository:a:pull,push", error: "invalid_token" } }],
  ],
  [
    "escapes in a quoted value",
    'Basic realm="a \\"b\\" \\\\"',
    [{ scheme: "basic", parameters: { realm: 'a "b" \\' } }],
  ],
  [
    "two in one text",
    'Basic realm="x", Bearer realm="y" , service=z',
    [
      { scheme: "basic", parameters: { realm: "x" } },
      { scheme: "bearer", parameters: { realm: "y", service: "z" } },
    ],
  ],
  [
    "two headers",
    ['Basic realm="x"', 'Bearer realm="y"'],
    [
      { scheme: "basic", parameters: { realm: "x" } },
      { scheme: "bearer", parameters: { realm: "y" } },
    ],
  ],
  [
    "a scheme alone and a token68",
    'Negotiate, NTLM TlRMTVNTUAAC==, Basic realm="x"',
    [
      { scheme: "negotiate", parameters: {} },
      { scheme: "ntlm", parameters: {} },
      { scheme: "basic", parameters: { realm: "x" } },
    ],
  ],
  [
    "blanks around the equals sign and capitals in names",
    'BEARER Realm = "x" , SERVICE = y',
    [{ scheme: "bearer", parameters: { realm: "x", service: "y" } }],
  ],
  ["rubbish behind", 'Basic realm="x", "', [{ scheme: "basic", parameters: { realm: "x" } }]],
  ["rubbish alone", '"""', []],
];

suite("WWW-Authenticate", () => {
  for (const [sentence, header, found] of rows) test(sentence, () => assert.deepEqual(parseChallenges(header), found));

  test("a long hostile text is read in no time", () => {
    const started = performance.now();
    parseChallenges(`Basic ${'a="\\'.repeat(20_000)}`);
    parseChallenges(",".repeat(100_000));
    parseChallenges(`Basic realm=${" ".repeat(100_000)}`);
    assert.ok(performance.now() - started < 1000);
  });
});
