import { FakeBackend } from "../fakes/backend.ts";
import { backendContract } from "./backend.ts";

backendContract("the fake", async () => {
  const backend = new FakeBackend();
  const info = (env: Readonly<Record<string, string>>) =>
    Object.entries(env)
      .map(([name, value]) => `${name}=${value}\n`)
      .join("");
  backend.push("web:1", {
    answer: (req, res, spec, secrets) => {
      const url = new URL(req.url!, "http://fake");
      if (url.pathname === "/cgi-bin/say") res.end(secrets.get(url.search.slice(1)));
      else res.end(url.pathname === "/cgi-bin/info" ? info(spec.env) : "hello\n");
    },
  });
  backend.push("exits:1", { says: "first words\nlast words\n", exitsWith: 7 });
  backend.push("broken:1", { broken: "no such file" });
  backend.push("spare:1");
  return {
    backend,
    used: backend.used,
    namespace: "fn",
    secrets: backend.secrets,
    images: { web: "web:1", exits: "exits:1", broken: "broken:1", spare: "spare:1", absent: "absent:1" },
    traces: async () => backend.holds().filter((line) => line.startsWith("replica ")),
    halfMake: (replica) => backend.halfMake(replica),
    [Symbol.asyncDispose]: () => backend[Symbol.asyncDispose](),
  };
});
