import { basename } from "node:path";
import { parseDuration } from "../base/durations.ts";
import { AppError } from "../base/errors.ts";

/** The modes this build has. */
export type Mode = "classic" | "http";

/** The whole configuration; durations are milliseconds. Names and defaults: contracts/watchdog.md §1.2. */
export interface Config {
  mode: Mode;
  /** `fprocess` split at every single space, without quoting: two spaces make an empty argument. */
  command: string[];
  /** `fprocess` as it was given, for log lines. */
  commandLine: string;
  port: number;
  /** Until a whole request must have arrived; also how long a kept-alive connection may be idle. Default 30 s. */
  readTimeoutMs: number;
  /** From the end of a request's head until its whole answer must have left; also the drain limit. Default 30 s. */
  writeTimeoutMs: number;
  /** 0 = off. Default: off in classic mode, 30 s in http mode. */
  execTimeoutMs: number;
  /**
   * How long SIGTERM leaves the listener open, so that those who ask /_/health can notice. Default 0: the reference
   * waits for write_timeout even when idle, which makes every stop take 30 s (contracts/watchdog.md §5, 10).
   */
  healthcheckIntervalMs: number;
  /** Calls at a time; 0 = no limit. */
  maxInflight: number;
  suppressLock: boolean;
  /** `$TMPDIR/.lock`, else `/tmp/.lock`. */
  lockFile: string;
  classic: { combineOutput: boolean; cgiHeaders: boolean; contentType: string };
  http: { upstream: Upstream; bufferRequestBody: boolean; prefixLogs: boolean };
  /** Things worth telling at start: one line each. */
  warnings: string[];
}

/** Where the function's own server is. */
export interface Upstream {
  /** `http://127.0.0.1:3000`, as it appears in log lines. */
  url: string;
  host: string;
  port: number;
  /** Put before every path; never ends in a slash. */
  basePath: string;
}

export type Environment = Record<string, string | undefined>;

/** Modes that the contract knows and this build has not. */
const otherModes = ["streaming", "serializing", "static", "inproc", "afterburn"];

/**
 * The mode: `mode` when it says something, else what the program is called (`of-watchdog` = streaming, anything
 * else = classic). Throws AppError CONFIG for a mode that is unknown or not in this build.
 */
export function modeOf(env: Environment, calledAs: string): Mode {
  const asked = env.mode || (basename(calledAs) === "of-watchdog" ? "streaming" : "classic");
  if (asked === "http" || (asked === "classic" && !env.mode)) return asked;
  const what = otherModes.includes(asked) ? "is not supported by this watchdog" : "is unknown";
  throw new AppError("CONFIG", [`mode "${asked}" ${what}; use mode=http, or no mode for one process per request`]);
}

/** The configuration that `env` asks for. Throws AppError CONFIG, one clear line, for what cannot work. */
export function readConfig(env: Environment, calledAs: string): Config {
  const mode = modeOf(env, calledAs);
  const warnings: string[] = [];
  const writeTimeoutMs = duration(env, "write_timeout", 30_000);
  const execTimeoutMs = Math.max(0, duration(env, "exec_timeout", mode === "http" ? 30_000 : 0));
  if (mode === "http" && writeTimeoutMs <= 0) throw new AppError("CONFIG", ["HTTP write timeout must be over 0s"]);
  if (writeTimeoutMs > 0 && execTimeoutMs > writeTimeoutMs)
    warnings.push("write_timeout is shorter than exec_timeout: slow calls end as closed connections, not as timeouts");
  const commandLine = commandOf(env, mode);
  return {
    mode,
    command: commandLine.split(" "),
    commandLine,
    port: portOf(env, warnings),
    readTimeoutMs: duration(env, "read_timeout", 30_000),
    writeTimeoutMs,
    execTimeoutMs,
    healthcheckIntervalMs: Math.max(0, duration(env, "healthcheck_interval", 0)),
    maxInflight: integer(env, "max_inflight", 0),
    suppressLock: flag(env, "suppress_lock", mode),
    lockFile: `${env.TMPDIR || "/tmp"}/.lock`,
    classic: {
      combineOutput: classicDefaultTrue(env, "combine_output"),
      cgiHeaders: classicDefaultTrue(env, "cgi_headers"),
      contentType: env.content_type ?? "",
    },
    http: {
      upstream: mode === "http" ? upstreamOf(env) : { url: "", host: "", port: 0, basePath: "" },
      bufferRequestBody: flag(env, "http_buffer_req_body", mode) || flag(env, "buffer_http", mode),
      prefixLogs: parseBool(env.prefix_logs) ?? true,
    },
    warnings,
  };
}

function commandOf(env: Environment, mode: Mode): string {
  // An existing empty function_process overrides fprocess, but only the of family knows it (§1.1).
  const command = mode === "http" ? (env.function_process ?? env.fprocess) : env.fprocess;
  if (command) return command;
  const names = mode === "http" ? `"function_process" or "fprocess"` : `"fprocess"`;
  throw new AppError("CONFIG", [`provide a ${names} environmental variable for your function`]);
}

function upstreamOf(env: Environment): Upstream {
  const text = env.http_upstream_url || env.upstream_url || "";
  const match = /^http:\/\/(\[[0-9a-f:.]+\]|[^/:?#@\s]+)(?::(\d{1,5}))?(\/[^?#\s]*)?$/i.exec(text);
  const port = Number(match?.[2] ?? 80);
  if (!match || port < 1 || port > 65535)
    throw new AppError("CONFIG", [
      `For "mode=http" you must specify a valid URL for "http_upstream_url", like http://127.0.0.1:3000; found "${text}"`,
    ]);
  const basePath = (match[3] ?? "").replace(/\/+$/, "");
  return { url: text.replace(/\/+$/, ""), host: match[1]!.replace(/^\[|\]$/g, ""), port, basePath };
}

function portOf(env: Environment, warnings: string[]): number {
  const text = env.port || "8080";
  if (/^\d{1,5}$/.test(text) && Number(text) <= 65535) return Number(text);
  warnings.push(`port "${text}" is not a port number; using 8080`);
  return 8080;
}

function duration(env: Environment, name: string, fallbackMs: number): number {
  return parseDuration(env[name] ?? "") ?? fallbackMs;
}

function integer(env: Environment, name: string, fallback: number): number {
  const text = env[name] ?? "";
  return /^\+?\d+$/.test(text) ? Number(text) : fallback;
}

/** A switch that is off by default: only `true` turns it on, in the of family also `1` (§1.1). */
function flag(env: Environment, name: string, mode: Mode): boolean {
  return env[name] === "true" || (mode === "http" && env[name] === "1");
}

/** A classic switch that is on by default: empty keeps the default, any other text but `true` turns it off (§1.1). */
function classicDefaultTrue(env: Environment, name: string): boolean {
  return !env[name] || env[name] === "true";
}

/** Go's strconv.ParseBool; undefined for anything it does not take. */
function parseBool(text: string | undefined): boolean | undefined {
  if (/^(1|t|T|TRUE|true|True)$/.test(text ?? "")) return true;
  return /^(0|f|F|FALSE|false|False)$/.test(text ?? "") ? false : undefined;
}
