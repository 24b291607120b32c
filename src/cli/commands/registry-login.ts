import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { readPassword } from "../context.ts";
import { wrongUsage } from "../failure.ts";
import type { Define } from "../main.ts";
import { printDone } from "../output.ts";

interface Flags {
  username?: string;
  password?: string;
  passwordStdin?: boolean;
  server: string;
  ecr?: boolean;
  accountId?: string;
  region?: string;
  json?: boolean;
}

export const define: Define = (command, context) => {
  command
    .description("write a file of registry logins, as docker has it, to ./credentials/config.json")
    .option("-u, --username <name>", "user")
    .option("-s, --password-stdin", "read the password from standard input")
    .option("-p, --password <password>", "password; other users of this machine can see it while nap runs")
    .option("--server <url>", "registry", "https://index.docker.io/v1/")
    .option("--ecr", "Amazon's registry, through its credential helper")
    .option("--account-id <id>", "for --ecr")
    .option("--region <region>", "for --ecr")
    .option("-j, --json", "result as JSON")
    .action(async (flags: Flags) => {
      const config = flags.ecr ? ecr(flags) : await basic(flags);
      const dir = join(context.cwd, "credentials");
      await mkdir(dir, { recursive: true, mode: 0o700 });
      // passwords: for nobody else to read
      await writeFile(join(dir, "config.json"), JSON.stringify(config, null, 1), { mode: 0o600 });
      const file = join(dir, "config.json");
      const next = "napd reads registry logins from the file of its setting images.credentials";
      printDone(context, flags, { file }, `wrote ./credentials/config.json; ${next}`);
    });

  async function basic({ username, password, passwordStdin, server }: Flags) {
    if (!username) throw wrongUsage("--username is missing");
    if (password !== undefined && passwordStdin) throw wrongUsage("give --password or --password-stdin, not both");
    const secret = passwordStdin ? await readPassword(context) : password;
    if (!secret) throw wrongUsage("the password is missing; --password-stdin reads it from standard input");
    return { auths: { [server]: { auth: Buffer.from(`${username}:${secret}`).toString("base64") } } };
  }
};

function ecr({ accountId, region }: Flags) {
  if (!accountId || !region) throw wrongUsage("--ecr needs --account-id and --region");
  return { credsStore: "ecr-login", credHelpers: { [`${accountId}.dkr.ecr.${region}.amazonaws.com`]: "ecr-login" } };
}
