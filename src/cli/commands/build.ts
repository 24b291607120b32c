import { assembleAll, buildAll } from "../build.ts";
import {
  type BuildFlags,
  buildFlags,
  buildOptionsOf,
  functionsToBuild,
  type OneFunction,
  reported,
} from "../build-flags.ts";
import { findBuilder } from "../builder.ts";
import { type StackFlags, stackFlags } from "../flags.ts";
import type { Define } from "../main.ts";
import { ensureTemplates } from "../template-pull.ts";

interface Flags extends StackFlags, BuildFlags, OneFunction {
  shrinkwrap?: boolean;
  json?: boolean;
}

export const define: Define = (command, context) => {
  buildFlags(stackFlags(command))
    .description("make images of the stack file's functions, with buildah, docker, nerdctl or podman")
    .option("--name <name>", "function, without a stack file")
    .option("--image <image>", "its image")
    .option("--handler <dir>", "folder with its code")
    .option("--lang <template>", "its template")
    .option("--shrinkwrap", "make the contexts in ./build and stop there")
    .option("-j, --json", "results as JSON")
    .action(async (flags: Flags) => {
      const wanted = await functionsToBuild(context, flags);
      const options = buildOptionsOf(flags, wanted.copy);
      await ensureTemplates(context, wanted.functions, flags.disableStackPull ? [] : wanted.templates);
      if (flags.shrinkwrap) return reported(context, flags, assembleAll(context, wanted.functions, options));
      const builder = await findBuilder(context, flags.builder);
      await reported(context, flags, buildAll(context, builder, wanted.functions, options));
    });
};
