import { mkdtemp, realpath, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { unmountUnder } from "../../scripts/private-containerd.ts";

export interface TmpDir extends AsyncDisposable {
  readonly path: string;
}

/**
 * An empty directory, deleted on disposal together with what was mounted in it. Its path is short enough for a
 * socket; TMPDIR puts it elsewhere, for machines whose /tmp cannot hold overlay mounts.
 */
export async function tmpDir(): Promise<TmpDir> {
  const path = await realpath(await mkdtemp(`${tmpdir()}/napd-`));
  return {
    path,
    async [Symbol.asyncDispose]() {
      await unmountUnder(path);
      await rm(path, { recursive: true, force: true });
    },
  };
}
