import type { Command } from "commander";
import { wrongUsage } from "../failure.ts";
import type { Define } from "../main.ts";

/** A place on the command line, with what can stand there. */
interface Place {
  /** Command, or command and sub-command with its aliases, as a shell's pattern. */
  readonly pattern: string;
  /** Sub-commands. */
  readonly words: readonly string[];
  readonly flags: readonly string[];
  /** What prints the names that can follow: functions, calls, secrets. */
  readonly names: string | undefined;
}

const functions = "nap list -q";
/** What the arguments of a command are names of; those of others are files. */
const namesOf: Readonly<Record<string, string>> = {
  ...Object.fromEntries(["describe", "invoke", "logs", "scale", "ready", "remove"].map((name) => [name, functions])),
  ...Object.fromEntries(
    ["describe", "retry", "drop", "cancel", "result"].map((name) => [`queue ${name}`, "nap queue list -q"]),
  ),
  "queue list": functions,
  ...Object.fromEntries(["describe", "run", "history"].map((name) => [`cron ${name}`, "nap cron list -q"])),
  "secret update": "nap secret list -q",
  "secret remove": "nap secret list -q",
  "namespace get": "nap namespace list",
  "namespace update": "nap namespace list",
  "namespace remove": "nap namespace list",
};

/** Scripts that complete commands and flags, and names as the gateway tells them. */
const scripts: Readonly<Record<string, (commands: readonly string[], places: readonly Place[]) => string>> = {
  bash: (commands, places) => `_nap() {
  local word=\${COMP_WORDS[COMP_CWORD]} second= words= flags= names=
  [ "$COMP_CWORD" -gt 2 ] && second=\${COMP_WORDS[2]}
  case "\${COMP_WORDS[1]} $second" in
${cases(places)}
  esac
  case $COMP_CWORD,$word in
    1,*) words="${commands.join(" ")}" names= ;;
    *,-*) words=$flags names= ;;
    2,*) ;;
    *) words= ;;
  esac
  [ -n "$names" ] && words="$words $($names 2>/dev/null)"
  COMPREPLY=($(compgen -W "$words" -- "$word"))
  [ \${#COMPREPLY[@]} -gt 0 ] || COMPREPLY=($(compgen -f -- "$word"))
}
complete -F _nap nap
`,
  zsh: (commands, places) => `#compdef nap
_nap() {
  local second= words_= flags= names=
  (( CURRENT > 3 )) && second=$words[3]
  case "$words[2] $second" in
${cases(places).replaceAll(" words=", " words_=")}
  esac
  if (( CURRENT == 2 )); then compadd ${commands.join(" ")}
  elif [[ $words[CURRENT] == -* ]]; then compadd -- \${=flags}
  elif (( CURRENT == 3 )) && [[ -n $words_ ]]; then compadd \${=words_}
  elif [[ -n $names ]]; then compadd \${(f)"$(\${=names} 2>/dev/null)"}
  else _files
  fi
}
compdef _nap nap
`,
  fish: (commands, places) =>
    [
      `complete -c nap -f -n __fish_use_subcommand -a "${commands.join(" ")}"`,
      ...places.flatMap(({ pattern, words, flags, names }) => {
        const [first, second] = pattern.split(" ").map((part) => part.replaceAll("|", " "));
        const seen = second === "*" ? [first] : [first, second];
        const here = `-n "${seen.map((p) => `__fish_seen_subcommand_from ${p}`).join("; and ")}"`;
        return [
          ...(words.length > 0 ? [`complete -c nap -f ${here} -a "${words.join(" ")}"`] : []),
          ...(names ? [`complete -c nap -f ${here} -a "(${names} 2>/dev/null)"`] : []),
          ...flags.filter((f) => f.startsWith("--")).map((f) => `complete -c nap ${here} -l ${f.slice(2)}`),
        ];
      }),
      "",
    ].join("\n"),
};

const cases = (places: readonly Place[]): string =>
  places
    .map(({ pattern, words, flags, names = "" }) => {
      const [first, second] = pattern.split(" ");
      const alternatives = first!
        .split("|")
        .flatMap((a) => second!.split("|").map((b) => (b === "*" ? `"${a} "*` : `"${a} ${b}"`)));
      return `    ${alternatives.join(" | ")}) words="${words.join(" ")}" flags="${flags.join(" ")}" names="${names}" ;;`;
    })
    .join("\n");

/** The more special ones first. */
function placesOf(program: Command): Place[] {
  const spelled = (c: Command) => [c.name(), ...c.aliases()].join("|");
  const flagsOf = (c: Command) =>
    c.options.filter((o) => !o.hidden).flatMap((o) => [o.long!, ...(o.short ? [o.short] : [])]);
  return program.commands.flatMap((command) => [
    ...command.commands.map((sub) => ({
      pattern: `${spelled(command)} ${spelled(sub)}`,
      words: [],
      flags: flagsOf(sub),
      names: namesOf[`${command.name()} ${sub.name()}`],
    })),
    {
      pattern: `${spelled(command)} *`,
      words: command.commands.map((c) => c.name()),
      flags: flagsOf(command),
      names: namesOf[command.name()],
    },
  ]);
}

export const define: Define = (command, context, loadAll) => {
  command
    .description("a script that completes nap's command line: source it in your shell's start-up file")
    .argument("[shell]", "bash, zsh or fish")
    .option("--shell <shell>", "instead of the argument")
    .action(async (argument: string | undefined, flags: { shell?: string }) => {
      const script = scripts[argument ?? flags.shell ?? ""];
      if (!script) throw wrongUsage(`which shell? ${Object.keys(scripts).join(", ")}`);
      const program = await loadAll();
      const names = program.commands.map((c) => c.name());
      context.stdout.write(script(names, placesOf(program)));
    });
};
