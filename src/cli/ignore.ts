import { readFile, stat } from "node:fs/promises";
import { dirname, join } from "node:path";

interface Rule {
  readonly negated: boolean;
  readonly folderOnly: boolean;
  readonly pattern: RegExp;
}

/** The rules of one file. */
interface RuleSet {
  /** The folder that they count from, with a slash at its end. */
  readonly from: string;
  readonly rules: readonly Rule[];
}

/** Left out in any case: no function needs these, and some change without anybody having changed anything. */
const never = new Set([".git", ".hg", ".svn", ".DS_Store", "__pycache__", "4913"]);
/** What editors keep beside an open file. */
const byEditors = /^\.#|~$|^\..*\.sw[a-p]$/;
/** Nobody commits them, so they stand in every .gitignore; but a function needs them, whole. */
const dependencies = "node_modules";

/**
 * What of a folder does not belong into an image. A `.dockerignore` in it decides alone. Without one the `.gitignore`
 * files count, from the repository's root down, but not for `node_modules` and what is in it.
 */
export class Ignore {
  readonly #root: string;
  readonly #docker: readonly Rule[] | undefined;
  readonly #git: RuleSet[] = [];

  private constructor(root: string, docker: readonly Rule[] | undefined) {
    this.#root = root;
    this.#docker = docker;
  }

  /** @param root - absolute. */
  static async open(root: string): Promise<Ignore> {
    const docker = await textOf(join(root, ".dockerignore"));
    const ignore = new Ignore(root, docker === undefined ? undefined : rulesOf(docker, dockerRule));
    for (const folder of await foldersAbove(root)) await ignore.#read(folder);
    return ignore;
  }

  /** Name of the files that say so. */
  get by(): string {
    return this.#docker ? ".dockerignore" : ".gitignore";
  }

  /** To be called for each folder before what is in it is asked about; `folder` is relative to the root. */
  async enter(folder: string): Promise<void> {
    if (!isDependency(folder)) await this.#read(join(this.#root, folder));
  }

  async #read(folder: string): Promise<void> {
    if (this.#docker || this.#git.some((set) => set.from === `${folder}/`)) return;
    const rules = rulesOf((await textOf(join(folder, ".gitignore"))) ?? "", gitRule);
    if (rules.length > 0) this.#git.push({ from: `${folder}/`, rules });
  }

  /** What is never wanted, whatever the files say. */
  isNever(path: string): boolean {
    const name = path.slice(path.lastIndexOf("/") + 1);
    return never.has(name) || byEditors.test(name);
  }

  /** `path` is relative to the root; nothing is asked about what is below a folder that is left out and not entered. */
  leavesOut(path: string, isFolder: boolean): boolean {
    if (this.isNever(path)) return true;
    if (this.#docker) return leftOutByDocker(this.#docker, path);
    if (isDependency(path)) return false;
    const whole = join(this.#root, path);
    let out = false;
    for (const { from, rules } of this.#git)
      if (whole.startsWith(from))
        for (const rule of rules)
          if ((isFolder || !rule.folderOnly) && rule.pattern.test(whole.slice(from.length))) out = !rule.negated;
    return out;
  }

  /** Whether something in a folder that is left out may be wanted all the same: docker's files can say so, git's cannot. */
  mayReturn(path: string): boolean {
    return !this.isNever(path) && (this.#docker?.some((rule) => rule.negated) ?? false);
  }
}

const isDependency = (path: string): boolean => path.split("/").includes(dependencies);

/** From the root of the repository that the folder is in down to the folder; the folder alone when it is in none. */
async function foldersAbove(folder: string): Promise<string[]> {
  const all = [folder];
  for (let dir = folder; ; dir = dirname(dir)) {
    if (dir !== folder) all.unshift(dir);
    if (await stat(join(dir, ".git")).catch(() => undefined)) return all;
    if (dirname(dir) === dir) return [folder];
  }
}

async function textOf(file: string): Promise<string | undefined> {
  return readFile(file, "utf8").catch((e: NodeJS.ErrnoException) => {
    if (e.code === "ENOENT" || e.code === "ENOTDIR" || e.code === "EISDIR") return undefined;
    throw e;
  });
}

function rulesOf(text: string, parse: (line: string) => Omit<Rule, "negated"> | undefined): Rule[] {
  return text.split(/\r?\n/).flatMap((line) => {
    const trimmed = line.replace(/(?<!\\)\s+$/, "");
    if (trimmed === "" || trimmed.startsWith("#")) return [];
    const negated = trimmed.startsWith("!");
    const rule = parse(negated ? trimmed.slice(1) : trimmed);
    return rule ? [{ ...rule, negated }] : [];
  });
}

/** gitignore(5): a slash that is not the last character ties a pattern to its file's folder. */
function gitRule(line: string): Omit<Rule, "negated"> | undefined {
  const folderOnly = line.endsWith("/");
  const text = line.replace(/\/+$/, "").replace(/^\\(?=[#!])/, "");
  if (text === "") return undefined;
  const tied = text.includes("/");
  return { folderOnly, pattern: new RegExp(`^${tied ? "" : "(?:.*/)?"}${globSource(text.replace(/^\//, ""))}$`, "s") };
}

/** Docker's: every pattern counts from the root of the context, and means a folder with all that is in it. */
function dockerRule(line: string): Omit<Rule, "negated"> | undefined {
  const text = line
    .trim()
    .split("/")
    .filter((part) => part !== "" && part !== ".")
    .join("/");
  return text === "" ? undefined : { folderOnly: false, pattern: new RegExp(`^${globSource(text)}(?:/.*)?$`, "s") };
}

function leftOutByDocker(rules: readonly Rule[], path: string): boolean {
  return rules.findLast((rule) => rule.pattern.test(path))?.negated === false;
}

/** Source of a regular expression for a glob with `*`, `?`, `[a-z]`, and `**` for any number of folders. */
function globSource(glob: string): string {
  const token = /\*\*\/|\/\*\*$|\*+|\?|\[(?:\\.|[^\]\\])+\]|\\.|./gsu;
  return glob.replace(token, (found) => {
    if (found === "**/") return "(?:.*/)?";
    if (found === "/**") return "/.*";
    if (found.startsWith("**")) return ".*";
    if (found === "*") return "[^/]*";
    if (found === "?") return "[^/]";
    if (found.startsWith("[") && found.length > 1)
      return found.replace(/^\[[!^]/, "[^").replace(/^\[(\^?)/, "(?!/)[$1");
    const character = found.startsWith("\\") ? found.slice(1) : found;
    return character.replace(/[\\^$.|?*+()[\]{}/-]/g, "\\$&");
  });
}
