import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";

/** Stands in for systemd: prints each datagram that comes, its lines joined by `|`. Node has no such sockets. */
const program = `
use IO::Socket::UNIX; use Socket; $| = 1;
my $s = IO::Socket::UNIX->new(Type => SOCK_DGRAM, Local => $ARGV[0]) or die;
while (defined $s->recv(my $m, 8192)) { $m =~ s/\\n/|/g; print "$m\\n"; }
`;

export interface NotifyReceiver extends AsyncDisposable {
  /** What has come so far, without the sender's process. */
  readonly messages: readonly string[];
  readonly pids: readonly number[];
  /** Waits until a message came for which that is so. */
  until(isIt: (message: string) => boolean): Promise<void>;
}

/** Listens on a socket at `path` for messages of sd_notify(3). */
export async function openNotifyReceiver(path: string): Promise<NotifyReceiver> {
  const perl = spawn("perl", ["-e", program, path], { stdio: ["ignore", "pipe", "inherit"] });
  const messages: string[] = [];
  const pids: number[] = [];
  const lines = createInterface(perl.stdout);
  lines.on("line", (line) => {
    messages.push(line.replace(/^MAINPID=(\d+)\|/, ""));
    pids.push(Number(/^MAINPID=(\d+)\|/.exec(line)?.[1]));
  });
  const until = async (condition: () => boolean, what: string): Promise<void> => {
    const end = performance.now() + 30_000;
    while (!condition()) {
      if (performance.now() > end) throw new Error(`${what} did not come; there is ${JSON.stringify(messages)}`);
      await delay(10);
    }
  };
  await until(() => existsSync(path), path);
  return {
    messages,
    pids,
    until: (isIt) => until(() => messages.some(isIt), String(isIt)),
    async [Symbol.asyncDispose]() {
      perl.kill();
      await once(perl, "close");
    },
  };
}
