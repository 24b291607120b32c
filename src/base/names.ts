/** Function and namespace names are DNS labels: contracts/api.md §2.2, at most 63 characters. */
const label = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/;

export const nameRule =
  "at most 63 lower-case letters, digits and hyphens, beginning and ending with a letter or digit";

export function isName(text: string): boolean {
  return label.test(text);
}

export const namespaceRule = `${nameRule}, and no two hyphens in a row`;

/** Namespaces are containerd's too, whose identifiers join letters and digits by single hyphens: contracts/containerd.md §1.1. */
export function isNamespace(text: string): boolean {
  return isName(text) && !text.includes("--");
}

/** Secret names are DNS subdomains (contracts/api.md §2.5; underscores as faasd takes them): never a path. */
export function isSecretName(text: string): boolean {
  return text.length <= 253 && /^[a-zA-Z0-9]([-_.a-zA-Z0-9]*[a-zA-Z0-9])?$/.test(text) && !text.includes("..");
}

/** A function's identity: its name and namespace. */
export interface FunctionId {
  readonly name: string;
  readonly namespace: string;
}

/** `NAME.NAMESPACE`, the key of every table and the label value of every metric. */
export function keyOf(id: FunctionId): string {
  return `${id.name}.${id.namespace}`;
}

/** Splits what stands behind `/function/` on the last dot; without one the default namespace. §1.4. */
export function splitAddress(address: string, defaultNamespace: string): FunctionId {
  const dot = address.lastIndexOf(".");
  return dot < 0
    ? { name: address, namespace: defaultNamespace }
    : { name: address.slice(0, dot), namespace: address.slice(dot + 1) };
}

/** A host's name without what Kubernetes puts behind NAME.NAMESPACE: `.svc` or `.svc.cluster.local`. */
export function withoutClusterSuffix(host: string): string {
  return host.replace(/(?<=[^.]\.[^.]+)\.svc(?:\.cluster\.local)?$/, "");
}
