import { Command, CommanderError, type Option } from "commander";
import { type Context, isTraced } from "./context.ts";
import { Failure } from "./failure.ts";
import { forOutput } from "./output.ts";

/** A command's file exports this: adds its flags, arguments and action to `command`. `loadAll`: all commands in full. */
export type Define = (command: Command, context: Context, loadAll: () => Promise<Command>) => void;

interface Entry {
  readonly aliases?: readonly string[];
  readonly summary: string;
  readonly load: () => Promise<{ define: Define }>;
}

/** Every command with what loads it: a run imports one of them. */
const commands: Readonly<Record<string, Entry>> = {
  login: { summary: "keep a user and password for a gateway", load: () => import("./commands/login.ts") },
  logout: { summary: "forget them", load: () => import("./commands/logout.ts") },
  list: { aliases: ["ls"], summary: "functions that are deployed", load: () => import("./commands/list.ts") },
  describe: { summary: "all about a function", load: () => import("./commands/describe.ts") },
  new: { summary: "make a function from a template", load: () => import("./commands/new.ts") },
  build: { summary: "make images of functions", load: () => import("./commands/build.ts") },
  push: { summary: "bring images to their registry or a napd", load: () => import("./commands/push.ts") },
  publish: { summary: "make images for several platforms and push them", load: () => import("./commands/publish.ts") },
  template: { summary: "what new functions are made from", load: () => import("./commands/template.ts") },
  "local-run": { summary: "run a function without a gateway", load: () => import("./commands/local-run.ts") },
  deploy: { summary: "deploy functions, of a stack file or by flags", load: () => import("./commands/deploy.ts") },
  up: { summary: "from code to running functions, in one go", load: () => import("./commands/up.ts") },
  dev: { summary: "as up, with every change and what the functions write", load: () => import("./commands/dev.ts") },
  remove: { aliases: ["rm", "delete"], summary: "remove functions", load: () => import("./commands/remove.ts") },
  invoke: { summary: "call a function", load: () => import("./commands/invoke.ts") },
  logs: { summary: "what a function writes", load: () => import("./commands/logs.ts") },
  queue: { summary: "asynchronous calls", load: () => import("./commands/queue.ts") },
  cron: { summary: "functions that are called by the clock", load: () => import("./commands/cron.ts") },
  scale: { summary: "change how many replicas a function has", load: () => import("./commands/scale.ts") },
  ready: { summary: "wait for a function or the gateway", load: () => import("./commands/ready.ts") },
  secret: { summary: "secrets that functions read", load: () => import("./commands/secret.ts") },
  namespace: { aliases: ["ns", "namespaces"], summary: "namespaces", load: () => import("./commands/namespace.ts") },
  store: { summary: "functions of a store", load: () => import("./commands/store.ts") },
  image: { summary: "images that napd holds", load: () => import("./commands/image.ts") },
  generate: { summary: "a stack file as objects of Kubernetes", load: () => import("./commands/generate.ts") },
  "registry-login": {
    summary: "write a file of registry logins",
    load: () => import("./commands/registry-login.ts"),
  },
  completion: { summary: "completion for your shell", load: () => import("./commands/completion.ts") },
  version: { summary: "versions of nap and the gateway", load: () => import("./commands/version.ts") },
  diff: { summary: "what a deploy of a stack file would change", load: () => import("./commands/diff.ts") },
};

/** Runs one command line. The exit code: 0 done, 1 could not be done, 2 wrong usage, 130 ended by Ctrl-C. */
export async function runCommandLine(args: readonly string[], context: Context): Promise<number> {
  const tell = (text: string) => context.stderr.write(forOutput(context.stderr, text));
  try {
    const [first, second] = hoisted(args);
    const program = await loadProgram(first === "help" ? second : first, context);
    await program.parseAsync(spelledOut(hoisted(args), program), { from: "user" });
    return 0;
  } catch (e) {
    if (e instanceof CommanderError) return e.exitCode === 0 ? 0 : 2;
    if (context.signal.aborted) return 130;
    if (e instanceof Failure) {
      if (e.message) tell(`nap: ${e.message}\n`);
      return e.exitCode;
    }
    const { code, message, stack } = e as NodeJS.ErrnoException;
    if (code?.startsWith("E")) tell(`nap: ${message}\n`);
    else if (isTraced(context)) tell(`nap: ${stack}\n`);
    else tell(`nap: ${message}; this is a fault of nap: FAAS_DEBUG=1 shows where\n`);
    return 1;
  }
}

/** The program with all its commands, of which only the one that is meant has more than a name; "all": every one. */
async function loadProgram(meant: string | undefined, context: Context): Promise<Command> {
  const program = new Command("nap")
    .description("Serverless functions, on napd or any OpenFaaS gateway")
    .version(await context.version(), "-V, --version")
    .exitOverride()
    .configureOutput({
      writeOut: (text) => context.stdout.write(text),
      writeErr: (text) => context.stderr.write(text.replace(/^error: /, "nap: ")),
      getOutHelpWidth: () => context.stdout.columns ?? 100,
      getErrHelpWidth: () => context.stderr.columns ?? 100,
    })
    .showHelpAfterError("nap --help, or nap COMMAND --help, says what there is");
  for (const [name, { aliases = [], summary, load }] of Object.entries(commands)) {
    const command = program.command(name).aliases(aliases).summary(summary).description(summary);
    if (meant === "all" || meant === name || aliases.includes(meant ?? ""))
      (await load()).define(command, context, () => loadProgram("all", context));
  }
  return program;
}

/** Flags that may stand before the command: `nap -f stack.yaml deploy`. */
const early = new Set(["-f", "--yaml", "--filter", "--regex", "-g", "--gateway"]);

/** With the flags that stand before the command behind it. */
function hoisted(args: readonly string[]): string[] {
  let at = 0;
  while (at < args.length && args[at]!.startsWith("-")) {
    const [flag] = args[at]!.split("=");
    if (!early.has(flag!)) return [...args];
    at += args[at]!.includes("=") ? 1 : 2;
  }
  const [before, rest] = [args.slice(0, at), args.slice(at)];
  const end = rest.indexOf("--");
  return end < 0 ? [...rest, ...before] : [...rest.slice(0, end), ...before, ...rest.slice(end)];
}

/** `--flag=false` of a flag that takes no value, as Go's clients have it, in the spelling that the parser knows. */
function spelledOut(args: string[], program: Command): string[] {
  const every = (command: Command): Option[] => [...command.options, ...command.commands.flatMap(every)];
  const flags = new Map(every(program).map((option) => [option.long, option]));
  return args.flatMap((arg) => {
    const [, flag, value] = /^(--[a-z-]+)=(true|false|1|0|t|f|T|F|TRUE|FALSE|True|False)$/.exec(arg) ?? [];
    if (flag === undefined || !flags.get(flag)?.isBoolean()) return [arg];
    if (/^[1tT]/.test(value!)) return [flag];
    const negative = flag.replace("--", "--no-");
    return flags.has(negative) ? [negative] : [];
  });
}
