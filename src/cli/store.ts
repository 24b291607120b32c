import { refused } from "./answers.ts";
import type { Context } from "./context.ts";
import { Failure, wrongUsage } from "./failure.ts";
import { connect, type Gateway } from "./gateway.ts";
import { remark } from "./output.ts";
import type { StackFunction } from "./stack.ts";

/** A function of a store; contracts/cli.md §5. */
export interface StoreFunction {
  title: string;
  name: string;
  description?: string;
  author?: string;
  /** By platform: x86_64, arm64, armhf. */
  images: Record<string, string>;
  repo_url?: string;
  fprocess?: string;
  environment?: Record<string, string>;
  labels?: Record<string, string>;
  annotations?: Record<string, string>;
  readOnlyRootFilesystem?: boolean;
}

export const defaultStore = "https://raw.githubusercontent.com/openfaas/store/master/functions.json";

const platforms: Record<string, string> = {
  x64: "x86_64",
  arm64: "arm64",
  arm: "armhf",
  amd64: "x86_64",
  aarch64: "arm64",
  "linux/amd64": "x86_64",
  "linux/arm64": "arm64",
  "linux/arm/v7": "armhf",
  "linux/arm/v6": "armhf",
};

/** As stores call it: this machine's, or what somebody gave. */
export const platformName = (given: string = process.arch): string => platforms[given.toLowerCase()] ?? given;

/** Which store is meant. */
export interface StoreFlags {
  url?: string;
  builtin?: boolean;
}

/** Somebody waits for it, and there is another one. */
const defaultStoreTimeoutMs = 5000;

/**
 * Functions of the store that the flag or OPENFAAS_STORE names, else of OpenFaaS' own. Where that one cannot be read,
 * of the one that comes with nap, and says so.
 */
export async function readStore(
  context: Context,
  { url: given, builtin }: StoreFlags,
): Promise<readonly StoreFunction[]> {
  if (builtin && given !== undefined) throw wrongUsage("give --url or --builtin, not both");
  const url = given ?? (builtin ? undefined : context.env.OPENFAAS_STORE || undefined);
  if (url !== undefined) return fetchStore(context, url);
  const { builtinStore } = await import("./store-list.ts");
  if (builtin) return builtinStore;
  return fetchStore(context, defaultStore, defaultStoreTimeoutMs).catch((e) => {
    if (!(e instanceof Failure)) throw e;
    remark(context, `${e.message}\nnap: these are the functions that come with nap; --builtin asks for them at once`);
    return builtinStore;
  });
}

async function fetchStore(context: Context, url: string, timeoutMs?: number): Promise<StoreFunction[]> {
  if (!/^https?:$/.test(URL.parse(url)?.protocol ?? "")) throw wrongUsage(`store ${url} is no URL of http or https`);
  const reply = await connect(context, { url, timeoutMs }).request("GET", "");
  if (reply.status !== 200) throw refused(url, reply);
  try {
    // the older form is the bare array
    const value = JSON.parse(reply.text) as StoreFunction[] | { functions: StoreFunction[] };
    const all = Array.isArray(value) ? value : value.functions;
    return all.filter((f) => typeof f?.name === "string" && typeof f.images === "object" && f.images !== null);
  } catch {
    throw new Failure(`${url} is no function store: it is to be JSON with a list of functions`);
  }
}

/** Of the machine where functions will run, as its gateway tells it; this one's if it does not. */
export async function gatewayPlatform(gateway: Gateway): Promise<string> {
  const reply = await gateway.request("GET", "/system/info");
  if (reply.status === 401) throw refused(gateway.url, reply);
  const arch = /"arch":\s*"([^"]+)"/.exec(reply.text)?.[1];
  return platformName(reply.status === 200 ? arch : undefined);
}

/** Platforms are found in any case. */
export const imageFor = ({ images }: StoreFunction, platform: string): string | undefined =>
  Object.entries(images).find(([key]) => key.toLowerCase() === platform.toLowerCase())?.[1];

export function findInStore(
  all: readonly StoreFunction[],
  name: string,
  platform: string,
): StoreFunction & { image: string } {
  const found = all.find((f) => f.name === name || f.title === name);
  if (!found) throw new Failure(`the store has no function ${name}; nap store list shows what it has`);
  const image = imageFor(found, platform);
  if (!image)
    throw new Failure(
      `${name} is not there for ${platform}, but for ${Object.keys(found.images).join(", ")} (--platform)`,
    );
  return { ...found, image };
}

/** What a deploy takes from it. */
export const storeBase = (f: StoreFunction & { image: string }): Partial<StackFunction> => ({
  name: f.name,
  image: f.image,
  ...(f.fprocess && { fprocess: f.fprocess }),
  environment: f.environment ?? {},
  labels: f.labels ?? {},
  annotations: f.annotations ?? {},
  readOnly: f.readOnlyRootFilesystem ?? false,
});
