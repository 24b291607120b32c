import type { Context } from "./context.ts";
import { Failure } from "./failure.ts";
import { connect, refused } from "./gateway.ts";
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
  "linux/amd64": "x86_64",
  "linux/arm64": "arm64",
  "linux/arm/v7": "armhf",
  "linux/arm/v6": "armhf",
};

/** As stores call it: this machine's, or what somebody gave. */
export const platformName = (given: string = process.arch): string => platforms[given.toLowerCase()] ?? given;

export async function readStore(context: Context, given: string | undefined): Promise<StoreFunction[]> {
  const url = given ?? context.env.OPENFAAS_STORE ?? defaultStore;
  if (!URL.canParse(url)) throw new Failure(`store ${url} is no URL`, 2);
  const reply = await connect(context, { url }).request("GET", "");
  if (reply.status !== 200) throw refused(url, reply);
  try {
    // the older form is the bare array
    const value = JSON.parse(reply.text) as StoreFunction[] | { functions: StoreFunction[] };
    const all = Array.isArray(value) ? value : value.functions;
    return all.filter((f) => typeof f.name === "string" && typeof f.images === "object" && f.images !== null);
  } catch {
    throw new Failure(`${url} is no function store`);
  }
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
