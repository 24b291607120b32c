import { Agent, request } from "undici";

/** What became of a load: `failed` has a line for each request that was not answered with 200. */
export interface LoadResult {
  sent: number;
  failed: string[];
  /** Of those answered, ms. */
  took: number[];
}

/**
 * Sends so many GETs a second, whether those before have been answered or not, until it is stopped. A machine that is
 * too busy to send in time catches up, so the number sent fits the time that passed. Connections are kept, unless each
 * request is to have a fresh one.
 */
export function startLoad(url: string, perSecond: number, fresh = false): { stop(): Promise<LoadResult> } {
  const agent = new Agent({ headersTimeout: 60_000, bodyTimeout: 60_000, pipelining: fresh ? 0 : 1 });
  const result: LoadResult = { sent: 0, failed: [], took: [] };
  const begin = performance.now();
  const underWay = new Set<Promise<void>>();
  const send = async () => {
    const sent = performance.now();
    try {
      const { statusCode, body } = await request(url, { dispatcher: agent });
      const text = await body.text();
      if (statusCode === 200) result.took.push(performance.now() - sent);
      else result.failed.push(`${statusCode}: ${text}`);
    } catch (e) {
      result.failed.push(String(e));
    }
  };
  const timer = setInterval(() => {
    for (const due = ((performance.now() - begin) / 1000) * perSecond; result.sent < due; result.sent++) {
      const call = send().finally(() => underWay.delete(call));
      underWay.add(call);
    }
  }, 2);
  return {
    async stop() {
      clearInterval(timer);
      await Promise.all(underWay);
      await agent.close();
      return result;
    },
  };
}
