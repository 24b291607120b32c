import { posix } from "node:path";
import { AppError } from "../base/errors.ts";
import type { WatchdogChoice } from "../functions/backend.ts";

/** Where the directory of scripts/build-watchdog.ts is in a container; its program knows its loader by this path. */
export const watchdogPath = "/opt/napd/watchdog";

/** What is known about a container's program before it starts. */
export interface WatchdogQuestion {
  readonly choice: WatchdogChoice;
  /** The function's own environment. */
  readonly env: Readonly<Record<string, string>>;
  readonly image: {
    readonly entrypoint?: readonly string[];
    readonly cmd?: readonly string[];
    /** `KEY=VALUE` each. */
    readonly env?: readonly string[];
  };
}

/**
 * The environment that napd's watchdog needs in this container, or undefined when the image's own program is to run.
 * With "auto" the watchdog comes in when the function says what to run per request (`fprocess`) and nothing in the
 * image would read it. Pure. Throws IMAGE_UNUSABLE when it is to come in and there is nothing for it to run.
 */
export function injectedEnvironment(question: WatchdogQuestion): Record<string, string> | undefined {
  const { choice, env, image } = question;
  const program = [...(image.entrypoint ?? []), ...(image.cmd ?? [])];
  if (choice === "image") return undefined;
  if (choice === "auto" && (!saysWhatToRun(Object.keys(env)) || program.some(namesWatchdog))) return undefined;
  const inherited = [...(image.env ?? []), ...Object.entries(env).map(([name, value]) => `${name}=${value}`)];
  const mode = inherited.findLast((entry) => entry.startsWith("mode="))?.slice("mode=".length);
  return {
    // An image need not have a /tmp that its user may write to; the lock file is for health checks by a program in the
    // container, and napd asks over the network.
    suppress_lock: "true",
    ...(!saysWhatToRun(inherited.map((entry) => entry.split("=", 1)[0]!)) &&
      mode !== "static" && { fprocess: commandLine(program) }),
  };
}

function saysWhatToRun(names: readonly string[]): boolean {
  return names.includes("fprocess") || names.includes("function_process");
}

/** `fwatchdog`, `/usr/bin/of-watchdog`, and the same within `sh -c "exec fwatchdog"`. */
function namesWatchdog(argument: string): boolean {
  return argument.split(/[\s;&|]+/).some((word) => ["fwatchdog", "of-watchdog"].includes(posix.basename(word)));
}

/** The watchdog splits at every blank and knows no quotes: what does not survive that is not guessed at. */
function commandLine(program: readonly string[]): string {
  const remedy = "say with envProcess what the watchdog is to run";
  if (program.length === 0) throw new AppError("IMAGE_UNUSABLE", [`it has neither an ENTRYPOINT nor a CMD; ${remedy}`]);
  if (program.some((word) => word === "" || word.includes(" ")))
    throw new AppError("IMAGE_UNUSABLE", [`its ENTRYPOINT and CMD hold an empty word or a blank; ${remedy}`]);
  return program.join(" ");
}
