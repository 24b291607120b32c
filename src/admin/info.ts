import type { AddResource } from "./api.ts";

export interface InfoOptions {
  /** Of this napd; no field is empty. */
  release: { readonly version: string; readonly sha: string; readonly commitMessage: string };
  providerName: string;
}

/** OCI's names of architectures: contracts/api.md §2.4. */
const arch: Partial<Record<NodeJS.Architecture, string>> = { x64: "amd64", arm64: "arm64" };

export function infoRoutes(add: AddResource, { release, providerName }: InfoOptions): void {
  const version = { commit_message: release.commitMessage, sha: release.sha, release: release.version };
  const info = {
    provider: { provider: providerName, version, orchestration: "containerd" },
    version,
    arch: arch[process.arch] ?? process.arch,
  };
  add("/system/info", { GET: async () => info });
}
