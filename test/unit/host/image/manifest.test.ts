import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { isAppError } from "../../../../src/base/errors.ts";
import {
  chainIds,
  choosePlatform,
  type Entry,
  hostPlatform,
  parseConfig,
  parseManifest,
} from "../../../../src/host/image/manifest.ts";

const digest = (letter: string) => `sha256:${letter.repeat(64)}`;
const entry = (platform?: string, letter = "a"): Entry => {
  const [os = "", architecture = "", variant] = platform?.split("/") ?? [];
  return {
    mediaType: "application/vnd.oci.image.manifest.v1+json",
    digest: digest(letter),
    size: 1,
    annotations: {},
    platform: platform === undefined ? undefined : { os, architecture, variant },
  };
};

const choices: [sentence: string, arch: string, there: (string | undefined)[], found: string | RegExp][] = [
  ["the one that fits", "x64", ["linux/arm64", "linux/amd64"], "linux/amd64"],
  ["not another system's", "x64", ["windows/amd64"], /linux\/amd64 but for windows\/amd64/],
  ["no attestations", "x64", ["unknown/unknown", "linux/amd64"], "linux/amd64"],
  ["attestations alone", "x64", ["unknown/unknown"], /but for nothing/],
  ["arm64 with v8", "arm64", ["linux/arm/v7", "linux/arm64/v8"], "linux/arm64/v8"],
  ["arm64 without", "arm64", ["linux/arm64"], "linux/arm64"],
  ["arm: the best", "arm", ["linux/arm/v5", "linux/arm/v7", "linux/arm/v6"], "linux/arm/v7"],
  ["arm: a lower one will do", "arm", ["linux/arm/v5", "linux/arm/v6"], "linux/arm/v6"],
  ["arm: not a higher one", "arm", ["linux/arm/v8"], /linux\/arm\/v7 but for linux\/arm\/v8/],
  ["amd64: the plain one", "x64", ["linux/amd64/v3", "linux/amd64"], "linux/amd64"],
  ["one without a platform", "x64", [undefined], ""],
  ["nothing", "x64", [], /but for nothing/],
];

suite("manifests", () => {
  for (const [sentence, arch, there, found] of choices)
    test(`platform: ${sentence}`, () => {
      const entries = there.map((p) => entry(p));
      const choose = () => choosePlatform("r", entries, hostPlatform(arch));
      if (found instanceof RegExp)
        assert.throws(choose, (e) => isAppError(e, "IMAGE_PLATFORM") && found.test(e.message));
      else
        assert.equal(
          Object.values(choose().platform ?? {})
            .filter(Boolean)
            .join("/"),
          found,
        );
    });

  const config = { mediaType: "application/vnd.oci.image.config.v1+json", digest: digest("c"), size: 2 };
  const layer = { mediaType: "application/vnd.oci.image.layer.v1.tar+gzip", digest: digest("d"), size: 3 };
  const bad: [sentence: string, document: unknown, why: RegExp][] = [
    ["schema 1", { schemaVersion: 1, name: "a", fsLayers: [] }, /schema 1/],
    ["two things at once", { schemaVersion: 2, manifests: [], config, layers: [] }, /also an index/],
    ["neither", { schemaVersion: 2 }, /no config and layers/],
    ["a chart", { config: { ...config, mediaType: "application/vnd.cncf.helm.config.v1+json" }, layers: [] }, /helm/],
    ["an unknown layer", { config, layers: [{ ...layer, mediaType: "x/y+encrypted" }] }, /x\/y\+encrypted/],
    ["a digest that is a path", { config, layers: [{ ...layer, digest: "sha256:../../etc" }] }, /layers\.0\.digest/],
    ["a size below zero", { config, layers: [{ ...layer, size: -1 }] }, /layers\.0\.size/],
    ["a size that is no number", { config, layers: [{ ...layer, size: 1e300 }] }, /layers\.0\.size/],
    ["a huge configuration", { config: { ...config, size: 1e9 }, layers: [] }, /configuration is larger/],
    ["too many layers", { config, layers: Array(501).fill(layer) }, /layers/],
    ["null", null, /manifest is not valid/],
  ];
  for (const [sentence, document, why] of bad)
    test(`refused: ${sentence}`, () => {
      assert.throws(
        () => parseManifest("r", Buffer.from(JSON.stringify(document))),
        (e) => isAppError(e, "IMAGE_BAD_MANIFEST") && why.test(e.message),
      );
    });

  test("a manifest without a type of its own has that of the answer", () => {
    const body = Buffer.from(JSON.stringify({ schemaVersion: 2, config, layers: [layer] }));
    const docker = "application/vnd.docker.distribution.manifest.v2+json";
    assert.equal(parseManifest("r", body, `${docker}; charset=utf-8`).mediaType, docker);
    assert.equal(parseManifest("r", body).mediaType, "application/vnd.oci.image.manifest.v1+json");
  });

  test("chain ids as the image specification computes them", () => {
    const [a, b] = [digest("a"), digest("b")];
    assert.deepEqual(chainIds([]), []);
    assert.deepEqual(chainIds([a]), [a]);
    const chain = chainIds([a, b]);
    assert.equal(chain[0], a);
    // printf 'sha256:aa… sha256:bb…' | sha256sum
    assert.equal(chain[1], "sha256:ccd722928bd92476ba1745586fed6e45a102504185ad88cd89e01ff116fd146c");
  });

  const text = (value: unknown) => Buffer.from(JSON.stringify(value));
  const amd64 = { os: "linux", architecture: "amd64" };
  test("a configuration with nulls is one with nothing", () => {
    const parsed = parseConfig(
      "r",
      text({ ...amd64, config: { Cmd: null, Env: null }, rootfs: { type: "layers" } }),
      0,
      amd64,
    );
    assert.deepEqual(parsed.config, { User: "", Env: [], Entrypoint: [], Cmd: [], WorkingDir: "" });
  });
  test("a configuration for another processor is refused", () => {
    const other = text({ os: "linux", architecture: "s390x", rootfs: { diff_ids: [] } });
    assert.throws(
      () => parseConfig("r", other, 0, amd64),
      (e) => isAppError(e, "IMAGE_PLATFORM"),
    );
  });
  test("a configuration with another number of layers is refused", () => {
    const other = text({ ...amd64, rootfs: { diff_ids: [digest("a")] } });
    assert.throws(
      () => parseConfig("r", other, 2, amd64),
      (e) => isAppError(e, "IMAGE_BAD_MANIFEST"),
    );
  });
});
