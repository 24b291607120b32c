import type { Table } from "../functions/table.ts";

/** Where a request goes: to a function, or (null) to the API. */
export interface FunctionRoute {
  /** NAME or NAME.NAMESPACE. */
  readonly address: string;
  /** Path and query for the function, as they came. */
  readonly target: string;
}

const prefix = "/function/";

/**
 * Splits `/function/NAME[.NAMESPACE][/path][?query]`. The name is percent-decoded, what follows stays byte for byte
 * (contracts/api.md §1.4). Null when it is no such path.
 */
export function functionRoute(url: string): FunctionRoute | null {
  if (!url.startsWith(prefix)) return null;
  let end = prefix.length;
  while (end < url.length && url[end] !== "/" && url[end] !== "?") end++;
  const rest = url.slice(end);
  const address = decode(url.slice(prefix.length, end));
  return { address, target: rest === "" ? "/" : rest[0] === "?" ? `/${rest}` : rest };
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
 * On the bridge a function is also called by its own name: `http://NAME[.NAMESPACE[.svc.cluster.local]]:8080/path`.
 * Null when the host is not a function's name. `gateway` is ours whatever is deployed: who asks it for the API sends
 * the password along.
 */
export function hostRoute(host: string, url: string, table: Table, defaultNamespace: string): FunctionRoute | null {
  const name = host
    .replace(/:\d+$/, "")
    .toLowerCase()
    .replace(/\.svc\.cluster\.local\.?$/, "");
  if (name === "gateway" || name === "gateway.openfaas") return null;
  const key = name.includes(".") ? name : `${name}.${defaultNamespace}`;
  return table.has(key) ? { address: key, target: url } : null;
}
