import { execFile } from "node:child_process";
import { once } from "node:events";
import { access } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { resolve } from "node:path";
import { promisify } from "node:util";
import { tmpDir } from "../test/support/tmp.ts";
import { type Measurement, quantile, timed } from "./measure.ts";

const run = promisify(execFile);
const rounds = 20;
const status = (name: string) => ({
  ...{ name, namespace: "openfaas-fn", image: "registry.example/web:1", invocationCount: 7, replicas: 1 },
  ...{ availableReplicas: 1, createdAt: "2026-01-01T00:00:00Z", state: "Asleep" },
});

/**
 * `nap list` of ten functions from start to end, beside Node that does nothing; from the sources and, where there is
 * one (NAP_BUNDLE, else that of the last release), from the bundle. The gateway answers at once: it is not measured.
 */
export async function napStart(): Promise<Measurement[]> {
  await using home = await tmpDir();
  const body = JSON.stringify(Array.from({ length: 10 }, (_, i) => status(`function-${i}`)));
  const server = createServer((_, response) => response.end(body)).listen(0, "127.0.0.1");
  await once(server, "listening");
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const env = { PATH: process.env.PATH, HOME: home.path };
  const program =
    (...args: string[]) =>
    () =>
      run(process.execPath, args, { cwd: home.path, env });
  const bundle = resolve(process.env.NAP_BUNDLE ?? `${import.meta.dirname}/../dist/release/lib/nap.mjs`);
  const hasBundle = await access(bundle).then(
    () => true,
    () => false,
  );
  const programs = {
    sources: program(`${import.meta.dirname}/../src/nap.ts`, "list", "-g", url),
    ...(hasBundle && { bundle: program(bundle, "list", "-g", url) }),
    "node -e 0": program("-e", "0"),
  };
  const took = Object.fromEntries(Object.keys(programs).map((name): [string, number[]] => [name, []]));
  try {
    // in turn, so that a busy moment of the machine is one for all of them
    for (let i = 0; i < rounds; i++)
      for (const [name, work] of Object.entries(programs)) took[name]!.push(await timed(work));
  } finally {
    server.close();
  }
  const median = (name: string) => +quantile(took[name]!, 0.5).toFixed(0);
  const peers = Object.keys(programs).filter((name) => name !== "sources");
  return [
    {
      name: "nap list, start to end, p50",
      unit: "ms",
      value: median("sources"),
      peers: Object.fromEntries(peers.map((name) => [name, median(name)])),
    },
  ];
}
