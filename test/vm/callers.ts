import { Agent, request } from "undici";

export interface Calls {
  answered: number;
  /** A line for each that was not answered with 200. */
  failed: string[];
  slowestMs: number;
}

/**
 * So many callers, each with its next request as soon as it has the answer to the last: as much as the machine can do,
 * and no more, however slow it is. Every other one makes a new connection each time.
 */
export function startCallers(url: string, count: number): { stop(): Promise<Calls> } {
  const calls: Calls = { answered: 0, failed: [], slowestMs: 0 };
  let stopped = false;
  const call = async (dispatcher: Agent) => {
    const begin = performance.now();
    try {
      const { statusCode, body } = await request(url, { dispatcher });
      const text = await body.text();
      if (statusCode === 200) calls.answered++;
      else calls.failed.push(`${statusCode}: ${text}`);
    } catch (e) {
      calls.failed.push(String(e));
    }
    calls.slowestMs = Math.max(calls.slowestMs, performance.now() - begin);
  };
  const caller = async (isFresh: boolean) => {
    const patience = 10 * 60_000;
    const agent = new Agent({ headersTimeout: patience, bodyTimeout: patience, pipelining: isFresh ? 0 : 1 });
    while (!stopped) await call(agent);
    await agent.close();
  };
  const callers = Array.from({ length: count }, (_, i) => caller(i % 2 === 1));
  return {
    async stop() {
      stopped = true;
      await Promise.all(callers);
      return calls;
    },
  };
}
