import { type Command, Option } from "commander";
import { parseDuration } from "../base/durations.ts";
import { wrongUsage } from "./failure.ts";

/** Of every command that talks to a gateway. */
export interface GatewayFlags {
  gateway?: string;
  tlsVerify: boolean;
  token?: string;
  timeout?: number;
}

/** Of every command that may read a stack file. */
export interface StackFlags {
  yaml?: string;
  filter?: string;
  regex?: string;
  envsubst: boolean;
}

export const gatewayFlags = (command: Command): Command =>
  command
    .option("-g, --gateway <url>", "gateway; else that of the stack file, OPENFAAS_URL, http://127.0.0.1:8080")
    .option("--no-tls-verify", "accept any certificate")
    .addOption(new Option("--tls-no-verify").hideHelp().implies({ tlsVerify: false }))
    .option("-k, --token <token>", "bearer token instead of the stored login")
    .option("--timeout <duration>", "for one request, such as 30s", duration);

export const stackFlags = (command: Command): Command =>
  yamlFlag(
    command
      .option("--filter <glob>", "functions of the stack file whose name matches; * is any text")
      .option("--regex <regex>", "functions of the stack file whose name matches"),
    "-f, --yaml <file>",
  );

/** Of commands that take nothing but the gateway out of a stack file. */
export const yamlFlag = (command: Command, flags: string): Command =>
  onOff(
    command.option(flags, "stack file or its URL; else stack.yaml or stack.yml, if there is one"),
    "envsubst",
    "replace variables in the stack file",
  );

export const namespaceFlag = (command: Command): Command =>
  command.option("-n, --namespace <name>", "namespace; without it the gateway's default");

/** `--NAME` and `--no-NAME`, on unless told otherwise. */
export const onOff = (command: Command, name: string, description: string): Command =>
  command.addOption(new Option(`--${name}`).hideHelp().default(true)).option(`--no-${name}`, `do not ${description}`);

/** A flag that may be given several times. */
export const repeated = (command: Command, flags: string, description: string): Command =>
  command.option(flags, description, (value: string, all: string[]) => [...all, value], []);

/** `key=value` of repeated flags as a map. */
export function pairs(all: readonly string[] = [], flag: string): Record<string, string> {
  return Object.fromEntries(
    all.map((pair) => {
      const at = pair.indexOf("=");
      if (at < 1) throw wrongUsage(`${flag} ${pair}: it takes KEY=VALUE`);
      return [pair.slice(0, at), pair.slice(at + 1)];
    }),
  );
}

/** Milliseconds. */
export function duration(text: string): number {
  const ms = parseDuration(text);
  if (ms === undefined || ms < 0) throw wrongUsage(`${text} is no duration; write 30s, 5m or 1h30m`);
  return ms;
}

export function wholeNumber(text: string): number {
  if (!/^-?\d{1,15}$/.test(text)) throw wrongUsage(`${text} is no whole number`);
  return Number(text);
}
