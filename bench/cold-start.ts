import { execFile } from "node:child_process";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import { freePort } from "../test/support/free-port.ts";
import { webImage } from "../test/support/images.ts";
import { eventually, openWorld, type World } from "../test/support/world.ts";
import { type Measurement, summary, timed } from "./measure.ts";

const run = promisify(execFile);
const rounds = 20;
const image = "docker.io/library/web:1";

/**
 * From a request to its 200, with the image present and no container: a call of a function that is scaled to zero.
 * Beside it a plain `ctr run` of the same image, until it answers (with the host's network: nothing to set up) and
 * until ctr says that it has started; and the same image with our watchdog in it, which runs a process for the call.
 * They take turns, so that the machine's moods hit them alike.
 */
export async function coldStart(): Promise<Measurement[]> {
  await using world = await openWorld();
  await world.start({ "functions.grace": "50ms", "images.pull_policy": "Never", "scale.stop_after": "0s" });
  await world.import(await webImage(`${world.dir}/web.tar`, image, "hello\n"));
  await world.api("POST", "/system/functions", { service: "web", image });
  await world.api("POST", "/system/functions", { service: "injected", image, envProcess: "true" });
  const napd: number[] = [];
  const injected: number[] = [];
  const answers: number[] = [];
  const started: number[] = [];
  for (let i = 0; i < rounds; i++) {
    await asleep(world);
    napd.push(await timed(() => ok(`${world.url}/function/web`)));
    await asleep(world);
    injected.push(await timed(() => ok(`${world.url}/function/injected`)));
    const plain = await ctrRun(world, i);
    answers.push(plain.answered);
    started.push(plain.started);
  }
  return summary("cold start, request to first 200", {
    napd,
    "napd, our watchdog injected": injected,
    "ctr run to first 200": answers,
    "ctr run -d": started,
  });
}

async function asleep(world: World): Promise<void> {
  for (const name of ["web", "injected"])
    await world.api("POST", `/system/scale-function/${name}`, { serviceName: name, replicas: 0 });
  await eventually(
    () => world.ctr("containers", "list", "--quiet"),
    (list) => list.trim() === "",
  );
  await delay(100); // what the removal left for the kernel to do is not part of the next start
}

async function ok(url: string): Promise<void> {
  const response = await fetch(url);
  if (response.status !== 200) throw new Error(`${url} answered ${response.status}: ${await response.text()}`);
  await response.arrayBuffer();
}

async function ctrRun(world: World, round: number): Promise<{ started: number; answered: number }> {
  const port = await freePort();
  const id = `plain-${round}`;
  const command = ["busybox", "httpd", "-f", "-p", `127.0.0.1:${port}`, "-h", "/www"];
  const begin = performance.now();
  await world.ctr("run", "--detach", "--net-host", "--runc-root", `${world.dir}/runc`, image, id, ...command);
  const started = performance.now() - begin;
  await eventually(
    () =>
      ok(`http://127.0.0.1:${port}/`).then(
        () => true,
        () => false,
      ),
    (up) => up,
  );
  const answered = performance.now() - begin;
  await world.ctr("tasks", "kill", "--signal", "SIGKILL", id);
  await eventually(
    () => world.ctr("tasks", "list"),
    (list) => list.includes("STOPPED") || !list.includes(id),
  );
  await world.ctr("tasks", "delete", id).catch(() => {});
  await run("ctr", ["--address", world.containerd.socket, "--namespace", world.namespace, "containers", "delete", id]);
  return { started, answered };
}
