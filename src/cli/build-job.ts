import { type BuildAllOptions, buildOne, runCall, sharedWatchdog, speaker } from "./build.ts";
import { pushCall } from "./build-arguments.ts";
import { type Builder, findBuilder } from "./builder.ts";
import type { Context } from "./context.ts";
import { deployOne } from "./deploy.ts";
import { deploymentOf, type FunctionFlags } from "./deployment.ts";
import { Failure } from "./failure.ts";
import type { Gateway } from "./gateway.ts";
import type { JobDone } from "./jobs.ts";
import { sendImage } from "./send-image.ts";
import type { StackFunction } from "./stack.ts";
import { Steps, type UpOptions } from "./up.ts";

/** Builds functions that need it, and brings their images to where the gateway finds them. */
export interface BuildLine {
  /** From the handler to a function that can be called. `why`: what only a builder can do. */
  run(
    f: StackFunction,
    why: string,
    flags: FunctionFlags,
    gateway: Gateway,
    tell: (text: string) => void,
  ): Promise<JobDone>;
}

/** @param builderName - false: there shall be none. */
export function openBuildLine(
  context: Context,
  builderName: string | false | undefined,
  build: BuildAllOptions,
  options: UpOptions,
): BuildLine {
  let found: Promise<Builder> | undefined;
  let watchdog: (() => Promise<string | undefined>) | undefined;
  const builderFor = async (why: string) => {
    if (builderName === false) throw new Failure(`it cannot be made without a builder: ${why}`);
    found ??= findBuilder(context, builderName);
    return found.catch((e: Failure) => {
      throw new Failure(`${why}; and ${e.message}`);
    });
  };
  return {
    async run(f, why, flags, gateway, tell) {
      const steps = new Steps();
      const builder = await builderFor(why);
      watchdog ??= sharedWatchdog(context, builder, { quiet: true });
      await buildOne(context, builder, f, build, watchdog, tell);
      steps.end(`built by ${builder.kind}`);
      // a name without a slash belongs to no registry that one could push to
      const pushed = options.push && f.image.includes("/");
      if (pushed) {
        tell("pushing");
        await runCall(context, builder, pushCall(builder, f.image), context.cwd, speaker(context, f, build, tell));
        steps.end("pushed");
      } else if (await takesImages(gateway)) {
        tell("sending");
        await sendImage(context, builder, f.image, gateway, flags.namespace || f.namespace);
        steps.end("sent");
      } else if (options.push)
        throw new Failure(`image ${f.image} names no registry to push to; nap new --prefix puts one before it`);
      if (!options.deploy) return { state: "made", how: f.image, image: f.image, steps: steps.all };
      // the same name means something new: where that is now, whatever the gateway does otherwise
      const policy = pushed ? "Always" : "IfNotPresent";
      const annotations = { "napd.pull-policy": policy, ...f.annotations };
      const wanted = await deploymentOf(context, { ...f, annotations }, flags, true);
      const done = await deployOne(context, gateway, wanted, options, tell);
      steps.end(done.how ?? "");
      return { ...done, image: f.image, steps: steps.all };
    },
  };
}

/** Whether images can be sent to it: napd takes them. */
async function takesImages(gateway: Gateway): Promise<boolean> {
  return (await gateway.request("GET", "/system/images")).status === 200;
}
