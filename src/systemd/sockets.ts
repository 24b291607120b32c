import { AppError } from "../base/errors.ts";

/** A listening socket that napd was started with. */
export interface InheritedSocket {
  readonly fd: number;
  /** As the socket unit calls it (`FileDescriptorName`); without, the unit's own name. */
  readonly name: string;
}

/** The first one that is passed: sd_listen_fds(3). */
const firstFd = 3;

/**
 * The sockets of socket activation, in the order in which the unit lists them; none when napd was started otherwise.
 * Takes the variables out of `environment`: they are not for the programs that napd starts, and neither are the
 * sockets, which Node closes for these.
 */
export function inheritedSockets(environment: NodeJS.ProcessEnv): readonly InheritedSocket[] {
  const { LISTEN_PID: pid, LISTEN_FDS: fds = "0", LISTEN_FDNAMES: names = "" } = environment;
  for (const name of ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"]) delete environment[name];
  if (Number(pid) !== process.pid) return [];
  if (!/^\d{1,4}$/.test(fds)) throw new AppError("CONFIG", [`environment variable LISTEN_FDS: "${fds}" is no number`]);
  const named = names.split(":");
  return Array.from({ length: Number(fds) }, (_, i) => ({ fd: firstFd + i, name: named[i] ?? "" }));
}
