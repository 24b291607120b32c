#!/usr/bin/env node
import { parseArgs } from "node:util";
import { AppError, messageOf } from "./base/errors.ts";
import { type Logger, openLog } from "./base/log.ts";
import { type Config, type ConfigSources, loadConfig, printConfig } from "./config.ts";
import { claim, type Daemon, startDaemon } from "./daemon.ts";
import { judge } from "./doctor/checks.ts";
import { gatherFacts } from "./doctor/facts.ts";
import { report } from "./doctor/report.ts";
import { openContainerd } from "./host/containerd/client.ts";
import { installationRoot } from "./installation.ts";
import { planReload } from "./live.ts";
import { loginsFile, openImages } from "./machine.ts";
import { readRelease } from "./release.ts";
import { writeBackup } from "./store/backup.ts";
import { restoreBackup } from "./store/restore.ts";
import { writesToJournal } from "./systemd/journal.ts";
import { type Notifier, openNotifier } from "./systemd/notify.ts";
import { inheritedSockets } from "./systemd/sockets.ts";

const release = await readRelease(installationRoot);
const { version } = release;
const defaultFile = "/etc/napd/napd.ini";

const usage = `napd ${version}: serverless functions on one machine

  napd [OPTIONS]                       run in the foreground until SIGTERM or SIGINT
  napd import [OPTIONS] FILE [IMAGE]   bring the images of an OCI or docker archive in; IMAGE names the only one
  napd backup [OPTIONS] FILE           write what is deployed, secrets and logins to FILE, "-" for standard output;
                                       napd may run
  napd restore [OPTIONS] FILE          take what FILE holds for what is deployed; napd must not run
  napd doctor [OPTIONS] [--json]       look at this machine and say what is amiss, with the remedy; napd may run

  napd install [--help]                put this release in its place, or upgrade to it
  napd uninstall [--help]              take it away

  --config FILE            settings; default ${defaultFile} if it is there
  --set SECTION.KEY=VALUE  one setting; wins over NAPD_SECTION_KEY in the environment, which wins over the file
  --force                  restore: replace what is there already
  --json                   doctor: for programs
  --print-config           print every setting with its meaning and value, and exit
  --version, --help
`;

/** As sysexits.h has it. The service is not started again then: settings do not mend themselves. */
const exitConfig = 78;

process.exitCode = await main(process.argv.slice(2)).catch((e) => {
  console.error(`napd: ${messageOf(e)}`);
  if (!(e instanceof AppError)) console.error(e);
  return 1;
});

/** The exit code: 0 after an orderly end, 1 when something could not be done, 2 for wrong usage, 78 for wrong settings. */
async function main(args: string[]): Promise<number> {
  if (args[0] === "install" || args[0] === "uninstall") return installOrNot(args);
  const line = parseLine(args);
  if (typeof line === "string") {
    console.error(`napd: ${line}; napd --help says what there is`);
    return 2;
  }
  const { values, positionals } = line;
  if (values.help) return print(usage);
  if (values.version) return print(`${version}\n`);
  const sources = {
    file: values.config ?? defaultFile,
    fileIsRequired: values.config !== undefined,
    environment: process.env,
    flags: values.set ?? [],
  };
  const config = readConfig(sources);
  if (config === undefined) return exitConfig;
  if (values["print-config"]) return print(printConfig(config));
  if (positionals[0] === "doctor") {
    const { text, ok } = report(judge(await gatherFacts(config)), values.json ?? false);
    process.stdout.write(text);
    return ok ? 0 : 1;
  }
  const log = openLog(config.log.level, forJournal(config));
  const [command, ...rest] = positionals;
  if (command === "import") return importImages(config, log, rest);
  if (command === "backup") return backup(config, rest[0]!);
  if (command === "restore") return restore(config, rest[0]!, values.force ?? false);
  return run(config, sources, log);
}

/** Loaded when it is wanted: what runs for months does not need it. */
async function installOrNot(args: string[]): Promise<number> {
  const { runInstaller } = await import("./install/command.ts");
  return runInstaller(args, {
    environment: process.env,
    readConfig: (file, fileIsRequired) => loadConfig({ file, fileIsRequired, environment: {}, flags: [] }),
    removeFunctions: async (config, purge) => {
      const { removeFunctions } = await import("./teardown.ts");
      return removeFunctions(config, openLog("warn"), purge);
    },
  });
}

function forJournal({ log: { format } }: Config): boolean {
  return format === "journal" || (format === "auto" && writesToJournal(process.env));
}

function readConfig(sources: ConfigSources): Config | undefined {
  try {
    return loadConfig(sources);
  } catch (e) {
    console.error(`napd: ${messageOf(e)}`);
    return undefined;
  }
}

