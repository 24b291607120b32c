/**
 * Places where a test can make napd die or fail, to prove that nothing stays half done: `NAPD_FAILPOINTS` holds
 * `name=exit` (dies as by kill -9) or `name=error` (throws, once), separated by commas. Without it a point costs one
 * comparison.
 */
const armed = new Map(
  (process.env.NAPD_FAILPOINTS ?? "")
    .split(",")
    .filter((text) => text !== "")
    .map((text) => text.split("=") as [string, string]),
);

export function failpoint(name: string): void {
  if (armed.size === 0) return;
  const action = armed.get(name);
  if (action === "exit") process.kill(process.pid, "SIGKILL");
  if (action === "error") {
    armed.delete(name);
    throw new Error(`failpoint ${name}`);
  }
}
