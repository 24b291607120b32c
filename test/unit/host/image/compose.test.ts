import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { isAppError } from "../../../../src/base/errors.ts";
import { type Base, documentsOf, emptyBase, type ImageChanges } from "../../../../src/host/image/compose.ts";
import { hostPlatform, maxLayers, parseConfig, parseManifest } from "../../../../src/host/image/manifest.ts";

const digest = (letter: string) => `sha256:${letter.repeat(64)}`;
const layer = { digest: digest("f"), size: 10 };

function baseOf(config: object, more: object = {}): Base {
  return {
    layers: [
      {
        mediaType: "application/vnd.docker.image.rootfs.diff.tar.gzip",
        digest: digest("1"),
        size: 5,
        platform: undefined,
        annotations: {},
      },
    ],
    config: {
      architecture: "amd64",
      os: "linux",
      config,
      rootfs: { type: "layers", diff_ids: [digest("2")] },
      ...more,
    },
  };
}

const made = (base: Base, changes: ImageChanges = {}) =>
  JSON.parse(documentsOf(base, layer, changes).config.toString());

suite("an image of a base and a layer", () => {
  const before = { Env: ["PATH=/bin", "A=1", "B=x=y"], Entrypoint: ["/e"], Cmd: ["c"], User: "u", WorkingDir: "/w" };
  const rows: [says: string, config: object, changes: ImageChanges, after: object][] = [
    ["stays as it is without changes", before, {}, before],
    [
      "has variables in their places, new ones behind",
      before,
      { env: { C: "3", A: "2", B: "" } },
      { ...before, Env: ["PATH=/bin", "A=2", "B=", "C=3"] },
    ],
    [
      "loses the arguments of another program",
      before,
      { entrypoint: ["/n"] },
      { ...before, Entrypoint: ["/n"], Cmd: [] },
    ],
    ["gets both", before, { entrypoint: ["/n"], cmd: ["x"] }, { ...before, Entrypoint: ["/n"], Cmd: ["x"] }],
    ["gets other arguments", before, { cmd: ["x", "y"] }, { ...before, Cmd: ["x", "y"] }],
    ["gets user and folder", before, { user: "1:2", workingDir: "/x" }, { ...before, User: "1:2", WorkingDir: "/x" }],
    ["can go back to the default user", before, { user: "" }, { ...before, User: "" }],
    [
      "keeps labels and what nobody here knows",
      { Labels: { a: "1", b: "1" }, Healthcheck: { Test: ["x"] } },
      { labels: { b: "2", __proto__x: "3" } },
      { Env: [], Labels: { a: "1", b: "2", __proto__x: "3" }, Healthcheck: { Test: ["x"] } },
    ],
    ["comes of a base without a word", {}, { cmd: ["x"] }, { Env: [], Cmd: ["x"] }],
  ];
  for (const [says, config, changes, after] of rows)
    test(says, () => assert.deepEqual(made(baseOf(config), changes).config, after));

  test("has the layer on top, in OCI's words, in both documents, and says so in its history if it has one", () => {
    const history = [{ created: "2020-01-01T00:00:00Z", created_by: "ADD" }];
    const { config, manifest } = documentsOf(baseOf({}, { history, created: "2020-01-01T00:00:00Z" }), layer, {});
    const parsed = parseManifest("x", manifest);
    assert.ok(parsed.kind === "image");
    assert.deepEqual(
      parsed.layers.map((l) => [l.mediaType, l.digest]),
      [
        ["application/vnd.oci.image.layer.v1.tar+gzip", digest("1")],
        ["application/vnd.oci.image.layer.v1.tar", layer.digest],
      ],
    );
    const platform = { os: "linux", architecture: "amd64" };
    assert.deepEqual(parseConfig("x", config, 2, platform).rootfs.diff_ids, [digest("2"), layer.digest]);
    const { history: told, created } = JSON.parse(config.toString());
    assert.deepEqual([told.length, told[1].created, created], [2, created, "2020-01-01T00:00:00Z"]);
    assert.equal(made(baseOf({})).history, undefined);
  });

  test("is the same bytes for the same parts, and others for others", () => {
    const documents = (...parts: Parameters<typeof documentsOf>) => Object.values(documentsOf(...parts)).map(String);
    const base = baseOf(before);
    assert.deepEqual(documents(base, layer, { cmd: ["x"] }), documents(baseOf(before), { ...layer }, { cmd: ["x"] }));
    assert.notDeepEqual(documents(base, layer, { cmd: ["x"] }), documents(base, layer, { cmd: ["y"] }));
    assert.notDeepEqual(documents(base, layer, {}), documents(base, { ...layer, digest: digest("e") }, {}));
  });

  test("of nothing is for this machine", () => {
    const config = made(emptyBase(hostPlatform("arm64")));
    assert.deepEqual([config.architecture, config.os, config.rootfs.diff_ids], ["arm64", "linux", [layer.digest]]);
  });

  test("cannot have more layers than an image may have", () => {
    const base = { ...baseOf({}), layers: Array.from({ length: maxLayers }, () => baseOf({}).layers[0]!) };
    assert.throws(
      () => documentsOf(base, layer, {}),
      (e) => isAppError(e, "IMAGE_UNUSABLE"),
    );
  });
});
