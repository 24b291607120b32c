import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { forEach, planOf, runCall, sharedWatchdog, speaker } from "../build.ts";
import { publishCalls } from "../build-arguments.ts";
import { assembleContext } from "../build-context.ts";
import { type BuildFlags, buildFlags, buildOptionsOf, functionsToBuild, reported } from "../build-flags.ts";
import { type Builder, findBuilder } from "../builder.ts";
import { Failure, wrongUsage } from "../failure.ts";
import { repeated, type StackFlags, stackFlags } from "../flags.ts";
import type { Define } from "../main.ts";
import { runProgram } from "../program.ts";
import { ensureTemplates } from "../template-pull.ts";
import { watchdogArgument } from "../watchdog-image.ts";

interface Flags extends StackFlags, BuildFlags {
  platforms: string;
  extraTag: string[];
  resetQemu?: boolean;
  json?: boolean;
}

export const define: Define = (command, context) => {
  buildFlags(stackFlags(command))
    .description("make images for one or several platforms and push them, in one go")
    .option("--platforms <list>", "with commas, such as linux/amd64,linux/arm64", "linux/amd64")
    .option("--reset-qemu", "docker only: register what runs programs of other platforms")
    .option("-j, --json", "results as JSON");
  repeated(command, "--extra-tag <tag>", "tag that the image gets as well");
  command.action(async (flags: Flags) => {
    const platforms = flags.platforms.split(",").map((p) => p.trim());
    const odd = platforms.find((p) => !/^[a-z0-9]+\/[a-z0-9]+(\/[a-z0-9]+)?$/.test(p));
    if (odd !== undefined) throw wrongUsage(`platform "${odd}" is no OS/ARCHITECTURE, such as linux/arm64`);
    const wanted = await functionsToBuild(context, flags);
    const options = buildOptionsOf(flags, wanted.copy);
    await ensureTemplates(context, wanted.functions, flags.disableStackPull ? [] : wanted.templates);
    const builder = await findBuilder(context, flags.builder);
    await prepare(builder, flags);
    const ofHere = builder.kind !== "docker" && platforms.join() === hostPlatform;
    const watchdog = ofHere ? sharedWatchdog(context, builder, flags) : async () => context.env.NAP_WATCHDOG_IMAGE;
    const publishing = forEach(context, wanted.functions, options, "published", async (f, tell) => {
      tell("assembling");
      const made = await assembleContext(context, f, options.copy);
      const plan = { ...(await planOf(context, f, made, options, watchdog)), platforms, extraTags: flags.extraTag };
      const dockerfile = await readFile(join(made.dir, "Dockerfile"), "utf8");
      if (watchdogArgument.test(dockerfile) && plan.buildArgs.WATCHDOG_IMAGE === undefined)
        throw new Failure(
          "its Dockerfile takes the watchdog from an image, which must be in a registry for these platforms: name it by NAP_WATCHDOG_IMAGE or --build-arg WATCHDOG_IMAGE=IMAGE (docs/reference.md, Builds of the watchdog)",
        );
      for (const call of publishCalls(builder, plan, context.env))
        await runCall(context, builder, call, made.dir, speaker(context, f, flags, tell));
      return { status: "published", text: `${f.image} for ${platforms.join(", ")}` };
    });
    await reported(context, flags, publishing);
  });

  async function prepare(builder: Builder, flags: Flags): Promise<void> {
    if (builder.kind !== "docker") {
      if (flags.resetQemu)
        throw wrongUsage("--reset-qemu is for docker; for others, install qemu-user-static and binfmt-support");
      return;
    }
    if (flags.resetQemu) {
      const image = "multiarch/qemu-user-static";
      await runCall(
        context,
        builder,
        { args: ["run", "--rm", "--privileged", image, "--reset", "-p", "yes"] },
        context.cwd,
      );
    }
    const args = ["buildx", "create", "--use", "--name=multiarch", "--node=multiarch"];
    const { code, tail } = await runProgram(context, builder.program, args, {
      env: { DOCKER_CLI_EXPERIMENTAL: "enabled" },
    });
    if (code !== 0) throw new Failure(`docker buildx cannot be set up: ${tail.at(-1) ?? `code ${code}`}`);
  }
};

const hostPlatform = `linux/${process.arch === "x64" ? "amd64" : process.arch}`;
