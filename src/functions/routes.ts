import { AppError } from "../base/errors.ts";
import { type HostPrefix, hostName, parseHostPrefix } from "../base/host-prefix.ts";
import { type FunctionId, keyOf } from "../base/names.ts";
import type { FunctionSpec } from "./spec.ts";

const annotation = "napd.route";
/** Hosts and prefixes of one function. */
const maxRoutes = 100;

/** The hosts and prefixes that a function asks for. Fails with BAD_FUNCTION. */
export function routesOf(spec: FunctionSpec): readonly HostPrefix[] {
  const text = spec.annotations?.[annotation];
  if (text === undefined) return [];
  const words = text.split(/[\s,]+/).filter((word) => word !== "");
  if (words.length > maxRoutes)
    throw new AppError("BAD_FUNCTION", ["annotations", `${annotation} has more than ${maxRoutes} routes`]);
  return words.map((word) => {
    const route = parseHostPrefix(word);
    if (typeof route === "string") throw new AppError("BAD_FUNCTION", ["annotations", `${annotation}: ${route}`]);
    return route;
  });
}

/** A prefix of a host, and who answers there. */
export interface Route extends HostPrefix {
  /** NAME.NAMESPACE. */
  readonly key: string;
}

/** What of a stored function matters here. */
interface Claimant extends FunctionId {
  readonly version: { readonly spec: FunctionSpec };
  readonly previous: { readonly version: { readonly spec: FunctionSpec } } | null;
}

/**
 * Hosts, and paths below them, that lead to functions: those of the configuration, and those that functions ask for.
 * Each belongs to one function: who has it keeps it until a version without it serves, or it is deleted.
 */
export class Routes {
  readonly #fixed: readonly Route[];
  readonly #mayAsk: boolean;
  /** By host, longest prefix first. */
  readonly #hosts = new Map<string, readonly Route[]>();

  /** `mayAsk`: whether what functions ask for counts. */
  constructor(fixed: readonly Route[] = [], mayAsk = true) {
    this.#fixed = fixed;
    this.#mayAsk = mayAsk;
    for (const route of fixed) this.#add(route);
  }

  /**
   * Checks that a function can have what it asks for, `others` being all that are stored. Fails with ROUTE_TAKEN or
   * BAD_FUNCTION.
   */
  check(spec: FunctionSpec, others: () => readonly Claimant[]): void {
    const wanted = routesOf(spec);
    if (wanted.length === 0) return;
    if (!this.#mayAsk)
      throw new AppError("BAD_FUNCTION", [
        "annotations",
        `${annotation} is refused by setting gateway.function_routes; a route can be given in section [routes] of the configuration`,
      ]);
    const owners = new Map(this.#fixed.map((r) => [r.host + r.prefix, "the configuration (section [routes])"]));
    for (const other of others()) {
      if (keyOf(other) === keyOf(spec)) continue;
      // also of the version that it goes back to when its update fails
      const versions = [other.version, ...(other.previous ? [other.previous.version] : [])];
      for (const r of versions.flatMap((v) => routesOf(v.spec))) owners.set(r.host + r.prefix, keyOf(other));
    }
    for (const { host, prefix } of wanted) {
      const owner = owners.get(host + prefix);
      if (owner !== undefined) throw new AppError("ROUTE_TAKEN", [host + prefix, owner]);
    }
  }

  /** From now on the function has these routes and no others; those that somebody has already stay theirs. */
  assign(key: string, wanted: readonly HostPrefix[]): void {
    for (const [host, routes] of this.#hosts) {
      const left = routes.filter((r) => r.key !== key || this.#fixed.includes(r));
      if (left.length === 0) this.#hosts.delete(host);
      else this.#hosts.set(host, left);
    }
    if (this.#mayAsk) for (const { host, prefix } of wanted) this.#add({ host, prefix, key });
  }

  #add(route: Route): void {
    const routes = this.#hosts.get(route.host) ?? [];
    if (routes.some((r) => r.prefix === route.prefix)) return;
    this.#hosts.set(
      route.host,
      [...routes, route].sort((a, b) => b.prefix.length - a.prefix.length),
    );
  }

  /**
   * Who answers `url` (path and query) on a host: null when the host is routed, but not this path; undefined when it
   * is not routed at all. Prefixes end where a part of the path does, and are compared byte for byte.
   */
  find(host: string, url: string): Route | null | undefined {
    if (this.#hosts.size === 0) return undefined;
    const routes = this.#hosts.get(hostName(host));
    if (routes === undefined) return undefined;
    for (const route of routes) {
      if (!url.startsWith(route.prefix)) continue;
      const next = url.charCodeAt(route.prefix.length);
      if (Number.isNaN(next) || next === 47 || next === 63) return route; // the end, a slash, or a question mark
    }
    return null;
  }
}
