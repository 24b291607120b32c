/**
 * What the kernel must be able to do, tried out and not guessed. Prints one line for each thing that is missing, with
 * its remedy, and exits with 1; prints nothing when all is well.
 */
import { runTrials } from "../src/doctor/trials.ts";

for (const { what, remedy, works } of await runTrials()) {
  if (works) continue;
  console.error(`napd: this machine lacks ${what}: ${remedy}`);
  process.exitCode = 1;
}
