import { chmod, mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import { dirname, join, resolve } from "node:path";
import type { Context } from "./context.ts";
import { Failure } from "./failure.ts";

/** A login, as OpenFaaS' own client keeps it. */
export interface Login {
  gateway: string;
  /** `basic`: the token is base64 of `user:password`; `oauth2`: it is a bearer token. */
  auth: string;
  token: string;
  options?: unknown;
}

export const defaultGateway = "http://127.0.0.1:8080";

/** In lower case, with a scheme, without slashes at its end: logins are found by it (contracts/cli.md §1.7). */
export function normalGateway(url: string): string {
  const lower = url.trim().toLowerCase().replace(/\/+$/, "");
  const whole = /^http|:\/\//.test(lower) ? lower : `http://${lower}`;
  const parsed = URL.parse(whole);
  if (!parsed || !/^https?:$/.test(parsed.protocol))
    throw new Failure(`gateway ${url} is no URL; write http://HOST:PORT or https://HOST`, 2);
  if (parsed.username || parsed.password)
    throw new Failure(`the gateway's URL has a user or password in it; take them out and run nap login`, 2);
  if (/[?#]/.test(whole)) throw new Failure(`gateway ${url} has a query or fragment; write it without`, 2);
  return whole;
}

const inCi = ({ env }: Context): boolean => env.CI === "true" || env.CI === "1";

export function configFile(context: Context): string {
  const { env, cwd } = context;
  const home = env.HOME ?? homedir();
  const dir = env.OPENFAAS_CONFIG
    ? resolve(cwd, env.OPENFAAS_CONFIG.replace(/^~(?=\/|$)/, home))
    : inCi(context)
      ? join(cwd, ".openfaas")
      : join(home, ".openfaas");
  return join(dir, "config.yml");
}

interface ConfigFile {
  auths: Login[];
  [other: string]: unknown;
}

async function readConfig(context: Context): Promise<ConfigFile> {
  const file = configFile(context);
  const text = await readFile(file, "utf8").catch((e: NodeJS.ErrnoException) => {
    if (e.code === "ENOENT") return "";
    throw new Failure(`${file} cannot be read: ${e.message}`);
  });
  const plain = parsePlain(text);
  if (plain) return { auths: plain };
  const { parse } = await import("yaml");
  try {
    const value = (parse(text, { schema: "failsafe" }) ?? {}) as Partial<ConfigFile>;
    return { ...value, auths: Array.isArray(value.auths) ? value.auths : [] };
  } catch (e) {
    throw new Failure(`${file} is no YAML: ${(e as Error).message}; repair it, or remove it and log in again`);
  }
}

/**
 * The file as clients write it, without the time that loading a YAML parser takes; undefined when anything else is in
 * it.
 */
function parsePlain(text: string): Login[] | undefined {
  const logins: Partial<Login>[] = [];
  for (const line of text.split("\n")) {
    if (/^\s*$|^auths:\s*(\[\])?\s*$/.test(line)) continue;
    const [, dash, key, value] = /^ *(- +)?(gateway|auth|token): ([\w.:/+=-]+)$/.exec(line) ?? [];
    if (key === undefined) return undefined;
    if (dash) logins.push({});
    const login = logins.at(-1);
    if (!login || key in login) return undefined;
    login[key as "gateway"] = value!;
  }
  return logins.every((l) => l.gateway && l.auth && l.token) ? (logins as Login[]) : undefined;
}

async function writeConfig(context: Context, config: ConfigFile): Promise<void> {
  const file = configFile(context);
  const { stringify } = await import("yaml");
  const mode = inCi(context) && !context.env.OPENFAAS_CONFIG ? 0o744 : 0o700;
  await mkdir(dirname(file), { recursive: true, mode });
  const next = `${file}.${process.pid}`;
  try {
    await writeFile(next, stringify(config, { lineWidth: 0 }), { mode: 0o600 });
    await chmod(next, 0o600);
    await rename(next, file);
  } catch (e) {
    await rm(next, { force: true });
    throw e;
  }
}

/** The login for a gateway. */
export async function findLogin(context: Context, gateway: string): Promise<Login | undefined> {
  const login = (await readConfig(context)).auths.find((l) => l.gateway === gateway);
  if (login?.auth === "basic" && !Buffer.from(login.token ?? "", "base64").includes(":"))
    throw new Failure(`${configFile(context)}: the token for ${gateway} is damaged; run nap login -g ${gateway}`);
  return login;
}

/** Replaces what there is for its gateway. */
export async function saveLogin(context: Context, login: Login): Promise<void> {
  const config = await readConfig(context);
  const at = config.auths.findIndex((l) => l.gateway === login.gateway);
  if (at < 0) config.auths.push(login);
  else config.auths[at] = login;
  await writeConfig(context, config);
}

/** False when there is none. */
export async function removeLogin(context: Context, gateway: string): Promise<boolean> {
  const config = await readConfig(context);
  const rest = config.auths.filter((l) => l.gateway !== gateway);
  if (rest.length === config.auths.length) return false;
  await writeConfig(context, { ...config, auths: rest });
  return true;
}
