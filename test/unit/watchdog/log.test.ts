import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { describeExit, lookPath, StartError } from "../../../src/watchdog/child.ts";
import { formatSize, timestamp } from "../../../src/watchdog/log.ts";
import type { Output } from "../../../src/watchdog/output.ts";
import { LineRelay } from "../../../src/watchdog/relay.ts";
import { isUtc } from "../../../src/watchdog/zone.ts";

suite("log lines of the watchdog", () => {
  for (const [bytes, text] of [
    [0, "0B"],
    [-1, "-1B"],
    [20_000, "20kB"],
    [160_768, "160.8kB"],
    [8_388_608, "8.389MB"],
  ] as const)
    test(`${bytes} bytes are ${text}`, () => assert.equal(formatSize(bytes), text));

  test("times are local and to the second", () => {
    assert.equal(timestamp(new Date(2026, 10, 3, 4, 5, 6, 789).getTime()), "2026/11/03 04:05:06 ");
  });

  for (const [zone, file, utc] of [
    ["UTC", "", true],
    ["Etc/UTC", "", true],
    [":Etc/UTC", "", true],
    ["", "", true],
    ["Europe/Vienna", "", false],
    ["CET-1CEST", "", false],
    [undefined, "/no/such/file", true],
    [undefined, import.meta.filename, false],
  ] as const)
    test(`TZ=${zone} ${file && "with a file"} is ${utc ? "UTC" : "a zone of its own"}`, () =>
      assert.equal(isUtc(zone, file), utc));

  test("ends of processes, in Go's words", () => {
    assert.equal(describeExit({ code: 7, signal: null }), "exit status 7");
    assert.equal(describeExit({ code: null, signal: "SIGKILL" }), "signal: killed");
    assert.equal(describeExit({ code: null, signal: "SIGSTKFLT" }), "signal: SIGSTKFLT");
  });

  test("programs are looked up like Go does", () => {
    assert.match(lookPath("sh", "/nowhere:/bin"), /^\/bin\/sh$/);
    assert.equal(lookPath("./x", "/bin"), "./x");
    assert.throws(() => lookPath("no-such", "/bin"), StartError);
    assert.throws(() => lookPath("", "/bin"), StartError);
  });
});

/** An output that keeps what is written, and how much was asked to be held. */
class Kept {
  text = "";
  write(data: string | Uint8Array): undefined {
    this.text += typeof data === "string" ? data : Buffer.from(data).toString();
  }
  holdLines(): void {}
}

function relay(prefix: "stdout" | null, pieces: string[]): string {
  const kept = new Kept();
  const lines = new LineRelay(kept as unknown as Output, prefix);
  for (const piece of pieces) void lines.write(Buffer.from(piece));
  lines.end();
  return kept.text.replaceAll(/\d{4}\/\d\d\/\d\d \d\d:\d\d:\d\d /g, "<t> ");
}

suite("the function's own log lines", () => {
  test("one prefix per line, however the bytes are cut", () => {
    assert.equal(relay("stdout", ["a\nb", "c\n\n"]), "<t> stdout: a\n<t> stdout: bc\n<t> stdout: \n");
    assert.equal(relay(null, ["a\nb", "c\n"]), "a\nbc\n");
  });

  test("a last line without end gets one", () => {
    assert.equal(relay("stdout", ["a\nrest"]), "<t> stdout: a\n<t> stdout: rest\n");
    assert.equal(relay("stdout", []), "");
  });

  test("a line longer than any buffer is neither cut nor lost", () => {
    const long = "x".repeat(200_000);
    const pieces = [long.slice(0, 70_000), long.slice(70_000, 70_001), `${long.slice(70_001)}\nnext\n`];
    assert.equal(relay("stdout", pieces), `<t> stdout: ${long}\n<t> stdout: next\n`);
    assert.equal(relay("stdout", [long]), `<t> stdout: ${long}\n`);
  });
});
