import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { suite, test } from "node:test";
import { denied, generate, headers, kernelOf } from "../../../../scripts/build-seccomp.ts";
import profile from "../../../../src/host/oci/seccomp.json" with { type: "json" };

const rulesFor = (name: string) => profile.syscalls.filter((rule) => rule.names.includes(name));

suite("seccomp profile", () => {
  test("what is not listed fails with EPERM", () => {
    assert.equal(profile.defaultAction, "SCMP_ACT_ERRNO");
    assert.equal(profile.defaultErrnoRet, 1);
  });

  test("eleven groups are denied", () => assert.equal(Object.keys(denied).length, 11));
  for (const [group, names] of Object.entries(denied))
    test(`none of the group "${group}" is listed`, () => {
      assert.deepEqual(
        names.split(" ").filter((name) => rulesFor(name).length > 0),
        [],
      );
    });

  for (const name of "read write openat close mmap mprotect futex epoll_pwait accept4 sendmsg execve wait4 exit_group getrandom prctl seccomp statx rseq memfd_create sched_setaffinity pidfd_open renameat2 arch_prctl sync_file_range2".split(
    " ",
  ))
    test(`${name} is allowed whatever its arguments`, () => {
      assert.deepEqual(
        rulesFor(name).map((rule) => [rule.action, "args" in rule]),
        [["SCMP_ACT_ALLOW", false]],
      );
    });

  test("clone is allowed without any flag for a new namespace", () => {
    const [{ args } = {}, ...more] = rulesFor("clone") as { args?: unknown[] }[];
    assert.deepEqual(args, [{ index: 0, value: 0x7e020000, valueTwo: 0, op: "SCMP_CMP_MASKED_EQ" }]);
    assert.deepEqual(more, []);
  });
  test("clone3 does not exist", () => {
    assert.deepEqual(rulesFor("clone3"), [{ names: ["clone3"], action: "SCMP_ACT_ERRNO", errnoRet: 38 }]);
  });
  test("sockets of the families below AF_ALG only", () => {
    assert.deepEqual(rulesFor("socket"), [
      { names: ["socket"], action: "SCMP_ACT_ALLOW", args: [{ index: 0, value: 38, op: "SCMP_CMP_LT" }] },
    ]);
  });
  test("personality can be asked for and set to the ordinary one", () => {
    assert.deepEqual(
      rulesFor("personality").map((rule) => "args" in rule && rule.args?.[0]?.value),
      [0, 0xffffffff],
    );
  });

  test("the file is what its script makes of these headers", (t) => {
    const files = [headers.x86_64, headers.generic, headers.version];
    if (!files.every((file) => existsSync(file))) return t.skip("the kernel's headers for x86-64 are not installed");
    const [x86_64, generic, version] = files.map((file) => readFileSync(file, "utf8")) as [string, string, string];
    if (!profile.generatedFrom.startsWith(`Linux ${kernelOf(version)} `))
      return t.skip(`made from "${profile.generatedFrom}", here are those of ${kernelOf(version)}`);
    assert.deepEqual(JSON.parse(generate(x86_64, generic, version)), profile);
  });
});
