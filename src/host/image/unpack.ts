import { randomBytes } from "node:crypto";
import { AppError, messageOf } from "../../base/errors.ts";
import type { Mount } from "../containerd/types.ts";
import { run } from "../exec.ts";
import { chainIds, type Entry, toDescriptor } from "./manifest.ts";
import { extractPrefix, type Scope, type Tools } from "./tools.ts";

/** One layer, its content and what it becomes. */
interface Step {
  readonly layer: Entry;
  readonly diffId: string;
  readonly chain: string;
  readonly parent: string;
}

/**
 * Unpacks layers that are in the content store into snapshots, and answers with the chain id of the last one ("" for
 * an image without layers). What is unpacked already is left alone. contracts/containerd.md §3, "Unpack".
 * Throws IMAGE_DIGEST_MISMATCH, CONTAINERD, or the signal's reason.
 */
export async function unpack(
  tools: Tools,
  scope: Scope,
  layers: readonly Entry[],
  diffIds: readonly string[],
  signal: AbortSignal,
): Promise<string> {
  const { leases, snapshots, content } = tools.containerd;
  const chain = chainIds(diffIds);
  const last = chain.at(-1) ?? "";
  if (last === "") return "";
  // Before looking: a snapshot that nobody else keeps any more must not go between the look and the image record.
  await leases.hold(scope.namespace, scope.lease, { id: last, type: `snapshots/${snapshots.snapshotter}` });
  if (await snapshots.stat(last, { namespace: scope.namespace })) return last;

  for (const [i, layer] of layers.entries()) {
    const step = { layer, diffId: diffIds[i]!, chain: chain[i]!, parent: chain[i - 1] ?? "" };
    // Images that share layers and are pulled at once: the second waits and finds them done.
    await tools.chains.run(`${scope.namespace} ${step.chain}`, () => unpackOne(tools, scope, step, signal));
    const label = { "containerd.io/uncompressed": step.diffId };
    await content.label(layer.digest, label, { namespace: scope.namespace });
  }
  return last;
}

async function unpackOne(tools: Tools, scope: Scope, step: Step, signal: AbortSignal): Promise<void> {
  const { leases, snapshots, diff } = tools.containerd;
  const call = { namespace: scope.namespace, lease: scope.lease, signal };
  signal.throwIfAborted();
  const resource = { id: step.chain, type: `snapshots/${snapshots.snapshotter}` };
  await leases.hold(scope.namespace, scope.lease, resource);
  if (await snapshots.stat(step.chain, call)) return;

  const key = `${extractPrefix}${tools.mark}-${randomBytes(6).toString("hex")} ${step.chain}`;
  try {
    const labels = { "containerd.io/snapshot.ref": step.chain };
    const mounts = await snapshots.prepare(key, step.parent, labels, call);
    const applied = await diff.apply(toDescriptor(step.layer), mounts, call);
    if (applied.digest !== step.diffId)
      throw new AppError("IMAGE_DIGEST_MISMATCH", [scope.ref, step.diffId, `the unpacked layer ${step.layer.digest}`]);
    await writeOut(mounts, signal);
    await snapshots.commit(step.chain, key, labels, call);
  } catch (e) {
    await snapshots.remove(key, { namespace: scope.namespace }).catch((again) => {
      tools.log.warn({ namespace: scope.namespace, key, err: messageOf(again) }, "half-unpacked layer not removed");
    });
    throw e;
  }
}

/**
 * Has what was unpacked into a snapshot written to its disk. containerd itself does not, yet remembers at once that the
 * layer is there: after a power cut its files would be empty, and every later pull would take them for whole.
 */
async function writeOut(mounts: readonly Mount[], signal: AbortSignal): Promise<void> {
  const [mount] = mounts;
  const upper = mount?.options.find((option) => option.startsWith("upperdir="))?.slice("upperdir=".length);
  const dir = upper ?? (mount?.type === "bind" ? mount.source : undefined);
  // some snapshotters mount devices of their own, which cannot be reached from here
  if (dir !== undefined) await run("sync", ["-f", dir], { timeoutMs: 10 * 60_000, signal });
}
