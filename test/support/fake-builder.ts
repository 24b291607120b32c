import { chmod, mkdir, readFile, symlink, writeFile } from "node:fs/promises";
import { delimiter, join } from "node:path";

export interface RecordedCall {
  /** The program's name first. */
  readonly argv: readonly string[];
  readonly cwd: string;
  readonly DOCKER_BUILDKIT: string | null;
  readonly DOCKER_CLI_EXPERIMENTAL: string | null;
}

export interface FakeBuilder {
  /** Variables that let programs find it, and no other one of those kinds. */
  readonly env: Readonly<Record<string, string>>;
  calls(): Promise<RecordedCall[]>;
}

const script = `#!/bin/sh
{
  printf 'call\\n%s\\n%s\\n%s\\n' "$PWD" "\${DOCKER_BUILDKIT-null}" "\${DOCKER_CLI_EXPERIMENTAL-null}"
  printf '%s\\n' "\${0##*/}" "$@"
} >"$FAKE_LOG.$$"
cat "$FAKE_LOG.$$" >>"$FAKE_LOG"
rm "$FAKE_LOG.$$"
for name in $FAKE_BROKEN; do
  [ "$name" = "\${0##*/}" ] && { echo "cannot reach its engine" >&2; exit 1; }
done
[ "$1" = "$DOCKER_FAIL" ] && { echo "step 3 went wrong" >&2; exit 3; }
exit 0
`;

/** Programs of these names, which do nothing but keep what they are asked; `FAKE_BROKEN` and `DOCKER_FAIL` let them fail. */
export async function fakeBuilder(dir: string, names: readonly string[] = ["docker"]): Promise<FakeBuilder> {
  const bin = join(dir, "bin");
  const log = join(dir, "calls");
  await mkdir(bin, { recursive: true });
  await writeFile(log, "");
  for (const name of names) {
    await writeFile(join(bin, name), script);
    await chmod(join(bin, name), 0o755);
  }
  return {
    env: { PATH: [bin, await systemTools(dir)].join(delimiter), FAKE_LOG: log },
    async calls() {
      const all = (await readFile(log, "utf8")).split(/^call\n/m).slice(1);
      return all.map((text) => {
        const [cwd, kit, experimental, ...argv] = text.trimEnd().split("\n") as [string, string, string, ...string[]];
        const orNull = (value: string) => (value === "null" ? null : value);
        return { argv, cwd, DOCKER_BUILDKIT: orNull(kit), DOCKER_CLI_EXPERIMENTAL: orNull(experimental) };
      });
    },
  };
}

/** What scripts and git need, without the builders of this machine. */
async function systemTools(dir: string): Promise<string> {
  const tools = join(dir, "tools");
  await mkdir(tools, { recursive: true });
  for (const name of ["sh", "cat", "rm", "git"]) await symlink(`/usr/bin/${name}`, join(tools, name)).catch(() => {});
  return tools;
}
