/** A host and a path below it: where from outside a function is reached beside `/function/NAME`. */
export interface HostPrefix {
  /** As `hostName` gives it. */
  readonly host: string;
  /** Empty, or a path that begins with a slash and does not end with one. */
  readonly prefix: string;
}

/** The name in a Host header: lower case, without port and final dot. Not decoded: IDNA names are compared as sent. */
export function hostName(host: string): string {
  const colon = host.lastIndexOf(":");
  let end = colon >= 0 && host.indexOf("]", colon) < 0 ? colon : host.length;
  if (host.charCodeAt(end - 1) === 46) end--;
  return host.slice(0, end).toLowerCase();
}

/** A DNS name of at least two labels whose last one is no number, so that no address is taken for one. */
const name = /^(?=.{1,253}$)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?$/;
/** Characters that a path may have without being coded (RFC 3986 §3.3), but for those that end a key of an ini file; and codes. */
const path = /^(?:\/(?!\.{1,2}(?:\/|$))(?:[A-Za-z0-9._~!$&'()*+:@-]|%[0-9A-Fa-f]{2})+)*$/;

/** Reads `HOST[/PREFIX]`. A text instead of it says what is wrong. */
export function parseHostPrefix(text: string): HostPrefix | string {
  const slash = text.indexOf("/");
  const host = hostName(slash < 0 ? text : text.slice(0, slash));
  const prefix = slash < 0 ? "" : text.slice(slash).replace(/\/$/, "");
  if (!name.test(host)) return `"${host}" must be a DNS name with a dot in it, such as shop.example.com`;
  if (host === "gateway.openfaas" || host.endsWith(".svc.cluster.local"))
    return `"${host}" is a name that functions use among themselves`;
  if (!path.test(prefix)) return `"${prefix}" must be a path such as /shop, without empty parts, . and ..`;
  return { host, prefix };
}
