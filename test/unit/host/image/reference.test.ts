import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { isAppError } from "../../../../src/base/errors.ts";
import { parseReference, pinName } from "../../../../src/host/image/reference.ts";

const hex = "a".repeat(64);
const digest = `sha256:${hex}`;

const good: [text: string, canonical: string, parts?: { host?: string; repository?: string }][] = [
  ["nginx", "docker.io/library/nginx:latest", { host: "docker.io", repository: "library/nginx" }],
  ["nginx:1.25", "docker.io/library/nginx:1.25"],
  ["docker.io/nginx", "docker.io/library/nginx:latest"],
  ["index.docker.io/nginx", "docker.io/library/nginx:latest"],
  ["user/app", "docker.io/user/app:latest"],
  ["ghcr.io/openfaas/figlet:0.1", "ghcr.io/openfaas/figlet:0.1", { host: "ghcr.io", repository: "openfaas/figlet" }],
  ["localhost/app", "localhost/app:latest", { host: "localhost", repository: "app" }],
  ["localhost:5000/app", "localhost:5000/app:latest", { host: "localhost:5000", repository: "app" }],
  ["127.0.0.1:5000/a/b/c:v1", "127.0.0.1:5000/a/b/c:v1"],
  ["[::1]:5000/app", "[::1]:5000/app:latest", { host: "[::1]:5000", repository: "app" }],
  ["[fd00::1]/app:x", "[fd00::1]/app:x", { host: "[fd00::1]" }],
  ["Registry/app", "Registry/app:latest", { host: "Registry", repository: "app" }],
  ["registry:5000/app", "registry:5000/app:latest", { host: "registry:5000" }],
  [`nginx@${digest}`, `docker.io/library/nginx@${digest}`],
  [`nginx:1@${digest}`, `docker.io/library/nginx:1@${digest}`],
  ["a.b/c__d-e.f---g", "a.b/c__d-e.f---g:latest"],
  ["app:_Tag.1-x", "docker.io/library/app:_Tag.1-x"],
  [`app:${"t".repeat(128)}`, `docker.io/library/app:${"t".repeat(128)}`],
  [hex.slice(1), `docker.io/library/${hex.slice(1)}:latest`],
];

const bad: [sentence: string, text: string, why: RegExp][] = [
  ["nothing", "", /empty/],
  ["white space", "a b", /white space/],
  ["a line end", "app\n", /white space/],
  ["a scheme", "https://ghcr.io/app", /scheme/],
  ["capitals in a name", "user/App", /capital/],
  ["capitals in a short name", "App", /capital/],
  ["an empty component", "ghcr.io//app", /empty/],
  ["a slash at the end", "ghcr.io/app/", /empty/],
  ["a way out", "ghcr.io/../app", /not made of/],
  ["a way out of the registry's path", "ghcr.io/a/../../b", /not made of/],
  ["separators side by side", "a..b", /not made of/],
  ["a hyphen in front", "-app", /not made of/],
  ["a query", "ghcr.io/app?x=1", /not made of/],
  ["an escaped slash", "ghcr.io/a%2fb", /not made of/],
  ["a login in front", "user:secret@ghcr.io/app", /digest/],
  ["an empty tag", "app:", /tag/],
  ["a tag too long", `app:${"t".repeat(129)}`, /tag/],
  ["a tag that begins with a hyphen", "app:-x", /tag/],
  ["two tags", "app:1:2", /tag/],
  ["an unknown kind of digest", `app@sha512:${hex}${hex}`, /digest/],
  ["a digest too short", "app@sha256:abc", /digest/],
  ["a digest with capitals", `app@sha256:${"A".repeat(64)}`, /digest/],
  ["a port that is none", "ghcr.io:99999/app", /registry/],
  ["port 0", "ghcr.io:0/app", /registry/],
  ["a port that is text", "ghcr.io:http/app", /registry/],
  ["a host that begins with a hyphen", "-ghcr.io/app", /registry/],
  ["half an address", "[::1/app", /registry/],
  ["an id", hex, /id/],
  ["a name too long", `ghcr.io/${"a/".repeat(150)}b`, /longer than 255/],
  ["a text too long", "a".repeat(2000), /longer than 1024/],
];

suite("image references", () => {
  for (const [text, canonical, parts] of good)
    test(`${text.slice(0, 60)} is ${canonical.slice(0, 60)}`, () => {
      const ref = parseReference(text);
      assert.equal(ref.canonical, canonical);
      assert.partialDeepStrictEqual(ref, parts ?? {});
      assert.deepEqual(parseReference(canonical), ref, "the full form means the same");
    });

  for (const [sentence, text, why] of bad)
    test(`refused: ${sentence}`, () => {
      assert.throws(
        () => parseReference(text),
        (e) => isAppError(e, "IMAGE_BAD_REFERENCE") && e.status === 400 && why.test(e.message),
      );
    });

  test("the pin has the digest and no tag", () => {
    assert.equal(pinName(parseReference("nginx:1"), digest), `docker.io/library/nginx@${digest}`);
  });
});
