/**
 * The clean form of a request's target when its path holds empty, `.` or `..` segments, spelled out or in per cent:
 * where such a request is sent on to (contracts/api.md §1.1). Null for a path that is clean.
 */
export function cleanTarget(target: string): string | null {
  const at = target.indexOf("?");
  const path = (at < 0 ? target : target.slice(0, at)).replace(/%2e/gi, ".");
  if (!/\/\/|\/\.{1,2}(?:\/|$)/.test(path)) return null;
  const kept: string[] = [];
  for (const segment of path.split("/")) {
    if (segment === "..") kept.pop();
    else if (segment !== "" && segment !== ".") kept.push(segment);
  }
  const clean = `/${kept.join("/")}${path.endsWith("/") && kept.length > 0 ? "/" : ""}`;
  // browsers take a back slash for a slash: "/\host" would lead to another host
  return clean.replaceAll("\\", "%5C") + (at < 0 ? "" : target.slice(at));
}