function parseLine(args: string[]) {
  const options = {
    config: { type: "string" },
    set: { type: "string", multiple: true },
    force: { type: "boolean" },
    json: { type: "boolean" },
    "print-config": { type: "boolean" },
    version: { type: "boolean" },
    help: { type: "boolean", short: "h" },
  } as const;
  try {
    const line = parseArgs({ args, options, allowPositionals: true });
    const [command, ...rest] = line.positionals;
    if (command !== undefined && !["import", "backup", "restore", "doctor"].includes(command))
      return `there is no command ${command}`;
    if (command === "import" && (rest.length < 1 || rest.length > 2)) return "import takes a file and perhaps a name";
    if ((command === "backup" || command === "restore") && rest.length !== 1) return `${command} takes a file`;
    if (command === "doctor" && rest.length > 0) return "doctor takes no arguments";
    if (line.values.json && command !== "doctor") return "--json is for doctor";
    if (line.values.force && command !== "restore") return "--force is for restore";
    return line;
  } catch (e) {
    return messageOf(e);
  }
}

function print(text: string): number {
  process.stdout.write(text);
  return 0;
}

async function run(config: Config, sources: ConfigSources, log: Logger): Promise<number> {
  // before the slow part, so that a signal during the start ends it in order too
  const stopped = nextSignal();
  let reload = (): unknown => log.info("settings are not read again before napd is up");
  process.on("SIGHUP", () => void reload());
  process.on("unhandledRejection", (e) => {
    log.fatal({ err: messageOf(e), stack: e instanceof Error ? e.stack : undefined }, "unhandled failure");
    process.exit(1); // nothing is lost by a restart, and nobody knows what state this process is in
  });
  using manager = openNotifier(process.env);
  const begin = performance.now();
  const daemon = await startDaemon(config, release, inheritedSockets(process.env), log);
  log.info({ version, port: daemon.port, ms: Math.round(performance.now() - begin) }, "napd is up");
  manager.ready(() => daemon.status());
  reload = openReload(config, sources, daemon, log, manager);
  const signal = await stopped;
  reload = () => undefined;
  log.info({ signal }, "napd stops");
  manager.stopping();
  await daemon[Symbol.asyncDispose]();
  log.info("napd has stopped");
  return 0;
}

/** Reads the settings again and has the live ones taken up; one after the other. */
function openReload(config: Config, sources: ConfigSources, daemon: Daemon, log: Logger, manager: Notifier) {
  let running = config;
  const reload = async (): Promise<void> => {
    manager.reloading();
    try {
      const { config: next, changed, restart } = planReload(running, loadConfig(sources));
      await daemon.reload(next);
      running = next;
      log.info({ changed }, "settings reloaded");
      if (restart.length > 0) log.warn({ settings: restart }, "these settings changed and need a restart");
    } catch (e) {
      log.error({ err: messageOf(e) }, "settings could not be reloaded, nothing has changed");
    }
    manager.reloaded();
  };
  let last = Promise.resolve();
  return () => {
    last = last.then(reload);
  };
}

/** The first one counts; more of them change nothing, because what is being put in order must come to its end. */
function nextSignal(): Promise<string> {
  return new Promise((resolve) => {
    process.on("SIGTERM", resolve);
    process.on("SIGINT", resolve);
  });
}

async function importImages(config: Config, log: Logger, [file, reference]: string[]): Promise<number> {
  using containerd = await openContainerd({
    socket: config.containerd.socket,
    snapshotter: config.containerd.snapshotter,
  });
  const namespace = config.functions.namespace;
  await containerd.namespaces.ensure(namespace, { openfaas: "true" });
  await using images = await openImages(config, containerd, log);
  for (const { ref } of await images.import(namespace, file!, reference)) console.log(ref);
  return 0;
}

async function backup(config: Config, file: string): Promise<number> {
  const source = { dataDir: config.paths.data, loginsFile: loginsFile(config), version, now: Date.now() };
  const { functions, secrets } = await writeBackup(source, file, process.stdout);
  console.error(`written to ${file}: ${functions} functions, ${secrets} secrets`);
  return 0;
}

async function restore(config: Config, file: string, force: boolean): Promise<number> {
  const dataDir = config.paths.data;
  await using _ = await claim("paths.data", dataDir);
  const { functions, secrets, createdAt, napd } = await restoreBackup({ dataDir, file, force });
  console.error(
    `restored from ${createdAt} (napd ${napd}): ${functions} functions, ${secrets} secrets; start napd now`,
  );
  if (config.images.credentials !== "")
    console.error(
      `logins of registries are in ${dataDir}/docker-config.json; setting images.credentials names another file`,
    );
  return 0;
}
