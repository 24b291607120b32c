/**
 * Why a command ends without having done its work: a sentence for people, and the exit code. 1: it could not be done;
 * 2: it was asked for in a way that makes no sense. These stay apart from the daemon's catalogue, whose errors have
 * HTTP statuses and codes that clients see.
 */
export class Failure extends Error {
  readonly exitCode: number;

  constructor(message: string, exitCode = 1) {
    super(message);
    this.exitCode = exitCode;
  }
}

export const wrongUsage = (message: string): Failure => new Failure(message, 2);
