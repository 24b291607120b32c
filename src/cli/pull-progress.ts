import { setTimeout as delay } from "node:timers/promises";
import { parsed } from "./answers.ts";
import type { Deployment } from "./deployment.ts";
import type { Gateway } from "./gateway.ts";

interface Pull {
  name: string;
  phase: "resolve" | "download" | "unpack";
  doneBytes: number;
  totalBytes: number;
}

/**
 * While a deploy is waited for: tells how far the pull of its image is, as napd knows it. Of other gateways, and after
 * anything odd, it tells nothing.
 */
export function tellPull(
  gateway: Gateway,
  { image, namespace }: Pick<Deployment, "image"> & { readonly namespace?: string | undefined },
  tell: (text: string) => void,
): Disposable {
  const over = new AbortController();
  const path = "/system/images/pulls";
  const name = /[:@][^/]*$/.test(image) ? image : `${image}:latest`;
  const work = async () => {
    for (;;) {
      await delay(300, undefined, { signal: over.signal });
      const reply = await gateway.request("GET", path, { query: { namespace } });
      if (reply.status !== 200 || over.signal.aborted) return;
      const pulls = parsed<Pull[]>(gateway.url + path, reply, "objects");
      const pull = pulls.find((p) => p.name === name || p.name.endsWith(`/${name}`));
      if (pull) tell(phrase(pull));
    }
  };
  work().catch(() => {});
  return { [Symbol.dispose]: () => over.abort() };
}

function phrase({ phase, doneBytes, totalBytes }: Pull): string {
  if (phase === "resolve") return "asking the registry for the image";
  if (phase === "unpack") return "unpacking the image";
  const mib = (bytes: number) => (bytes / 2 ** 20).toFixed(1);
  return `pulling the image: ${mib(doneBytes)} of ${mib(totalBytes)} MiB`;
}
