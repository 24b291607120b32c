import { randomInt } from "node:crypto";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { AppError, messageOf, systemCode } from "../base/errors.ts";

/** The one administrator. */
export interface Credentials {
  user: string;
  password: string;
}

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/**
 * Reads `basic-auth-user` and `basic-auth-password` from `dir`, generating what is absent with mode 0600 and never
 * overwriting. Surrounding white space does not count (contracts/api.md §1.3, §5.1).
 */
export async function openCredentials(dir: string): Promise<Credentials> {
  await mkdir(dir, { recursive: true, mode: 0o700 });
  const generated = Array.from({ length: 63 }, () => alphabet[randomInt(alphabet.length)]).join("");
  return {
    user: await readOrWrite(join(dir, "basic-auth-user"), "admin"),
    password: await readOrWrite(join(dir, "basic-auth-password"), generated),
  };
}

async function readOrWrite(file: string, fallback: string): Promise<string> {
  try {
    await writeFile(file, fallback, { mode: 0o600, flag: "wx", flush: true });
  } catch (e) {
    if (systemCode(e) !== "EEXIST")
      throw new AppError("CONFIG", [`cannot write ${file}: ${messageOf(e)}`], { cause: e });
  }
  const text = (await readFile(file, "utf8")).trim();
  if (text === "")
    throw new AppError("CONFIG", [`${file} is empty; write the credential into it, or remove it and one is generated`]);
  return text;
}
