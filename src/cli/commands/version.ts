import { Option } from "commander";
import { Failure } from "../failure.ts";
import { type GatewayFlags, gatewayFlags, type StackFlags, yamlFlag } from "../flags.ts";
import { openGateway } from "../gateway.ts";
import type { Define } from "../main.ts";
import { forOutput, print, printJson, remark } from "../output.ts";
import { stackGateway } from "../stack-file.ts";

interface Flags extends GatewayFlags, StackFlags {
  shortVersion?: boolean;
  json?: boolean;
}

interface Release {
  release?: string;
  sha?: string;
}
interface Info {
  provider?: { provider?: string; orchestration?: string; version?: Release | null } | null;
  version?: Release | null;
  arch?: string;
}

export const define: Define = (command, context) => {
  gatewayFlags(yamlFlag(command, "-f, --yaml <file>"))
    .description("versions of nap and of the gateway")
    .option("--short-version", "nap's version only")
    .option("-j, --json", "as JSON")
    // of the original client; nap looks for no newer version
    .addOption(new Option("--warn-update").hideHelp())
    .action(async (flags: Flags) => {
      const nap = await context.version();
      if (flags.shortVersion) return print(context, nap);
      const gateway = await openGateway(context, { timeout: 5000, ...flags }, await stackGateway(context, flags));
      const info = await gateway.get<Info>("/system/info", {}, "object").catch((e) => {
        if (!(e instanceof Failure) || flags.json) throw e;
        remark(context, e.message);
        return undefined;
      });
      if (flags.json) return printJson(context, { nap, gateway: gateway.url, ...info });
      print(context, `nap       ${nap}`);
      if (!info) return;
      const { provider, version, arch } = info;
      print(context, `gateway   ${gateway.url}`);
      const line = (title: string, words: (string | undefined)[]) =>
        print(context, forOutput(context.stdout, `${title.padEnd(10)}${words.filter(Boolean).join(" ")}`));
      line("version", [version?.release, version?.sha, arch]);
      line("provider", [
        provider?.provider,
        provider?.version?.release,
        provider?.version?.sha,
        provider?.orchestration,
      ]);
    });
};
