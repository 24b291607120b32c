import type { JetStreamManager } from "@nats-io/jetstream";
import { isServerError, type Nats, serverCodes } from "./connection.ts";
import { infoHeader, type Key, type Layout, type StreamName, withInfo } from "./layout.ts";

/** What is known of the attempts at a message. */
export interface Run {
  /** Of the message in its stream. */
  readonly seq: number;
  /** The one that is under way included. */
  readonly attempts: number;
  readonly state: "running" | "queued";
  /** Ms since the epoch. */
  readonly due: number;
  /** Of the last attempt. */
  readonly status: number | null;
  readonly error: string | null;
  /** Which napd wrote it. */
  readonly by: string;
}

export interface StoredRun extends Run {
  /** Of the record in its stream. */
  readonly record: number;
}

/**
 * Writes the record of a message, when the one before is still `last` (0: when there is none), and tells its place.
 * Null when it is not: somebody else has the message, or it was removed.
 */
export async function writeRun({ js }: Nats, layout: Layout, key: Key, run: Run, last: number): Promise<number | null> {
  const expect = { lastSubjectSequence: last };
  try {
    return (await js.publish(layout.subject("runs", key), "", { headers: withInfo(run), expect })).seq;
  } catch (e) {
    if (isServerError(e, serverCodes.wrongLastSequence)) return null;
    throw e;
  }
}

/** Asked of the stream's leader: another replica may be behind. */
export async function readRun({ jsm }: Nats, layout: Layout, key: Key): Promise<StoredRun | null> {
  const found = await jsm.streams.getMessage(layout.stream("runs"), { last_by_subj: layout.subject("runs", key) });
  return found && { ...(JSON.parse(found.header.get(infoHeader)) as Run), record: found.seq };
}

/** Removes what a stream has of a message. */
export async function purgeKey(jsm: JetStreamManager, layout: Layout, name: StreamName, key: Key): Promise<void> {
  await jsm.streams.purge(layout.stream(name), { filter: layout.subject(name, key) });
}

/**
 * Removes a message for good; false when it is not there any more. With `forGood` it is overwritten: the server writes
 * down what it has removed only now and then, and what it was killed with comes back.
 */
export async function deleteMessage(
  jsm: JetStreamManager,
  stream: string,
  seq: number,
  forGood: boolean,
): Promise<boolean> {
  try {
    return await jsm.streams.deleteMessage(stream, seq, forGood);
  } catch (e) {
    if (isServerError(e, serverCodes.sequenceNotFound, serverCodes.noMessage)) return false;
    throw e;
  }
}
