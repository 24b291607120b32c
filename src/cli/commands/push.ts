import { forEach, runCall, speaker } from "../build.ts";
import { pushCall } from "../build-arguments.ts";
import { builderFlag, functionsToBuild, parallelFlag, reported } from "../build-flags.ts";
import { findBuilder } from "../builder.ts";
import { Failure } from "../failure.ts";
import { type GatewayFlags, gatewayFlags, namespaceFlag, type StackFlags, stackFlags } from "../flags.ts";
import { openGateway } from "../gateway.ts";
import { type TagMode, tagFlag } from "../image-tag.ts";
import type { Define } from "../main.ts";
import { sendImage } from "../send-image.ts";

interface Flags extends StackFlags, GatewayFlags {
  builder?: string;
  parallel?: number;
  tag: TagMode;
  toGateway?: boolean;
  namespace?: string;
  quiet?: boolean;
  verbose?: boolean;
  json?: boolean;
}

export const define: Define = (command, context) => {
  parallelFlag(builderFlag(namespaceFlag(stackFlags(gatewayFlags(command)))))
    .description("bring images that were built to their registry, or to a napd")
    .addOption(tagFlag())
    .option("--to-gateway", "to the napd that will run them, which needs no registry")
    .option("-q, --quiet", "nothing but failures")
    .option("-v, --verbose", "all that the builder says")
    .option("-j, --json", "results as JSON")
    .action(async (flags: Flags) => {
      const { functions, gateway: ofStack } = await functionsToBuild(context, flags);
      if (flags.toGateway) {
        const gateway = await openGateway(context, flags, ofStack);
        const builder = await findBuilder(context, flags.builder);
        const sending = forEach(context, functions, flags, "sent", async (f, tell) => {
          tell("sending");
          await sendImage(context, builder, f.image, gateway, flags.namespace || f.namespace);
          return { status: "sent", text: `${f.image} to ${gateway.url}` };
        });
        return reported(context, flags, sending);
      }
      const local = functions.find((f) => !f.image.includes("/"));
      if (local)
        throw new Failure(
          `image ${local.image} of ${local.name} names no registry and no user there; nap new --prefix puts them before it, and nap push --to-gateway needs none`,
        );
      const builder = await findBuilder(context, flags.builder);
      const pushing = forEach(context, functions, flags, "pushed", async (f, tell) => {
        tell("pushing");
        await runCall(context, builder, pushCall(builder, f.image), context.cwd, speaker(context, f, flags, tell));
        return { status: "pushed", text: f.image };
      });
      await reported(context, flags, pushing);
    });
};
