import type { AddResource, ApiOptions } from "./api.ts";

/** OCI's names of architectures: contracts/api.md §2.4. */
const arch: Partial<Record<NodeJS.Architecture, string>> = { x64: "amd64", arm64: "arm64" };

export function infoRoutes(add: AddResource, { version, namespaces }: ApiOptions): void {
  const release = { sha: "unknown", release: version };
  const info = {
    provider: { provider: "napd", version: release, orchestration: "containerd" },
    version: { commit_message: "", ...release },
    arch: arch[process.arch] ?? process.arch,
  };
  add("/system/info", { GET: async () => info });
  add("/system/namespaces", { GET: async () => namespaces() });
}
