/** What is installed beside the program: units and shell scripts, as the tools that know them judge. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { globSync, readFileSync } from "node:fs";
import { copyFile, readFile, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { suite, test } from "node:test";
import { promisify } from "node:util";
import { tmpDir } from "../support/tmp.ts";

const run = promisify(execFile);
const root = resolve(import.meta.dirname, "../..");
const units = globSync("systemd/*.{service,socket}", { cwd: root });

suite("units", () => {
  test("systemd-analyze finds nothing wrong with them", async () => {
    await using tmp = await tmpDir();
    const files = units.map((unit) => join(tmp.path, unit.replace(/.*\//, "")));
    for (const [i, unit] of units.entries()) await copyFile(join(root, unit), files[i]!);
    // only of an installed program it can be seen that it can be run
    const service = join(tmp.path, "napd.service");
    const text = await readFile(service, "utf8");
    const start = "ExecStart=/opt/napd/current/bin/napd\n";
    assert.ok(text.includes(start));
    await writeFile(service, text.replace(start, "ExecStart=/bin/true\n"));
    const { stdout, stderr } = await run("systemd-analyze", ["verify", "--man=no", ...files]);
    assert.equal(stdout + stderr, "");
  });

  test("the service has no mount namespace of its own, or containerd could not see our network namespaces", async () => {
    const text = await readFile(join(root, "systemd/napd.service"), "utf8");
    const makesOne =
      /^(Private(Tmp|Devices|Mounts|IPC)|Protect(System|Home|KernelTunables|KernelModules|KernelLogs|ControlGroups|Proc)|ProcSubset|RootDirectory|RootImage|(ReadOnly|ReadWrite|Inaccessible|Exec|NoExec|Bind|BindReadOnly)Paths|TemporaryFileSystem|MountFlags|DynamicUser)=/m;
    assert.doesNotMatch(text, makesOne);
  });

  test("docs/security.md has the score that systemd-analyze gives the service", async () => {
    const file = join(root, "systemd/napd.service");
    const { stdout } = await run("systemd-analyze", ["security", "--offline=yes", "--no-pager", file]);
    const [, score] = /exposure level for napd\.service: ([\d.]+)/.exec(stdout) ?? [];
    const [, noted] = /exposure level of ([\d.]+)/.exec(await readFile(join(root, "docs/security.md"), "utf8")) ?? [];
    assert.ok(score && noted);
    // versions of systemd count a little differently
    assert.ok(Math.abs(Number(score) - Number(noted)) <= 0.3, `${score}, and ${noted} is written down`);
  });
});

suite("shell scripts", () => {
  const isShell = (file: string) => file.endsWith(".sh") || /^#!\s*\/bin\/(ba|da)?sh\b/.test(readStart(file));
  const ours = { cwd: root, exclude: (path: string) => /^(node_modules|dist|\.git)$|\/node_modules$/.test(path) };
  const scripts = globSync("**/*", ours).filter((file) => !/\.\w+$/.test(file) || file.endsWith(".sh"));
  const checked = scripts.filter((file) => isShell(file));

  test("shellcheck finds nothing wrong with them", async () => {
    assert.ok(checked.includes("scripts/setup.sh"));
    await run("shellcheck", checked, { cwd: root });
  });
});

function readStart(file: string): string {
  try {
    return readFileSync(join(root, file), "utf8").slice(0, 100);
  } catch {
    return ""; // a folder
  }
}
