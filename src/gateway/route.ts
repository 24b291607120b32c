import type { IncomingMessage } from "node:http";
import { hostName } from "../base/host-prefix.ts";
import { withoutClusterSuffix } from "../base/names.ts";
import type { Routes } from "../functions/routes.ts";
import type { Table } from "../functions/table.ts";

export interface RouteOptions {
  /** The host's address on the bridge: there, functions are also called by Host. */
  readonly bridgeAddress: string;
  readonly defaultNamespace: string;
  readonly table: Table;
  /** Hosts that lead to functions, wherever a request comes in. */
  readonly routes: Routes;
}

/** A call of a function. */
export interface FunctionRoute {
  /** NAME or NAME.NAMESPACE. */
  readonly address: string;
  /** Path and query for the function, as they came. */
  readonly target: string;
}

/** A call that is to be kept and made later. */
export interface AsyncRoute {
  readonly later: FunctionRoute;
}

/**
 * The only place that tells calls from the API. The host decides first: a host that leads to functions has nothing
 * else, neither the API nor `/function/…`; so no path of a function's site is taken from it, and nobody finds the API
 * behind it.
 */
export function destination(
  req: IncomingMessage,
  options: RouteOptions,
): FunctionRoute | AsyncRoute | "api" | "nowhere" {
  const url = req.url ?? "/";
  const host = req.headers.host ?? "";
  const byName = isOnBridge(req, options) ? hostRoute(host, url, options.table, options.defaultNamespace) : null;
  if (byName) return byName;
  const route = options.routes.find(host, url);
  if (route === undefined) return functionRoute(url) ?? asyncRoute(url) ?? "api";
  if (route === null) return "nowhere";
  setForwardedPrefix(req.rawHeaders, route.prefix);
  return { address: route.key, target: targetBehind(route.prefix, url) };
}

function isOnBridge(req: IncomingMessage, { bridgeAddress }: RouteOptions): boolean {
  const { localAddress } = req.socket;
  return localAddress === bridgeAddress || localAddress === `::ffff:${bridgeAddress}`;
}

const callPrefix = "/function/";
const asyncPrefix = "/async-function/";

/**
 * Splits `/function/NAME[.NAMESPACE][/path][?query]`. The name is percent-decoded, what follows stays byte for byte
 * (contracts/api.md §1.4). Null when it is no such path.
 */
export function functionRoute(url: string, prefix = callPrefix): FunctionRoute | null {
  if (!url.startsWith(prefix)) return null;
  let end = prefix.length;
  while (end < url.length && url[end] !== "/" && url[end] !== "?") end++;
  const rest = url.slice(end);
  const address = decode(url.slice(prefix.length, end));
  return { address, target: rest === "" ? "/" : rest[0] === "?" ? `/${rest}` : rest };
}

function asyncRoute(url: string): AsyncRoute | null {
  const later = functionRoute(url, asyncPrefix);
  return later && { later };
}

function decode(text: string): string {
  if (!text.includes("%")) return text;
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/**
 * On the bridge a function is also called by its own name: `http://NAME[.NAMESPACE[.svc[.cluster.local]]]:8080/path`.
 * Null when the host is not a function's name. `gateway` is ours whatever is deployed: who asks it for the API sends
 * the password along.
 */
export function hostRoute(host: string, url: string, table: Table, defaultNamespace: string): FunctionRoute | null {
  const name = withoutClusterSuffix(hostName(host));
  if (name === "gateway" || name === "gateway.openfaas") return null;
  const key = name.includes(".") ? name : `${name}.${defaultNamespace}`;
  return table.has(key) ? { address: key, target: url } : null;
}

/** What a function behind a prefix of a host sees: the path without the prefix. */
function targetBehind(prefix: string, url: string): string {
  if (prefix === "") return url;
  const rest = url.slice(prefix.length);
  return rest.startsWith("/") ? rest : `/${rest}`;
}

/** Tells a function, in the header that web frameworks know, which prefix was taken off; what a caller says does not count. */
function setForwardedPrefix(rawHeaders: string[], prefix: string): void {
  for (let i = rawHeaders.length - 2; i >= 0; i -= 2)
    if (rawHeaders[i]!.toLowerCase() === "x-forwarded-prefix") rawHeaders.splice(i, 2);
  if (prefix !== "") rawHeaders.push("X-Forwarded-Prefix", prefix);
}
