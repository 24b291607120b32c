import { Agent, request } from "undici";

export interface Calls {
  answered: number;
  /** A line for each that was not answered with 200. */
  failed: string[];
  /** Sent once more, since the connection that was kept from the last time had been closed: RFC 9112 §9.3.1. */
  repeated: number;
  slowestMs: number;
}

/**
 * So many callers, each with its next request as soon as it has the answer to the last: as much as the machine can do,
 * and no more, however slow it is. Every other one makes a new connection each time. The others keep theirs; a request
 * that met its end on the way is sent again, as browsers and other clients do.
 */
export function startCallers(url: string, count: number): { stop(): Promise<Calls> } {
  const calls: Calls = { answered: 0, failed: [], repeated: 0, slowestMs: 0 };
  let stopped = false;
  const call = async (dispatcher: Agent) => {
    const { statusCode, body } = await request(url, { dispatcher });
    const text = await body.text();
    if (statusCode === 200) calls.answered++;
    else calls.failed.push(`${statusCode}: ${text}`);
  };
  const caller = async (keeps: boolean) => {
    const patience = 10 * 60_000;
    const agent = new Agent({ headersTimeout: patience, bodyTimeout: patience, pipelining: keeps ? 1 : 0 });
    for (let isKept = false; !stopped; isKept = keeps) {
      const begin = performance.now();
      try {
        await call(agent).catch((e) => {
          if (!isKept || e.code !== "UND_ERR_SOCKET") throw e;
          calls.repeated++;
          return call(agent);
        });
      } catch (e) {
        calls.failed.push(String(e));
      }
      calls.slowestMs = Math.max(calls.slowestMs, performance.now() - begin);
    }
    await agent.close();
  };
  const callers = Array.from({ length: count }, (_, i) => caller(i % 2 === 0));
  return {
    async stop() {
      stopped = true;
      await Promise.all(callers);
      return calls;
    },
  };
}
