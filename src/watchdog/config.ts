import { readFileSync } from "node:fs";
import { parseDuration } from "../base/durations.ts";
import { AppError } from "../base/errors.ts";

/** How calls reach the function (contracts/watchdog.md §3). */
export type Mode = "classic" | "http" | "serializing" | "streaming" | "static";

/** The whole configuration; durations are milliseconds. Names and defaults: contracts/watchdog.md §1.2. */
export interface Config {
  mode: Mode;
  /** `fprocess` split at every single space, without quoting: two spaces make an empty argument. */
  command: string[];
  /** `fprocess` as it was given, for log lines. */
  commandLine: string;
  port: number;
  /** Where /metrics is served; the reference knows no other port than the default, 8081. 0 turns it off. */
  metricsPort: number;
  /** Until a whole request must have arrived; also how long a kept-alive connection may be idle. Default 30 s. */
  readTimeoutMs: number;
  /** From the end of a request's head until its whole answer must have left; also the drain limit. Default 30 s. */
  writeTimeoutMs: number;
  /** 0 = off. Default: off in classic mode, 30 s in the others. */
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
  /** Path of the function that answers /_/ready; empty: the watchdog answers itself. */
  readyPath: string;
  log: LogConfig;
  classic: ClassicConfig;
  /** Content type of answers in serializing and streaming mode. */
  contentType: string;
  http: { upstream: Upstream; bufferRequestBody: boolean };
  staticPath: string;
  /** Null: calls need no token. */
  auth: AuthConfig | null;
  /** Things worth telling at start: one line each. */
  warnings: string[];
}

export interface LogConfig {
  format: "text" | "json";
  /** A timestamp and the name of the pipe before every line of the function. */
  prefix: boolean;
  /** Bytes of a line that are held back until it is complete; a longer one is passed on in pieces. */
  lineBuffer: number;
  /** The caller's X-Call-Id at the end of access lines. */
  callId: boolean;
}

export interface ClassicConfig {
  combineOutput: boolean;
  cgiHeaders: boolean;
  contentType: string;
  marshalRequest: boolean;
  writeDebug: boolean;
  debugHeaders: boolean;
}

export interface AuthConfig {
  /** Where `/.well-known/openid-configuration` is. */
  issuerUrl: string;
  /** `<namespace>:<name>`. */
  subject: string;
  debug: boolean;
}

/** Where the function's own server is. */
export interface Upstream {
  /** `http://127.0.0.1:3000`, as it appears in log lines. */
  url: string;
  secure: boolean;
  host: string;
  port: number;
  /** Put before every path; never ends in a slash. */
  basePath: string;
}

export type Environment = Record<string, string | undefined>;

/** A configuration that cannot work, with the exit code that the reference has for it (§1.3). */
export class ConfigError extends AppError<"CONFIG"> {
  readonly exitCode: number;
  constructor(why: string, exitCode = 1) {
    super("CONFIG", [why]);
    this.exitCode = exitCode;
  }
}

const ofModes: readonly string[] = ["http", "serializing", "streaming", "static"];

/**
 * The mode: `mode` when it says something, else what the program is called (`of-watchdog` = streaming, anything
 * else = classic). Throws ConfigError for a mode that is unknown.
 */
export function modeOf(env: Environment, calledAs: string): Mode {
  const asked = env.mode || (/(^|\/)of-watchdog$/.test(calledAs) ? "streaming" : "classic");
  if (ofModes.includes(asked) || (asked === "classic" && !env.mode)) return asked as Mode;
  const why =
    asked === "inproc"
      ? "is for programs that have the OpenFaaS watchdog built in"
      : asked === "afterburn"
        ? "is no longer supported"
        : "is unknown";
  throw new ConfigError(
    `mode "${asked}" ${why}; use one of ${ofModes.join(", ")}, or none for the classic watchdog`,
    2,
  );
}

/** The configuration that `env` asks for. Throws ConfigError, one clear line, for what cannot work. */
export function readConfig(env: Environment, calledAs: string): Config {
  const mode = modeOf(env, calledAs);
  const warnings: string[] = [];
  const of = mode !== "classic";
  const writeTimeoutMs = duration(env, "write_timeout", 30_000);
  const execTimeoutMs = Math.max(0, duration(env, "exec_timeout", of ? 30_000 : 0));
  if (of && writeTimeoutMs <= 0) throw new ConfigError("HTTP write timeout must be over 0s");
  if (writeTimeoutMs > 0 && execTimeoutMs > writeTimeoutMs)
    warnings.push("write_timeout is shorter than exec_timeout: slow calls end as closed connections, not as timeouts");
  const commandLine = commandOf(env, mode);
  return {
    mode,
    command: commandLine.split(" "),
    commandLine,
    port: portOf(env, "port", 8080, mode, warnings),
    metricsPort: portOf(env, "metrics_port", 8081, "classic", warnings),
    readTimeoutMs: duration(env, "read_timeout", 30_000),
    writeTimeoutMs,
    execTimeoutMs,
    healthcheckIntervalMs: Math.max(0, duration(env, "healthcheck_interval", 0)),
    maxInflight: integer(env, "max_inflight", 0),
    suppressLock: flag(env, "suppress_lock", mode),
    lockFile: `${env.TMPDIR || "/tmp"}/.lock`,
    readyPath: of ? readyPathOf(env) : "",
    log: logOf(env, mode),
    classic: classicOf(env),
    contentType: env.content_type || "application/octet-stream",
    http: {
      upstream: mode === "http" ? upstreamOf(env) : { url: "", secure: false, host: "", port: 0, basePath: "" },
      bufferRequestBody: flag(env, "http_buffer_req_body", mode) || flag(env, "buffer_http", mode),
    },
    staticPath: env.static_path || "/home/app/public",
    auth: flag(env, "jwt_auth", mode) ? authOf(env, mode) : null,
    warnings,
  };
}

