import { readFileSync } from "node:fs";
import { join } from "node:path";

/** Where the recorded cases and the programs that they use are. */
export const casesFolder = join(import.meta.dirname, "../../cases");

/** A request as a case describes it. Header values and bodies may be made of repetitions. */
export interface CaseRequest {
  method?: string;
  path?: string;
  headers?: [string, string | { repeat: [string, number] }][];
  body?: string;
  bodyRepeat?: [string, number];
  /** The bytes themselves, instead of all of the above. */
  raw?: string;
  chunked?: boolean;
  /** `[bytes, ms]`: so many bytes of the body, a pause, the rest. */
  slowSend?: [number, number];
  /** `[parts, ms]`: the body in so many parts with pauses between them. */
  sendParts?: [number, number];
  port?: number;
  timeoutMs?: number;
  afterUpgrade?: string;
}

/** What must be seen. Absent members are not looked at. */
export interface Expectation {
  status?: number;
  body?: string;
  bodyRegex?: string;
  bodyContains?: string[];
  bodySha256?: string;
  bodyLength?: number;
  headers?: Record<string, string | string[]>;
  framing?: string;
  closed?: boolean;
  error?: string;
  exitCode?: number | "still-running";
  logRegex?: string[];
  stdoutRegex?: string[];
  stderrRegex?: string[];
  logNotRegex?: string[];
  minMs?: number;
  maxMs?: number;
  minTtfbMs?: number;
  maxTtfbMs?: number;
  minExitMs?: number;
  maxExitMs?: number;
  interim?: number[];
  exists?: boolean;
  sh?: string;
}

/** Something that happens `atMs` after the start. */
export interface CaseEvent {
  atMs: number;
  request?: CaseRequest;
  signal?: string;
  rm?: string;
  exists?: string;
  sh?: string;
  clientAbort?: CaseRequest;
  abortAfterMs?: number;
  expect?: Expectation;
}

/** One recorded case (contracts/watchdog.md §6). */
export interface Case {
  name: string;
  binary: string;
  mode: string;
  kind?: "cli";
  env: Record<string, string | null>;
  noModeEnv?: boolean;
  fprocess?: string;
  argv?: string[];
  wrap?: string[];
  files?: Record<string, string>;
  helpers?: string[][];
  tokens?: Record<string, string>;
  preTouch?: string[];
  waitUpstream?: boolean;
  timeline?: CaseEvent[];
  request?: CaseRequest;
  requestAtMs?: number;
  waitMs?: number;
  waitExitMs?: number;
  settleMs?: number;
  expect: Expectation;
  better?: Expectation;
  defect?: string;
}

/** All of them, in the order of the file. */
export function readCases(): Case[] {
  return JSON.parse(readFileSync(join(casesFolder, "watchdog-cases.json"), "utf8"));
}
