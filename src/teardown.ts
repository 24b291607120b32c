import { existsSync } from "node:fs";
import { join } from "node:path";
import { systemClock } from "./base/clock.ts";
import type { Logger } from "./base/log.ts";
import type { Config } from "./config.ts";
import { claim } from "./daemon.ts";
import { ImagesInUse } from "./functions/images-in-use.ts";
import type { Version } from "./functions/managed.ts";
import { openHost } from "./machine.ts";
import { FunctionStore } from "./store/functions.ts";
import { NamespaceStore } from "./store/namespaces.ts";
import { openState } from "./store/state.ts";

/**
 * Removes what functions hold on this machine: containers, snapshots, networks, bridge, firewall rules, control
 * groups; with `everything` their images and containerd's namespaces as well, which can then not come back from what
 * is stored. napd must not run. Resolves with the number of replicas that there were.
 */
export async function removeFunctions(config: Config, log: Logger, everything: boolean): Promise<number> {
  await using up = new AsyncDisposableStack();
  up.use(await claim("paths.run", config.paths.run));
  up.use(await claim("paths.data", config.paths.data));
  const { rows, namespaces } = readState(config, everything);
  const { backend } = up.use(
    await openHost(
      { ...config, functions: { ...config.functions, on_stop: "remove" } },
      {
        gatewayPort: config.gateway.listen.port,
        namespaces: () => namespaces,
        isFunction: () => false,
        readSecret: async () => undefined,
        usedImages: () => [],
        clock: systemClock,
        log,
      },
    ),
  );
  const replicas = await backend.list();
  await Promise.all(replicas.map((replica) => backend.stop(replica, config.functions.grace)));
  await backend.sweep({ replicas: [], functions: rows, images: new ImagesInUse(() => rows).list() });
  if (everything) for (const namespace of namespaces) await backend.removeNamespace(namespace);
  return replicas.length;
}

/** Of a state that cannot be read, nothing, if nothing of it is to stay. */
function readState({ paths, functions }: Config, everything: boolean) {
  const none = { rows: [], namespaces: [functions.namespace] };
  if (!existsSync(join(paths.data, "state.db"))) return none;
  try {
    using db = openState(paths.data);
    const names = new NamespaceStore(db).names();
    return { rows: new FunctionStore<Version>(db).list(), namespaces: [...new Set([functions.namespace, ...names])] };
  } catch (e) {
    if (everything) return none;
    throw e;
  }
}
