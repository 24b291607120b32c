/** What a message is for: a call of a function, or telling somebody what came of one. */
export type Lane = "call" | "callback";

/** `queued`: waits for its turn or its next attempt; `running`: taken; `dead`: given up, kept to be looked at. */
export type MessageState = "queued" | "running" | "dead";

/** A body: in the row if it is small, else a file in the queue's directory that is on disk already. */
export type StoredBody =
  | { readonly bytes: number; readonly data: Uint8Array; readonly file: null }
  | { readonly bytes: number; readonly data: null; readonly file: string };

export interface NewMessage {
  readonly callId: string;
  readonly lane: Lane;
  /** `NAME.NAMESPACE`. */
  readonly fn: string;
  /** Lane call: path and query; lane callback: the URL. */
  readonly target: string;
  /** Names and values in turn. */
  readonly headers: readonly string[];
  readonly body: StoredBody;
  readonly callback: string | null;
  /** Ms since the epoch. */
  readonly created: number;
}

export interface Message extends NewMessage {
  readonly seq: number;
  /** The one that is under way included. */
  readonly attempts: number;
}

/** What became of an attempt. `next`: another message that takes this one's place in the same transaction. */
export type Outcome = { readonly next?: NewMessage; readonly status?: number; readonly error?: string } & (
  | { readonly to: "done" | "dead" }
  | { readonly to: "queued"; readonly due: number }
);

/** A message as people look at it: without its headers and body. */
export interface MessageInfo {
  readonly callId: string;
  readonly lane: Lane;
  readonly fn: string;
  readonly target: string;
  readonly state: MessageState;
  readonly attempts: number;
  readonly bytes: number;
  readonly callback: string | null;
  readonly created: number;
  readonly due: number;
  /** Of the last attempt. */
  readonly status: number | null;
  readonly error: string | null;
}

export interface MessageFilter {
  readonly fn?: string;
  readonly namespace?: string;
  readonly state?: MessageState;
  readonly callId?: string;
  readonly limit: number;
}

/** Of one function and lane. */
export interface Depth {
  readonly lane: Lane;
  readonly fn: string;
  readonly queued: number;
  readonly running: number;
  readonly dead: number;
  /** When the oldest that is queued or runs came, ms since the epoch; null when there is none. */
  readonly oldest: number | null;
}

export interface Taken {
  readonly messages: readonly Message[];
  /** When the next of those that stay queued is due; null when there are none. */
  readonly nextDue: number | null;
}

/** What others do to the messages of a store that several machines share. */
export interface StoreEvents {
  /** There may be something to take. */
  available(lane: Lane, fn: string): void;
  /** Somebody has removed them: attempts at them are for nothing. */
  removed(seqs: readonly number[]): void;
}

/**
 * The seam of the queue: messages that outlive napd. What a method has resolved for is on disk. Every method fails with
 * DISK_FULL or QUEUE_STORE (QUEUE_SERVER or QUEUE_SERVER_FULL when a server keeps them), and has changed nothing then.
 * What was taken and not settled when napd ended is queued again.
 */
export interface QueueStore extends AsyncDisposable {
  /**
   * Whether several machines put and take. What one of them takes, no other has until it settles or dies; its numbers
   * are then about all of them, and it may be out of reach for a while.
   */
  readonly isShared: boolean;
  /** Whom to tell; once, before anything else. */
  watch(events: StoreEvents): void;
  put(message: NewMessage): Promise<void>;
  /** The oldest that are due, which are this caller's from now on until it settles them. */
  take(lane: Lane, fn: string, limit: number, now: number): Promise<Taken>;
  /** False when the message is not there any more: it was cancelled. */
  settle(seq: number, outcome: Outcome): Promise<boolean>;
  depths(): Promise<readonly Depth[]>;
  /** Oldest first. */
  list(filter: MessageFilter): Promise<readonly MessageInfo[]>;
  /** Removes all of a call, whatever their state. What they were. */
  remove(callId: string): Promise<readonly { seq: number; lane: Lane; fn: string; state: MessageState }[]>;
  /** Queues the dead of a call again, with their attempts forgotten. What they are. */
  revive(callId: string, now: number): Promise<readonly { lane: Lane; fn: string }[]>;
  /** Removes those that died (came, that is) before `before`, and the oldest beyond `keep`; how many. */
  bury(before: number, keep: number): Promise<number>;
}
