import { type FSWatcher, watch } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import { basename, dirname, join, posix } from "node:path";
import { Failure } from "./failure.ts";
import { Ignore } from "./ignore.ts";

/** No change for so long, and what has changed is told: editors and builds write more than one file. */
const quietMs = 100;
/** Told after so long in any case: something may be writing all the time. */
const mostMs = 2_000;

/** Not watched: others fill these, and builds put contexts into `build`. */
const notWatched = (path: string): boolean =>
  ["build", "template"].includes(path) || posix.basename(path) === "node_modules";

/**
 * Tells which of `paths` (files and folders, absolute) have changed, again and again; folders with all that is in them
 * but for what `Ignore` leaves out. What happens between two rounds is told in the next. Each folder is watched by
 * itself, because watching a whole tree would watch node_modules. Disposing ends it.
 */
export class Watch implements Disposable {
  readonly #trees: Tree[];
  readonly #changed = new Set<string>();
  #firstAt = 0;
  #timer: NodeJS.Timeout | undefined;
  #wake = () => {};

  private constructor(paths: readonly string[]) {
    this.#trees = [...new Set(paths)].map((path) => new Tree(path, () => this.#note(path)));
  }

  /** Resolves when everything is watched. */
  static async open(paths: readonly string[]): Promise<Watch> {
    const opened = new Watch(paths);
    await opened.#look(new Set(paths));
    return opened;
  }

  #note(path: string): void {
    const now = performance.now();
    if (this.#changed.size === 0) this.#firstAt = now;
    this.#changed.add(path);
    clearTimeout(this.#timer);
    const told = () => {
      this.#timer = undefined;
      this.#wake();
    };
    this.#timer = setTimeout(told, Math.max(0, Math.min(quietMs, this.#firstAt + mostMs - now)));
  }

  async #look(paths: ReadonlySet<string>): Promise<void> {
    try {
      await Promise.all(this.#trees.filter((tree) => paths.has(tree.path)).map((tree) => tree.look()));
    } catch (e) {
      this[Symbol.dispose]();
      throw e;
    }
  }

  /** The next changes. Rejects with the signal's reason. */
  async next(signal: AbortSignal): Promise<ReadonlySet<string>> {
    const onAbort = () => this.#wake();
    signal.addEventListener("abort", onAbort);
    try {
      while (this.#changed.size === 0 || this.#timer) {
        signal.throwIfAborted();
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
    const changed = new Set(this.#changed);
    this.#changed.clear();
    // new folders are watched before anybody reads them: what changes from now on is told
    await this.#look(changed);
    return changed;
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    for (const tree of this.#trees) tree.close();
  }
}

/** One file or folder. */
class Tree {
  readonly path: string;
  readonly #onChange: () => void;
  readonly #watchers = new Map<string, FSWatcher>();
  #ignore: Ignore | undefined;

  constructor(path: string, onChange: () => void) {
    this.path = path;
    this.#onChange = onChange;
  }

  /** Watches what is there now, and no longer what has gone. */
  async look(): Promise<void> {
    const isFolder = (await stat(this.path).catch(() => undefined))?.isDirectory() ?? false;
    this.#ignore = isFolder ? await Ignore.open(this.path) : undefined;
    const found = new Set<string>();
    if (isFolder) await this.#walk("", found);
    else {
      // a file is replaced rather than written, and may be missing for now
      found.add(dirname(this.path));
      this.#watch(dirname(this.path), (name) => name === basename(this.path));
    }
    for (const [folder, watcher] of this.#watchers)
      if (!found.has(folder)) {
        watcher.close();
        this.#watchers.delete(folder);
      }
  }

  async #walk(path: string, found: Set<string>): Promise<void> {
    const folder = join(this.path, path);
    found.add(folder);
    // first of all: what comes while it is read is told
    this.#watch(folder, (name) => this.#isWanted(posix.join(path, name), false));
    await this.#ignore!.enter(path);
    for (const entry of await readdir(folder, { withFileTypes: true }).catch(() => [])) {
      const child = posix.join(path, entry.name);
      if (entry.isDirectory() && this.#isWanted(child, true)) await this.#walk(child, found);
    }
  }

  #isWanted(path: string, isFolder: boolean): boolean {
    if (notWatched(path)) return false;
    return !this.#ignore!.leavesOut(path, isFolder) || (isFolder && this.#ignore!.mayReturn(path));
  }

  #watch(folder: string, isWanted: (name: string) => boolean): void {
    if (this.#watchers.has(folder)) return;
    try {
      const watcher = watch(folder, (_event, name) => {
        if (name === null || isWanted(name)) this.#onChange();
      });
      watcher.on("error", () => {}); // it has gone; its parent's watch tells
      this.#watchers.set(folder, watcher);
    } catch (e) {
      const { code, message } = e as NodeJS.ErrnoException;
      if (code === "ENOENT" || code === "ENOTDIR") return;
      const remedy = code === "ENOSPC" || code === "EMFILE" ? "; raise fs.inotify.max_user_watches or _instances" : "";
      throw new Failure(`${folder} cannot be watched: ${message}${remedy}`);
    }
  }

  close(): void {
    for (const watcher of this.#watchers.values()) watcher.close();
    this.#watchers.clear();
  }
}
