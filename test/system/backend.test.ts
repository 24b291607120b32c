/** This machine sits the exam of the backend: on a containerd, a bridge, a cgroup and directories of its own. */
import { randomInt } from "node:crypto";
import { mkdir, readdir, writeFile } from "node:fs/promises";
import { openContainerd as openPrivateContainerd } from "../../scripts/private-containerd.ts";
import { systemClock } from "../../src/base/clock.ts";
import { openLog } from "../../src/base/log.ts";
import { hostAddress, parseSubnet } from "../../src/base/subnet.ts";
import { loadConfig } from "../../src/config.ts";
import { hostBackend } from "../../src/host/backend.ts";
import { removeParentGroups } from "../../src/host/cgroup.ts";
import { jsonAny } from "../../src/host/containerd/channel.ts";
import { openContainerd } from "../../src/host/containerd/client.ts";
import { labels, namesOf } from "../../src/host/context.ts";
import { run } from "../../src/host/exec.ts";
import { openFreezer } from "../../src/host/freezer.ts";
import { Disk } from "../../src/host/image/disk.ts";
import { ensureNamespaces } from "../../src/host/namespaces.ts";
import { ensureBridge, teardownBridge, uplinkMtu } from "../../src/host/net/bridge.ts";
import { Cni } from "../../src/host/net/cni.ts";
import { ensureFirewall, teardownFirewall } from "../../src/host/net/firewall.ts";
import * as netns from "../../src/host/net/netns.ts";
import { hostsText, resolvConfText } from "../../src/host/net/resolv.ts";
import { HolePuncher } from "../../src/host/punch.ts";
import { SecretCopies } from "../../src/host/secrets.ts";
import { Logs } from "../../src/logs/logs.ts";
import { openImages } from "../../src/machine.ts";
import { backendContract, type Candidate } from "../contract/backend.ts";
import { webImage } from "../support/images.ts";
import { tmpDir } from "../support/tmp.ts";

backendContract("this machine", openCandidate);

