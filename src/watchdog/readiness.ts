import { connect } from "./wire/network.ts";

/** Milliseconds between two tries to connect: the first, and the longest after doubling. */
const FIRST_WAIT_MS = 2;
const LONGEST_WAIT_MS = 100;
/** Milliseconds that a connection may take. */
const CONNECT_MS = 1000;

/**
 * Waits until somebody accepts connections on `port` of one of `hosts`; resolves with that host, or with null when
 * `signal` aborts. The function needs nothing but to listen.
 */
export async function untilListening(
  hosts: readonly string[],
  port: number,
  signal: AbortSignal,
): Promise<string | null> {
  for (let wait = FIRST_WAIT_MS; !signal.aborted; wait = Math.min(wait * 2, LONGEST_WAIT_MS)) {
    for (const host of hosts) if (await accepts(host, port)) return host;
    await new Promise((resolve) => setTimeout(resolve, wait));
  }
  return null;
}

/** `localhost` without a resolver: an image may lack /etc/hosts, and servers bind either family under that name. */
export function addressesOf(host: string): readonly string[] {
  return host.toLowerCase() === "localhost" ? ["127.0.0.1", "::1"] : [host];
}

function accepts(host: string, port: number): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const wire = connect(
    { host, port },
    {
      wireData() {},
      wireEnd() {},
      wireDrain() {},
      wireOpen() {
        resolve(true);
        wire.destroy();
      },
      wireClose: () => resolve(false),
    },
  );
  const limit = setTimeout(() => wire.destroy(), CONNECT_MS);
  return promise.finally(() => clearTimeout(limit));
}
