import assert from "node:assert/strict";
import { fstatSync } from "node:fs";
import { open } from "node:fs/promises";
import { test } from "node:test";
import { writesToJournal } from "../../../src/systemd/journal.ts";

test("what is written goes to the journal if the variable names this very stream", async () => {
  await using file = await open("/dev/null");
  const { dev, ino } = fstatSync(file.fd);
  assert.equal(writesToJournal({ JOURNAL_STREAM: `${dev}:${ino}` }, file.fd), true);
  assert.equal(writesToJournal({ JOURNAL_STREAM: `${dev}:${ino + 1}` }, file.fd), false);
  assert.equal(writesToJournal({}, file.fd), false);
  assert.equal(writesToJournal({ JOURNAL_STREAM: `${dev}:${ino}` }, 12345), false);
});
