/**
 * Fields that speak about one connection only and are not passed on (RFC 9110 §7.6.1), with those that Go's
 * ReverseProxy also removes. Proxy-Connection is no standard and no use, but old clients send it.
 */
const hopByHop = new Set([
  "connection",
  "keep-alive",
  "proxy-authenticate",
  "proxy-authorization",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
]);

const lengths = new Set([...hopByHop].map((name) => name.length));

/** Whether `name` must stay on this hop. `named`: what the message's own `Connection` says, in lower case. */
export function isHopByHop(name: string, named: readonly string[]): boolean {
  if (named.length === 0 && !lengths.has(name.length)) return false; // most fields leave here
  const lower = name.toLowerCase();
  return hopByHop.has(lower) || named.includes(lower);
}
