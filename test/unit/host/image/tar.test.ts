import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdir, symlink, writeFile } from "node:fs/promises";
import { suite, test } from "node:test";
import { promisify } from "node:util";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { isAppError } from "../../../../src/base/errors.ts";
import { Archive } from "../../../../src/host/image/archive.ts";
import { tmpDir } from "../../../support/tmp.ts";

const never = new AbortController().signal;
const run = promisify(execFile);

interface Field {
  name?: string;
  type?: string;
  link?: string;
  size?: string;
  content?: string;
  magic?: string;
  sum?: number;
}

function block({ name = "a", type = "0", link = "", size, content = "", magic = "ustar\x0000", sum }: Field): Buffer {
  const header = Buffer.alloc(512);
  header.write(name, 0);
  header.write(size ?? `${Buffer.byteLength(content).toString(8).padStart(11, "0")}\0`, 124, "latin1");
  header.write(" ".repeat(8), 148);
  header.write(type, 156);
  header.write(link, 157);
  header.write(magic, 257);
  const total = sum ?? header.reduce((s, b) => s + b, 0);
  header.write(`${total.toString(8).padStart(6, "0")}\0 `, 148);
  const body = Buffer.alloc(Math.ceil(Buffer.byteLength(content) / 512) * 512);
  body.write(content);
  return Buffer.concat([header, body]);
}

const end = Buffer.alloc(1024);
const pax = (key: string, value: string) => {
  const rest = ` ${key}=${value}\n`;
  let length = Buffer.byteLength(rest) + 1;
  while (Buffer.byteLength(`${length}${rest}`) !== length) length++;
  return block({ name: "pax", type: "x", content: `${length}${rest}` });
};

async function withArchive<T>(bytes: Buffer, work: (archive: Archive) => Promise<T>): Promise<T> {
  await using tmp = await tmpDir();
  await writeFile(`${tmp.path}/a.tar`, bytes);
  await using archive = await Archive.open(`${tmp.path}/a.tar`, never);
  return await work(archive);
}

async function textOf(archive: Archive, name: string): Promise<string | undefined> {
  const entry = archive.find(name);
  return entry && (await archive.readAll(entry, 1e6)).toString();
}

const long = `${"d".repeat(90)}/${"e".repeat(150)}`;
const good: [sentence: string, blocks: Buffer[], name: string, content: string | undefined][] = [
  ["a file", [block({ name: "a", content: "hello" }), end], "a", "hello"],
  ["one that is not there", [block({ name: "a", content: "hello" }), end], "b", undefined],
  ["./ in front", [block({ name: "./x/a", content: "1" }), end], "x/a", "1"],
  ["no end", [block({ name: "a", content: "1" })], "a", "1"],
  ["an old header without a magic", [block({ name: "a", type: "\0", magic: "", content: "1" }), end], "a", "1"],
  ["the last of two with one name", [block({ content: "1" }), block({ content: "2" }), end], "a", "2"],
  ["a long name in a pax header", [pax("path", long), block({ content: "1" }), end], long, "1"],
  ["a long name in GNU's way", [block({ type: "L", content: `${long}\0` }), block({ content: "1" }), end], long, "1"],
  [
    "a pax header counts once",
    [pax("path", "b"), block({ name: "x" }), block({ name: "c", content: "1" }), end],
    "c",
    "1",
  ],
  ["a global pax header", [block({ type: "g", content: "9 a=b\n" }), block({ content: "1" }), end], "a", "1"],
  [
    "a size in a pax header",
    [pax("size", "3"), block({ size: "00000000000\0" }), Buffer.from(`abc${"\0".repeat(509)}`), end],
    "a",
    "abc",
  ],
  [
    "a size in base 256",
    [block({ size: "\x80\0\0\0\0\0\0\0\0\0\0\x03" }), Buffer.from(`abc${"\0".repeat(509)}`), end],
    "a",
    "abc",
  ],
  [
    "a relative link",
    [block({ name: "x/a", type: "2", link: "../y/b" }), block({ name: "y/b", content: "1" }), end],
    "x/a",
    "1",
  ],
  [
    "a hard link",
    [block({ name: "y/b", content: "1" }), block({ name: "x/a", type: "1", link: "y/b" }), end],
    "x/a",
    "1",
  ],
  [
    "links in a ring",
    [block({ name: "a", type: "2", link: "b" }), block({ name: "b", type: "2", link: "a" }), end],
    "a",
    undefined,
  ],
  ["a directory is no file", [block({ name: "a/", type: "5" }), end], "a", undefined],
  ["a device is no file", [block({ name: "a", type: "3" }), end], "a", undefined],
];

