import { readFileSync } from "node:fs";

/**
 * Places where a test can make napd die or fail, to prove that nothing stays half done: `NAPD_FAILPOINTS` holds
 * `name=exit` (dies as by kill -9) or `name=error` (throws, once), separated by commas; or `@FILE`, a file that holds
 * them and is read anew at each point, so that a test can arm a napd that runs. Without it a point costs one comparison.
 */
const setting = process.env.NAPD_FAILPOINTS ?? "";
let text = "";
let armed = new Map<string, string>();

export function failpoint(name: string): void {
  if (setting === "") return;
  arm(setting.startsWith("@") ? readFileSync(setting.slice(1), "utf8") : setting);
  const action = armed.get(name);
  if (action === "exit") process.kill(process.pid, "SIGKILL");
  if (action === "error") {
    armed.delete(name);
    throw new Error(`failpoint ${name}`);
  }
}

function arm(points: string): void {
  if (points === text) return; // what has failed does not fail again
  text = points;
  armed = new Map(
    points
      .split(",")
      .map((point) => point.trim())
      .filter((point) => point !== "")
      .map((point) => point.split("=") as [string, string]),
  );
}
