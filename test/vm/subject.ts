import { setTimeout as delay } from "node:timers/promises";
import type { Machine } from "./machine.ts";

/** napd in the machine, as its users and its administrator have it. */
export interface Subject {
  readonly machine: Machine;
  /** Address of a function. */
  url(name: string): string;
  /** Of the API, with the administrator's password; a status of 400 or more fails. The body as JSON, else as text. */
  // biome-ignore lint/suspicious/noExplicitAny: what the API answers is what is looked at
  api(method: string, path: string, body?: object): Promise<any>;
  /** Process and start time of a function's container: the same as long as it is the same process. */
  processOf(name: string): Promise<string>;
}

export const password = "of-a-test-machine";

export function subjectOn(machine: Machine): Subject {
  const authorization = `Basic ${Buffer.from(`admin:${password}`).toString("base64")}`;
  return {
    machine,
    url: (name) => `${machine.gateway}/function/${name}`,
    async api(method, path, body) {
      const init = { method, headers: { authorization }, signal: AbortSignal.timeout(180_000) };
      const response = await fetch(machine.gateway + path, body ? { ...init, body: JSON.stringify(body) } : init);
      const text = await response.text();
      if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
      return /^[[{]/.test(text) ? JSON.parse(text) : text;
    },
    async processOf(name) {
      const first = `head -n 1 "$(find /sys/fs/cgroup -type d -name '${name}.*')/cgroup.procs"`;
      return (await machine.sh(`pid=$(${first}); echo "$pid since $(cut -d ' ' -f 22 "/proc/$pid/stat")"`)).trim();
    },
  };
}

/** Asks once a second until the answer is there; fails with the last failure after `timeoutMs`. */
export async function until<T>(timeoutMs: number, ask: () => Promise<T>): Promise<T> {
  for (const end = performance.now() + timeoutMs; ; await delay(1000)) {
    try {
      return await ask();
    } catch (e) {
      if (performance.now() > end) throw new Error(`not within ${timeoutMs / 1000} s`, { cause: e });
    }
  }
}

/** The text of an answer with status 200; anything else fails. */
export async function get(url: string, init: RequestInit = {}): Promise<string> {
  const response = await fetch(url, { signal: AbortSignal.timeout(300_000), ...init });
  const text = await response.text();
  if (response.status !== 200) throw new Error(`${url}: ${response.status} ${text}`);
  return text;
}
