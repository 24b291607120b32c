/** The API on a real HTTP server, on functions and stores that a test brings. */
import { once } from "node:events";
import { createServer, request } from "node:http";
import type { AddressInfo } from "node:net";
import { type ApiOptions, openApi } from "../../src/admin/api.ts";
import { systemClock } from "../../src/base/clock.ts";
import { openLog } from "../../src/base/log.ts";
import { Namespaces } from "../../src/functions/namespaces.ts";
import { Secrets } from "../../src/functions/secrets.ts";
import type { NamespaceStore } from "../../src/store/namespaces.ts";
import type { SecretStore } from "../../src/store/secrets.ts";
import { Cron } from "../../src/trigger/cron.ts";
import type { FakeBackend } from "./backend.ts";

/** A value of Authorization. */
export const basic = (user: string, password: string, scheme = "Basic") =>
  `${scheme} ${Buffer.from(`${user}:${password}`).toString("base64")}`;
/** The one that the API takes. */
export const right = basic("admin", "pass:word");

export interface ApiParts {
  functions: Pick<ApiOptions["functions"], "deploy" | "remove" | "scale" | "list" | "get" | "occupants" | "logs">;
  namespaces: NamespaceStore;
  secrets: SecretStore;
  backend: FakeBackend;
  /** Without it, the backend's. */
  images?: ApiOptions["images"];
}

export interface Ask {
  body?: unknown;
  headers?: Record<string, string>;
  /** Null: no Authorization header. */
  authorization?: string | null;
}

export interface ServedApi extends AsyncDisposable {
  /** A body that is no text and no bytes is sent as JSON; nothing adds a Content-Type. */
  ask(
    method: string,
    path: string,
    how?: Ask,
  ): Promise<{ status: number; headers: Record<string, string>; text: string }>;
  readonly port: number;
}

const yearly = { topic: "cron-function", schedule: "@yearly" };

/** `overwrite`: whether POST replaces secrets. The default namespace is fn. */
export async function serveApi(
  parts: ApiParts,
  { overwrite = false, ...more }: Partial<ApiOptions> & { overwrite?: boolean } = {},
): Promise<ServedApi> {
  const { functions, backend } = parts;
  const log = openLog("silent");
  const namespaces = new Namespaces({
    ...{ store: parts.namespaces, secrets: parts.secrets, backend, defaultNamespace: "fn", log },
    occupants: (name) => functions.occupants(name),
  });
  const listener = await openApi({
    functions: functions as ApiOptions["functions"],
    secrets: new Secrets({ store: parts.secrets, namespaces, backend, overwrite }),
    namespaces,
    images: parts.images ?? backend.images,
    usage: async () => ({ cpu: 12.5, totalMemoryBytes: 4096 }),
    credentials: { user: "admin", password: "pass:word" },
    queue: {
      list: async () => [],
      get: async () => [],
      cancel: async () => {},
      retry: async () => {},
      result: async () => [],
      depths: async () => [],
    },
    cron: new Cron({
      functions: () => [{ id: { name: "tick", namespace: "fn" }, annotations: yearly }],
      ...{ records: { load: () => [], save: () => {} }, deliver: async () => ({ status: 200 }) },
      ...{ timeZone: "UTC", clock: systemClock, log },
    }),
    countRequest: () => {},
    stopping: new AbortController().signal,
    clock: systemClock,
    defaultNamespace: "fn",
    upsert: false,
    providerName: "napd",
    functionLabel: false,
    release: { version: "1.2.3", sha: "0123abc", commitMessage: "A change" },
    log,
    ...more,
  });
  const server = createServer(listener).listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  return {
    port,
    async ask(method, path, { body, headers = {}, authorization = right } = {}) {
      const bytes =
        body === undefined || typeof body === "string" || Buffer.isBuffer(body) ? body : JSON.stringify(body);
      const req = request({ port, host: "127.0.0.1", method, path, agent: false });
      if (authorization !== null) req.setHeader("Authorization", authorization);
      for (const [name, value] of Object.entries(headers)) req.setHeader(name, value);
      if (bytes !== undefined) req.setHeader("Content-Length", Buffer.byteLength(bytes));
      req.on("error", () => {}); // an answer before the end of a body that is too big
      req.end(bytes);
      const [res] = await once(req, "response");
      let text = "";
      for await (const chunk of res) text += chunk;
      return { status: res.statusCode, headers: res.headers, text };
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
