import { access } from "node:fs/promises";
import { join } from "node:path";
import type { Context } from "./context.ts";
import type { StackFlags } from "./flags.ts";

/** The stack file that is meant: the flag's, else `stack.yaml` or `stack.yml` of the working directory. */
export async function findStackFile({ cwd }: Context, yaml: string | undefined): Promise<string | undefined> {
  if (yaml) return yaml;
  for (const name of ["stack.yaml", "stack.yml"])
    if (
      await access(join(cwd, name)).then(
        () => true,
        () => false,
      )
    )
      return name;
  return undefined;
}

/** The gateway that the stack file names, for commands that need nothing else of it: without one they load no parser. */
export async function stackGateway(context: Context, flags: Partial<StackFlags>): Promise<string | undefined> {
  const file = await findStackFile(context, flags.yaml);
  if (file === undefined) return undefined;
  const { readStack } = await import("./stack.ts");
  return (await readStack(context, file, flags.envsubst ?? true)).gateway;
}
