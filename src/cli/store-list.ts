import type { StoreFunction } from "./store.ts";

const sameOnBoth = (name: string) => {
  const image = `ghcr.io/openfaas/${name}:latest`;
  return { x86_64: image, arm64: image };
};
const origin = { author: "openfaas", repo_url: "https://github.com/openfaas/store-functions" };

/**
 * The store that comes with nap, for machines that cannot reach one: functions of OpenFaaS' store that are public, and
 * there for both architectures that napd runs on.
 */
export const builtinStore: readonly StoreFunction[] = [
  {
    name: "nodeinfo",
    title: "NodeInfo",
    description:
      "Tells what the function sees of its machine: host name, processors, memory, uptime. A first smoke test.",
    images: sameOnBoth("nodeinfo"),
    ...origin,
  },
  {
    name: "alpine",
    title: "Alpine shell",
    description: "Runs one program of Alpine Linux for each call, cat unless --fprocess names another; so it echoes.",
    images: sameOnBoth("alpine"),
    fprocess: "cat",
    ...origin,
  },
  {
    name: "env",
    title: "Environment",
    description: "Answers with the environment of the process: settings of the function and headers of the call.",
    images: sameOnBoth("alpine"),
    fprocess: "env",
    ...origin,
  },
  {
    name: "shasum",
    title: "SHA-512",
    description: "Answers with the SHA-512 sum of what it is sent.",
    images: sameOnBoth("alpine"),
    fprocess: "sha512sum",
    ...origin,
  },
  {
    name: "sleep",
    title: "Sleep",
    description: "Answers after 2 seconds, or after the duration in header X-Sleep: to try timeouts and queues.",
    images: sameOnBoth("sleep"),
    ...origin,
  },
  {
    name: "figlet",
    title: "Figlet",
    description: "Writes what it is sent in letters made of letters.",
    images: sameOnBoth("figlet"),
    fprocess: "figlet",
    ...origin,
  },
  {
    name: "curl",
    title: "curl",
    description: "Runs curl with the arguments that it is sent: to see what functions can reach.",
    images: sameOnBoth("curl"),
    environment: { write_timeout: "60s" },
    readOnlyRootFilesystem: true,
    ...origin,
  },
  {
    name: "hey",
    title: "hey",
    description:
      "Makes many HTTP requests at once, with the arguments that it is sent, and sums up how long they took.",
    images: sameOnBoth("hey"),
    environment: { write_timeout: "60s" },
    readOnlyRootFilesystem: true,
    ...origin,
  },
  {
    name: "sentimentanalysis",
    title: "Sentiment analysis",
    description: "Says for English sentences how positive or negative, and how subjective they are.",
    images: sameOnBoth("sentimentanalysis"),
    ...origin,
  },
];
