import { parsed, refused } from "../answers.ts";
import { type Context, readHidden, readPassword } from "../context.ts";
import { saveLogin } from "../credentials.ts";
import { Failure, wrongUsage } from "../failure.ts";
import { type GatewayFlags, gatewayFlags } from "../flags.ts";
import { connect, gatewayUrl } from "../gateway.ts";
import type { Define } from "../main.ts";
import { printDone, remark } from "../output.ts";

interface Flags extends GatewayFlags {
  username: string;
  password?: string;
  passwordStdin?: boolean;
  json?: boolean;
}

export const define: Define = (command, context) => {
  gatewayFlags(command)
    .option("-u, --username <name>", "user", "admin")
    .option("-s, --password-stdin", "read the password from standard input")
    .option("-p, --password <password>", "password; other users of this machine can see it while nap runs")
    .option("-j, --json", "result as JSON")
    .action((flags: Flags) => login(context, flags));
};

async function login(context: Context, flags: Flags): Promise<void> {
  if (flags.username === "") throw wrongUsage("--username must not be empty");
  const url = gatewayUrl(context, flags);
  const password = await passwordOf(context, flags);
  const token = Buffer.from(`${flags.username}:${password}`).toString("base64");
  if (!/^https:|^http:\/\/(127\.0\.0\.1|localhost|\[::1\])(:|\/|$)/.test(url))
    remark(context, `the password goes to ${url} without encryption; use https`);
  const gateway = connect(context, {
    url,
    authorization: `Basic ${token}`,
    tlsVerify: flags.tlsVerify,
    timeoutMs: flags.timeout ?? 5000,
  });
  const reply = await gateway.request("GET", "/system/functions");
  if (reply.status === 401) throw new Failure(`${url} does not accept this user and password`);
  if (reply.status !== 200) throw refused(url, reply);
  parsed(`${url}/system/functions`, reply, "objects");
  await saveLogin(context, { gateway: url, auth: "basic", token });
  const done = { gateway: url, username: flags.username };
  printDone(context, flags, done, `logged in to ${url} as ${flags.username}`);
}

async function passwordOf(context: Context, { password, passwordStdin }: Flags): Promise<string> {
  if (password !== undefined && passwordStdin) throw wrongUsage("give --password or --password-stdin, not both");
  if (password !== undefined)
    remark(context, "a password in the command line can be seen by others: use --password-stdin");
  const asks = password === undefined && !passwordStdin && context.stdin.isTTY;
  const given = asks ? await readHidden(context, "Password: ") : (password ?? (await readPassword(context)));
  if (given === "") throw wrongUsage("the password is empty; nap login --password-stdin < FILE reads one");
  return given;
}
