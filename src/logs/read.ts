import type { LogLine, LogQuery } from "../functions/backend.ts";
import { LineReader, lastLines, lineAt, type TimedLine } from "./lines.ts";
import type { LogFile } from "./log-file.ts";
import { offsetSince } from "./marks.ts";

/** The logs of one function: of each replica that there is or was, by its instance. */
export interface Group {
  readonly name: string;
  readonly namespace: string;
  readonly files: ReadonlyMap<string, LogFile>;
  /** Called when a file has grown, came, ended or went. */
  readonly listeners: Set<() => void>;
}

/** A reader with the line that it would tell next. */
interface Source {
  readonly reader: LineReader;
  head: TimedLine | undefined;
}

/**
 * Lines of all replicas, those that are there in the order of their times, then, when `follow` is asked for, new ones
 * as they come, until `signal` aborts. A line is read when it is asked for, so a slow reader costs nothing; one that is
 * overtaken by the rotation goes on with the oldest line that is left.
 */
export async function* readLogs(group: Group, query: LogQuery, signal: AbortSignal): AsyncGenerator<LogLine, void> {
  let changed = Promise.withResolvers<void>();
  const wake = () => changed.resolve();
  group.listeners.add(wake);
  signal.addEventListener("abort", wake, { once: true });
  try {
    const sources = new Map<LogFile, Source>();
    const isWanted = (file: LogFile) => query.instance === undefined || file.instance === query.instance;
    const takesRest = (file: LogFile) => !query.follow || !file.live;
    for (const file of [...group.files.values()].filter(isWanted))
      sources.set(file, { reader: await openReader(file, query), head: undefined });
    const all = () => [...sources.values()];
    let skip = query.tail === undefined ? 0 : (await countLines(all(), takesRest)) - query.tail;
    for await (const line of merge(all(), takesRest)) {
      if (signal.aborted) return;
      if (line.time >= query.since && skip-- <= 0) yield tell(group, line);
    }
    while (query.follow && !signal.aborted) {
      await changed.promise;
      changed = Promise.withResolvers<void>();
      for (const file of sources.keys()) if (group.files.get(file.instance) !== file) sources.delete(file);
      for (const file of group.files.values())
        if (isWanted(file) && !sources.has(file))
          sources.set(file, { reader: new LineReader(file, 0, 0), head: undefined });
      for (const { reader } of all()) reader.limit = reader.file.size;
      for await (const line of merge(all(), takesRest)) {
        if (signal.aborted) return;
        yield tell(group, line);
      }
    }
  } finally {
    group.listeners.delete(wake);
    signal.removeEventListener("abort", wake);
  }
}

/** At the first line of `since` or later, or so near to the end that `tail` lines are left. */
async function openReader(file: LogFile, { since, tail }: LogQuery): Promise<LineReader> {
  await file.refresh();
  const limit = file.size;
  const marks = await file.marksFrom(0);
  const from = await lineAt(file, Math.min(limit, offsetSince(marks, since)));
  // one more than asked for: an unfinished line may not count
  return new LineReader(file, tail === undefined ? from : await lastLines(file, tail + 1, from, limit), limit);
}

async function countLines(sources: readonly Source[], takesRest: (file: LogFile) => boolean): Promise<number> {
  let lines = 0;
  for (const { reader } of sources) {
    const counter = reader.copy();
    while (await counter.skip(takesRest(reader.file))) lines++;
  }
  return lines;
}

type SourcedLine = TimedLine & { readonly instance: string };

/** What all sources have up to their limits, in the order of time; lines of one source keep theirs. */
async function* merge(
  sources: readonly Source[],
  takesRest: (file: LogFile) => boolean,
): AsyncGenerator<SourcedLine, void> {
  const next = async (source: Source) => {
    source.head = await source.reader.next(takesRest(source.reader.file));
  };
  for (const source of sources) await next(source);
  for (;;) {
    let first: Source | undefined;
    for (const s of sources) if (s.head && !(first?.head && first.head.time <= s.head.time)) first = s;
    if (!first?.head) return;
    const { time, text } = first.head;
    yield { time, text, instance: first.reader.file.instance };
    await next(first);
  }
}

function tell({ name, namespace }: Group, { time, text, instance }: SourcedLine): LogLine {
  return { name, namespace, instance, time, text };
}
