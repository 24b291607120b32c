import { wrongUsage } from "../failure.ts";
import type { Define } from "../main.ts";

/** Scripts that complete names of commands, then names of functions as `nap list -q` tells them. */
const scripts: Record<string, (names: readonly string[]) => string> = {
  bash: (names) => `_nap() {
  local word=\${COMP_WORDS[COMP_CWORD]}
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "${names.join(" ")}" -- "$word"))
  else
    case \${COMP_WORDS[1]} in
      describe | invoke | logs | scale | ready | remove | rm | delete)
        COMPREPLY=($(compgen -W "$(nap list -q 2>/dev/null)" -- "$word")) ;;
      *) COMPREPLY=($(compgen -f -- "$word")) ;;
    esac
  fi
}
complete -F _nap nap
`,
  zsh: (names) => `#compdef nap
_nap() {
  if (( CURRENT == 2 )); then
    compadd ${names.join(" ")}
  else
    case $words[2] in
      describe|invoke|logs|scale|ready|remove|rm|delete) compadd \${(f)"$(nap list -q 2>/dev/null)"} ;;
      *) _files ;;
    esac
  fi
}
compdef _nap nap
`,
  fish: (names) => `complete -c nap -f -n __fish_use_subcommand -a "${names.join(" ")}"
complete -c nap -f -n "__fish_seen_subcommand_from describe invoke logs scale ready remove" -a "(nap list -q 2>/dev/null)"
`,
};

export const define: Define = (command, context) => {
  command
    .description("a script that completes nap's command line: source it in your shell's start-up file")
    .argument("[shell]", "bash, zsh or fish")
    .option("--shell <shell>", "instead of the argument")
    .action((argument: string | undefined, flags: { shell?: string }) => {
      const script = scripts[argument ?? flags.shell ?? ""];
      if (!script) throw wrongUsage(`which shell? ${Object.keys(scripts).join(", ")}`);
      context.stdout.write(script(command.parent!.commands.map((c) => c.name())));
    });
};
