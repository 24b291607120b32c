import { parseArgs } from "node:util";
import { parseDuration } from "../base/durations.ts";
import { AppError, messageOf } from "../base/errors.ts";
import type { Config } from "../config.ts";
import { installationRoot } from "../installation.ts";
import { install, nextSteps, rollBack } from "./install.ts";
import type { Machine } from "./machine.ts";
import { placesIn } from "./places.ts";
import { releaseIn } from "./releases.ts";
import { uninstall } from "./uninstall.ts";

const usage = `  napd install [OPTIONS]     put this release in its place and run it; over an older one, that is the upgrade
  napd install --rollback    go to the release before
  napd uninstall [--purge]   take everything away; --purge: data, settings and logs too

  --packages FOLDER   packages (.deb) and images (.tar) as files, for machines without a network
  --no-start          put everything in its place, start nothing
  --wait DURATION     how long napd may take to answer before what ran before runs again; default 90s
  --root FOLDER       below which /opt, /etc and /usr/local are, with settings of its own; for tests
`;

const options = {
  install: {
    packages: { type: "string" },
    "no-start": { type: "boolean", default: false },
    rollback: { type: "boolean", default: false },
    wait: { type: "string", default: "90s" },
    root: { type: "string", default: "" },
    help: { type: "boolean", short: "h", default: false },
  },
  uninstall: {
    purge: { type: "boolean", default: false },
    root: { type: "string", default: "" },
    help: { type: "boolean", short: "h", default: false },
  },
} as const;

/** What the commands need from the program around them. */
export interface InstallerNeeds {
  readonly environment: NodeJS.ProcessEnv;
  readonly readConfig: (file: string, isRequired: boolean) => Config;
  /** See `UninstallOptions`. */
  readonly removeFunctions: (config: Config, purge: boolean) => Promise<number>;
}

/** `napd install …` and `napd uninstall …`, arguments without the program. The exit code. Fails with INSTALL. */
export async function runInstaller(args: readonly string[], needs: InstallerNeeds): Promise<number> {
  const [command, ...rest] = args;
  try {
    return command === "install" ? await runInstall(rest, needs) : await runUninstall(rest, needs);
  } catch (e) {
    if (!(e instanceof TypeError && "code" in e && String(e.code).startsWith("ERR_PARSE_ARGS"))) throw e;
    console.error(`napd: ${messageOf(e)}\n\n${usage}`);
    return 2;
  }
}

async function runInstall(args: string[], needs: InstallerNeeds): Promise<number> {
  const { values } = parseArgs({ args, options: options.install });
  if (values.help) return help();
  const waitMs = parseDuration(values.wait);
  if (waitMs === undefined || waitMs <= 0)
    throw new AppError("INSTALL", [`--wait ${values.wait} is no duration`, "such as 90s or 2m"]);
  const machine = machineOf(values.root, needs);
  if (values.rollback) {
    await rollBack(machine, waitMs);
    return 0;
  }
  const start = !values["no-start"];
  const release = await releaseIn(installationRoot);
  await install(machine, { release, packages: values.packages, start, waitMs });
  console.log(start ? await nextSteps(machine) : "\nnapd install starts it");
  return 0;
}

async function runUninstall(args: string[], needs: InstallerNeeds): Promise<number> {
  const { values } = parseArgs({ args, options: options.uninstall });
  if (values.help) return help();
  const machine = machineOf(values.root, needs);
  const { purge } = values;
  await uninstall(machine, { purge, removeFunctions: () => needs.removeFunctions(machine.config, purge) });
  return 0;
}

function help(): number {
  process.stdout.write(usage);
  return 0;
}

/** Fails with INSTALL for anybody but root. */
function machineOf(root: string, { environment, readConfig }: InstallerNeeds): Machine {
  if (process.getuid?.() !== 0) throw new AppError("INSTALL", ["this needs root", "run it with sudo"]);
  const places = placesIn(root);
  // below a folder the defaults would be those of the machine around it
  const config = readConfig(`${places.settings}/napd.ini`, root !== "");
  return { places, config, environment, say: (line) => console.log(`napd: ${line}`) };
}
