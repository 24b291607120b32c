import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { isAppError } from "../../../../src/base/errors.ts";
import { lookupUser } from "../../../../src/host/oci/user.ts";

const passwd = `root:x:0:0:root:/root:/bin/sh
app:x:1000:1000:,,,:/home/app:/bin/sh
nohome:x:1001:1001:::/bin/false
1002:x:7:8::/seven:/bin/sh
a line that is none
bad:x:twelve:1::/:`;

const group = `root:x:0:
app:x:1000:
video:x:44:app,other
audio:x:29:other,app
deep:x:60:app-not`;

const rows: { says: string; user: string; passwd?: string; expect: unknown }[] = [
  { says: "empty is root", user: "", expect: { uid: 0, gid: 0, additionalGids: [0], home: "/root" } },
  {
    says: "empty is root in an image without files",
    user: "",
    passwd: "",
    expect: { uid: 0, gid: 0, additionalGids: [0] },
  },
  {
    says: "a name takes its group, its home and the groups that list it",
    user: "app",
    expect: { uid: 1000, gid: 1000, additionalGids: [1000, 44, 29], home: "/home/app" },
  },
  {
    says: "a number with an entry does the same",
    user: "1000",
    expect: { uid: 1000, gid: 1000, additionalGids: [1000, 44, 29], home: "/home/app" },
  },
  { says: "a number without an entry has group 0", user: "65532", expect: { uid: 65532, gid: 0, additionalGids: [0] } },
  {
    says: "user:group takes that group only",
    user: "app:video",
    expect: { uid: 1000, gid: 44, additionalGids: [44], home: "/home/app" },
  },
  {
    says: "both may be numbers that no file knows",
    user: "5:6",
    passwd: "",
    expect: { uid: 5, gid: 6, additionalGids: [6] },
  },
  {
    says: "a colon with nothing behind it counts for nothing",
    user: "nohome:",
    expect: { uid: 1001, gid: 1001, additionalGids: [1001] },
  },
  {
    says: "a group alone belongs to root",
    user: ":44",
    expect: { uid: 0, gid: 44, additionalGids: [44], home: "/root" },
  },
  { says: "a name wins over a number", user: "1002", expect: { uid: 7, gid: 8, additionalGids: [8], home: "/seven" } },
  {
    says: "spaces around it do not matter",
    user: " app ",
    expect: { uid: 1000, gid: 1000, additionalGids: [1000, 44, 29], home: "/home/app" },
  },
];

suite("looking up an image's USER", () => {
  for (const row of rows)
    test(row.says, () => assert.deepEqual(lookupUser(row.user, row.passwd ?? passwd, group), row.expect));

  for (const user of ["ghost", "app:ghosts", "bad", "-1", "4294967296", "2147483648", "1:2:3", "app x"])
    test(`"${user}" is refused`, () => {
      assert.throws(
        () => lookupUser(user, passwd, group),
        (e) => isAppError(e, "IMAGE_UNUSABLE") && e.message.includes(user),
      );
    });
});
