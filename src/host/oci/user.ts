import { AppError } from "../../base/errors.ts";

/** Who a function's program runs as. */
export interface ResolvedUser {
  readonly uid: number;
  readonly gid: number;
  /** Supplementary groups, the primary one included. */
  readonly additionalGids: readonly number[];
  /** Home directory of the passwd entry; undefined when there is none. */
  readonly home?: string;
}

interface PasswdEntry {
  name: string;
  uid: number;
  gid: number;
  home: string;
}

interface GroupEntry {
  name: string;
  gid: number;
  members: string[];
}

/** The largest id that runc takes (a signed 32-bit number). */
const maxId = 2 ** 31 - 1;

/**
 * Resolves an image's USER (`""`, `name`, `uid`, `user:group`, each part a name or a number) against the texts of
 * the image's /etc/passwd and /etc/group (`""` when it has none). Rules of contracts/containerd.md §8:
 *
 * - empty is root; whether root is welcome is the caller's policy;
 * - a name takes uid, gid and home of its entry, and the groups that list it;
 * - a number does the same when an entry has that uid, else its group is 0;
 * - `user:group` takes that group only.
 *
 * Throws IMAGE_UNUSABLE for a name that is not there and for a number above 2³¹-1.
 */
export function lookupUser(userText: string, passwdText: string, groupText: string): ResolvedUser {
  const [userPart = "", groupPart = "", ...more] = userText.trim().split(":");
  if (more.length > 0) throw bad(userText, "it has more than one colon");
  const user = findUser(userPart || "0", parsePasswd(passwdText), userText);
  const groups = parseGroup(groupText);
  const gid = groupPart === "" ? user.gid : findGroup(groupPart, groups, userText);
  const listed = groupPart === "" ? groups.filter((group) => group.members.includes(user.name)) : [];
  // The primary group is repeated: without it a program that resets its list with setgroups would lose it, and it
  // closes CVE-2022-2995 (a group-denied file becoming accessible).
  const additionalGids = [...new Set([gid, ...listed.map((group) => group.gid)])];
  return { uid: user.uid, gid, additionalGids, ...(user.home && { home: user.home }) };
}

/** A name wins over a number, as an entry may be called `1000`. */
function findUser(text: string, entries: PasswdEntry[], userText: string): PasswdEntry {
  const named = entries.find((entry) => entry.name === text);
  if (named) return named;
  const uid = number(text);
  if (uid === undefined) throw bad(userText, `the image's /etc/passwd has no user "${text}"`);
  // The empty name is listed by no group.
  return entries.find((entry) => entry.uid === uid) ?? { name: "", uid, gid: 0, home: "" };
}

function findGroup(text: string, entries: GroupEntry[], userText: string): number {
  const gid = entries.find((entry) => entry.name === text)?.gid ?? number(text);
  if (gid === undefined) throw bad(userText, `the image's /etc/group has no group "${text}"`);
  return gid;
}

/** passwd(5): name:password:uid:gid:gecos:home:shell. Lines that are not of this form are skipped. */
function parsePasswd(text: string): PasswdEntry[] {
  return text.split("\n").flatMap((line) => {
    const [name, , uidText = "", gidText = "", , home = ""] = line.trim().split(":");
    const [uid, gid] = [number(uidText), number(gidText)];
    return name && uid !== undefined && gid !== undefined ? [{ name, uid, gid, home }] : [];
  });
}

/** group(5): name:password:gid:member,member. */
function parseGroup(text: string): GroupEntry[] {
  return text.split("\n").flatMap((line) => {
    const [name, , gidText = "", members = ""] = line.trim().split(":");
    const gid = number(gidText);
    return name && gid !== undefined ? [{ name, gid, members: members.split(",").filter(Boolean) }] : [];
  });
}

function number(text: string): number | undefined {
  return /^\d{1,10}$/.test(text) && Number(text) <= maxId ? Number(text) : undefined;
}

function bad(userText: string, why: string): AppError {
  return new AppError("IMAGE_UNUSABLE", [`its USER "${userText}" cannot be resolved: ${why}`]);
}