function classicOf(env: Environment): ClassicConfig {
  return {
    combineOutput: classicDefaultTrue(env, "combine_output"),
    cgiHeaders: classicDefaultTrue(env, "cgi_headers"),
    contentType: env.content_type ?? "",
    marshalRequest: env.marshal_request === "true",
    writeDebug: env.write_debug === "true",
    debugHeaders: env.debug_headers === "true",
  };
}

function logOf(env: Environment, mode: Mode): LogConfig {
  const format = env.log_format || "text";
  if (format !== "text" && format !== "json") throw new ConfigError(`log_format "${format}" is neither text nor json`);
  const size = env.log_buffer_size || "65536";
  if (mode !== "classic" && !/^[+-]?\d+$/.test(size)) throw new ConfigError(`invalid log_buffer_size value: ${size}`);
  return {
    format,
    prefix: parseBool(env.prefix_logs) ?? true,
    lineBuffer: Math.min(Number(size) > 0 ? Number(size) : 65536, 1 << 20),
    callId: parseBool(env.log_callid) ?? parseBool(env.log_call_id) ?? false,
  };
}

function readyPathOf(env: Environment): string {
  const path = env.ready_path ?? "";
  if (!/^[\x21-\x7e]*$/.test(path)) throw new ConfigError(`ready_path "${path}" is not a path`);
  return path === "" || path.startsWith("/") ? path : `/${path}`;
}

function authOf(env: Environment, mode: Mode): AuthConfig {
  if (!env.OPENFAAS_NAME) throw new ConfigError("jwt_auth needs the name of the function in OPENFAAS_NAME");
  const local = flag(env, "jwt_auth_local", mode);
  return {
    issuerUrl: env.jwt_auth_issuer || (local ? "http://127.0.0.1:8000" : "http://gateway.openfaas:8080"),
    subject: `${env.OPENFAAS_NAMESPACE ?? namespaceOfPod()}:${env.OPENFAAS_NAME}`,
    debug: flag(env, "jwt_auth_debug", mode),
  };
}

/** Kubernetes tells every pod its namespace. */
function namespaceOfPod(): string {
  try {
    return readFileSync("/var/run/secrets/kubernetes.io/serviceaccount/namespace", "utf8").trim();
  } catch {
    return "";
  }
}

function commandOf(env: Environment, mode: Mode): string {
  if (mode === "static") return env.function_process ?? env.fprocess ?? "";
  // An existing empty function_process overrides fprocess, but only the of family knows it (§1.1).
  const command = mode === "classic" ? env.fprocess : (env.function_process ?? env.fprocess);
  if (command) return command;
  const names = mode === "classic" ? `"fprocess"` : `"function_process" or "fprocess"`;
  throw new ConfigError(`provide a ${names} environmental variable for your function`, mode === "classic" ? 2 : 1);
}

function upstreamOf(env: Environment): Upstream {
  const text = env.http_upstream_url || env.upstream_url || "";
  const match = /^(https?):\/\/(\[[0-9a-f:.]+\]|[^/:?#@\s]+)(?::(\d{1,5}))?(\/[^?#\s]*)?$/i.exec(text);
  const secure = match?.[1]?.toLowerCase() === "https";
  const port = Number(match?.[3] ?? (secure ? 443 : 80));
  if (!match || port < 1 || port > 65535)
    throw new ConfigError(
      `For "mode=http" you must specify a valid URL for "http_upstream_url", like http://127.0.0.1:3000; found "${text}"`,
    );
  const basePath = (match[4] ?? "").replace(/\/+$/, "");
  return { url: text.replace(/\/+$/, ""), secure, host: match[2]!.replace(/^\[|\]$/g, ""), port, basePath };
}

/** A port that makes no sense falls back with a warning in classic mode; the of family never served on one (§5, 17). */
function portOf(env: Environment, name: string, fallback: number, mode: Mode, warnings: string[]): number {
  const text = env[name] || String(fallback);
  if (/^\d{1,5}$/.test(text) && Number(text) <= 65535) return Number(text);
  if (mode !== "classic") throw new ConfigError(`${name} "${text}" is not a port number`);
  warnings.push(`${name} "${text}" is not a port number; using ${fallback}`);
  return fallback;
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
  return env[name] === "true" || (mode !== "classic" && env[name] === "1");
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