/** The steps of src/machine.ts. */
async function openCandidate(): Promise<Candidate> {
  await using up = new AsyncDisposableStack();
  const { path: dir } = up.use(await tmpDir());
  const id = `nt${randomInt(0x10000, 0xfffff).toString(16)}`;
  const own = up.use(await openPrivateContainerd({ dir: `${dir}/c`, runDir: `${dir}/r` }));
  up.defer(() => own.killLeftShims());
  const flags = {
    "containerd.socket": own.socket,
    "containerd.runc_root": `${dir}/runc`,
    "cgroup.parent": id,
    "paths.data": `${dir}/data`,
    "paths.run": `${dir}/run`,
    "paths.logs": `${dir}/logs`,
    "network.bridge": id,
    "network.subnet": `10.${randomInt(200, 250)}.${randomInt(0, 255)}.0/24`,
    "functions.namespace": `fn-${id}`,
  };
  const config = loadConfig({
    file: `${dir}/none.ini`,
    fileIsRequired: false,
    environment: {},
    flags: Object.entries(flags).map(([key, value]) => `${key}=${value}`),
  });
  const { paths, network } = config;
  const { namespace } = config.functions;
  const cidr = network.subnet;
  const gateway = hostAddress(parseSubnet(cidr));
  const log = openLog("silent");

  const containerd = up.use(await openContainerd({ socket: own.socket, snapshotter: config.containerd.snapshotter }));
  await ensureNamespaces(containerd, id, [namespace]);
  const mtu = await uplinkMtu();
  up.defer(() => teardownBridge(id));
  await ensureBridge({ name: id, subnet: cidr, mtu });
  up.defer(() => teardownFirewall(id));
  await ensureFirewall({ bridge: id, subnet: cidr, address: gateway, gatewayPort: 8080 });
  await mkdir(paths.run, { recursive: true, mode: 0o700 });
  await writeFile(`${paths.run}/resolv.conf`, resolvConfText(gateway));
  await writeFile(`${paths.run}/hosts`, hostsText());
  const cni = await Cni.open({
    stateDir: paths.run,
    bridge: id,
    subnet: cidr,
    gateway,
    mtu,
    pluginDirs: network.plugins,
  });
  const used: Candidate["used"] = [];
  const keeper = {
    disk: new Disk({ imageDirs: [dir], dataDir: dir, reserve: 0 }),
    ...{ gcHigh: 100, gcLow: 100, gcMinAgeMs: 0, namespaces: () => [namespace], used: () => used },
  };
  const images = up.use(await openImages(config, containerd, log, keeper));
  up.defer(() => removeParentGroups(id));
  const settings = {
    runDir: paths.run,
    uploadsDir: `${dir}/uploads`,
    maxUploadBytes: config.images.max_upload,
    pullPolicy: config.images.pull_policy,
    watchdogDir: `${import.meta.dirname}/../../dist/watchdog-linux-${process.arch}`,
    bridge: id,
    cgroupParent: id,
    runcRoot: config.containerd.runc_root,
    pidsLimit: config.functions.pids_limit,
  };
  const puncher = up.use(new HolePuncher());
  const logs = up.use(
    await Logs.open({
      ...{ dir: paths.logs, maxFileBytes: 2 ** 20, maxTotalBytes: 2 ** 24, minFreeBytes: 2 ** 20 },
      ...{ punch: (file, length) => puncher.punch(file, length), clock: systemClock, log },
    }),
  );
  const secrets = new Map<string, string>();
  const host = {
    ...{ settings, containerd, images, cni, logs, log },
    freezer: openFreezer({ tasks: containerd.tasks, by: "cgroup", pageOut: false, clock: systemClock, log }),
    clock: systemClock,
    secrets: new SecretCopies(paths.run, async (_, name) => {
      const text = secrets.get(name);
      return text === undefined ? undefined : Buffer.from(text);
    }),
    namespaces: () => [namespace],
  };
  const backend = hostBackend(host);
  up.defer(async () => {
    for (const replica of await backend.list()) await backend.stop(replica, 0);
  });

  const refs = {
    web: "docker.io/library/web:1",
    exits: "docker.io/library/exits:1",
    broken: "docker.io/library/broken:1",
    spare: "docker.io/library/spare:1",
    absent: "docker.io/library/absent:1",
  };
  const script = "echo first words; echo last words; exit 7";
  await images.import(namespace, await webImage(`${dir}/web.tar`, refs.web, "hello\n"));
  const cmd = ["busybox", "sh", "-c", script];
  await images.import(namespace, await webImage(`${dir}/exits.tar`, refs.exits, "", { cmd }));
  await images.import(namespace, await webImage(`${dir}/spare.tar`, refs.spare, "spare\n"));
  await images.import(namespace, await webImage(`${dir}/broken.tar`, refs.broken, "", { cmd: ["/no/such/program"] }));

  async function traces(): Promise<string[]> {
    const options = { namespace };
    const [containers, tasks, snapshots, leases] = await Promise.all([
      containerd.containers.listLabelled(labels.fn, options),
      containerd.tasks.list(options),
      containerd.snapshots.list(options),
      containerd.leases.listOurs(namespace),
    ]);
    const links = (await run("ip", ["-o", "link", "show", "master", id])).split("\n").filter((line) => line !== "");
    return [
      ...containers.map((c) => `container ${c.id}`),
      ...tasks.map((t) => `task ${t.id}`),
      ...snapshots.filter((s) => s.kind !== "COMMITTED").map((s) => `snapshot ${s.name}`),
      ...leases.map((l) => `lease ${l}`),
      ...(await netns.list(`${id}.`)).map((n) => `namespace ${n}`),
      ...links.map((line) => `interface ${line.split(":")[1]}`),
      ...[...cni.stored().keys()].map((key) => `attachment ${key}`),
      ...(await entries(`${paths.run}/cni/ipam/${id}`)).filter((f) => f.startsWith("10.")).map((f) => `address ${f}`),
      ...(await entries(`${paths.run}/secrets`)).map((f) => `secrets ${f}`),
      ...(await groups(id)).map((g) => `cgroup ${g}`),
    ].sort();
  }

  const stack = up.move();
  return {
    backend,
    used,
    namespace,
    images: refs,
    secrets,
    traces,
    /** As far as a start comes before its task: network, snapshot and container record. */
    async halfMake(replica) {
      const names = namesOf(settings, replica);
      const image = (await images.resolve(namespace, await backend.prepare(namespace, refs.web, "Never")))!;
      await netns.create(names.netns);
      await cni.add(names.host, names.netns);
      await containerd.snapshots.prepare(names.snapshot, image.chainId, {}, { namespace });
      await containerd.containers.create(
        {
          id: names.container,
          labels: {
            [labels.fn]: replica.name,
            [labels.generation]: String(replica.generation),
            [labels.number]: String(replica.number),
          },
          image: image.ref,
          runtime: { name: "io.containerd.runc.v2" },
          spec: jsonAny("types.containerd.io/opencontainers/runtime-spec/1/Spec", {}),
          snapshotter: containerd.snapshots.snapshotter,
          snapshot_key: names.snapshot,
        },
        { namespace },
      );
    },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

async function entries(dir: string): Promise<string[]> {
  return readdir(dir).catch(() => []);
}

/** Groups of containers, in any tree: PARENT/NAMESPACE/CONTAINER. */
async function groups(parent: string): Promise<string[]> {
  const found: string[] = [];
  for (const tree of ["", ...(await entries("/sys/fs/cgroup"))])
    for (const namespace of await entries(`/sys/fs/cgroup/${tree}/${parent}`))
      for (const container of await entries(`/sys/fs/cgroup/${tree}/${parent}/${namespace}`))
        if (/\.\d+\.\d+$/.test(container)) found.push(`${tree} ${container}`);
  return found;
}
