import { type FakeBuilder, fakeBuilder } from "./fake-builder.ts";
import { nap, openPlace, type Place, type Ran, type RunOptions } from "./nap.ts";
import { tmpDir } from "./tmp.ts";

/** A stack file of two functions. */
export const stack = `# ours
provider:
  name: openfaas
functions:
  one:
    lang: zz
    handler: ./one
    image: acme/one:1
    secrets: [token]
    limits: {memory: 128Mi, cpu: 500m}
    environment: {Y: "2"}
    readonly_root_filesystem: true
    build_secrets: {pip: ./pip.conf}
  two: {lang: zz, handler: ./two, image: acme/two}
`;
/** Its project. */
export const project = {
  "stack.yaml": stack,
  "one/h": "",
  "two/h": "",
  "pip.conf": "",
  ".secrets/token": "",
  "template/zz/template.yml": "language: zz\nfprocess: ./handler\nmount_ssh: false\n",
  "template/zz/Dockerfile": "FROM scratch\n",
};

/** A place to run nap in, with builders. */
export interface Bench {
  place: Place;
  builder: FakeBuilder;
  run(args: string[], options?: RunOptions): Promise<Ran>;
  /** What the builders were asked to do. */
  asked(): Promise<string[]>;
}

/** Works in a project of these files, where these builders are. */
export async function bench(
  files: Record<string, string>,
  work: (bench: Bench) => Promise<void>,
  programs: string[] = ["docker"],
): Promise<void> {
  await using dir = await tmpDir();
  const place = await openPlace(dir.path, files);
  const builder = await fakeBuilder(dir.path, programs);
  await work({
    place,
    builder,
    run: (args, options = {}) => nap(place, args, { ...options, env: { ...builder.env, ...options.env } }),
    asked: async () =>
      (await builder.calls()).map((c) => c.argv.join(" ").replaceAll(`${place.cwd}/`, "").replaceAll(place.cwd, ".")),
  });
}