const bad: [sentence: string, bytes: Buffer, why: RegExp][] = [
  ["no tar", Buffer.from("hello ".repeat(200)), /no tar file/],
  ["half a header", block({}).subarray(0, 300), /ends too early/],
  ["a wrong sum", block({ sum: 1 }), /no tar file/],
  ["a way out", block({ name: "x/../../etc/passwd" }), /leads out/],
  ["a way out in a pax header", Buffer.concat([pax("path", "../x"), block({})]), /leads out/],
  ["an absolute name", block({ name: "/etc/passwd" }), /absolute/],
  ["a link that leads out", block({ name: "a", type: "2", link: "../b" }), /leads out/],
  ["an absurd size", block({ size: "\x80\x7f\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff" }), /absurd size/],
  ["an absurd header", Buffer.concat([block({ type: "x", size: "77777777777\0" }), end]), /absurd length/],
  ["a damaged pax header", block({ type: "x", content: "999 path=x\n" }), /damaged/],
  ["a pax header that does not move", block({ type: "x", content: "0 path=x\n" }), /damaged/],
  ["a sparse file", block({ type: "S" }), /sparse/],
  ["damaged gzip", Buffer.concat([gzipSync(block({ content: "x".repeat(5000) })).subarray(0, 60)]), /./],
  ["nothing of gzip but its mark", Buffer.from([0x1f, 0x8b, 0, 0]), /./],
];

suite("tar archives", () => {
  for (const [sentence, blocks, name, content] of good) {
    test(sentence, () => withArchive(Buffer.concat(blocks), async (a) => assert.equal(await textOf(a, name), content)));
    test(`${sentence}, with gzip`, () =>
      withArchive(gzipSync(Buffer.concat(blocks)), async (a) => assert.equal(await textOf(a, name), content)));
  }

  for (const [sentence, bytes, why] of bad)
    test(`refused: ${sentence}`, async () => {
      await assert.rejects(
        withArchive(bytes, async () => {}),
        (e) => isAppError(e, "IMAGE_BAD_ARCHIVE") && e.status === 400 && why.test(e.message),
      );
    });

  test("refused: a file that is not there, and a directory", async () => {
    for (const path of ["/nonexistent.tar", "/tmp"])
      await assert.rejects(Archive.open(path, never), (e) => isAppError(e, "IMAGE_BAD_ARCHIVE"));
  });

  test("content that the file does not have is missed when it is read", async () => {
    await withArchive(block({ content: "x".repeat(2000) }).subarray(0, 1024), async (archive) => {
      await assert.rejects(
        textOf(archive, "a"),
        (e) => isAppError(e, "IMAGE_BAD_ARCHIVE") && /too early/.test(e.message),
      );
    });
  });

  test("a document above its limit is refused without reading it", async () => {
    await withArchive(Buffer.concat([block({ content: "x".repeat(2000) }), end]), async (archive) => {
      await assert.rejects(archive.readAll(archive.find("a")!, 1999), /larger than 1999/);
    });
  });

  for (const [how, pack] of [
    ["plain", (b: Buffer) => b],
    ["gzip", gzipSync],
    ["zstd", zstdCompressSync],
  ] as const)
    test(`${how}: entries are read in any order and from the middle`, async () => {
      const contents = [1, 2, 3].map((n) => String(n).repeat(300_000));
      const bytes = Buffer.concat([...contents.map((content, i) => block({ name: `f${i}`, content })), end]);
      await withArchive(pack(bytes), async (archive) => {
        for (const i of [2, 0, 1, 1]) {
          const parts: Buffer[] = [];
          for await (const part of archive.read(archive.find(`f${i}`)!, 100_000)) parts.push(part);
          assert.equal(Buffer.concat(parts).toString(), contents[i]!.slice(100_000));
        }
      });
    });

  for (const format of ["gnu", "pax", "ustar", "v7"])
    test(`what tar(1) writes as ${format}`, async () => {
      await using tmp = await tmpDir();
      const deep = `x/${format === "gnu" || format === "pax" ? "n".repeat(180) : "n".repeat(60)}`;
      await mkdir(`${tmp.path}/t/x`, { recursive: true });
      await writeFile(`${tmp.path}/t/${deep}`, "content");
      await symlink(deep.slice(2), `${tmp.path}/t/x/link`);
      await run("tar", ["-C", `${tmp.path}/t`, `--format=${format}`, "-cf", `${tmp.path}/a.tar`, "."]);
      await using archive = await Archive.open(`${tmp.path}/a.tar`, never);
      assert.equal(await textOf(archive, deep), "content");
      assert.equal(await textOf(archive, "x/link"), "content");
    });
});
