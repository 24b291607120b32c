import type { Builder } from "./builder.ts";
import { wrongUsage } from "./failure.ts";
import { canonical, referenceOf } from "./image-name.ts";
import type { Template } from "./templates.ts";

/** How functions are built, from flags. */
export interface BuildOptions {
  readonly noCache?: boolean;
  readonly squash?: boolean;
  readonly pull?: boolean;
  readonly buildArgs: Readonly<Record<string, string>>;
  readonly buildOptions: readonly string[];
  readonly buildLabels: Readonly<Record<string, string>>;
}

/** One image that is to be built, of a context that stands. */
export interface ImagePlan extends BuildOptions {
  readonly image: string;
  /** Files by id. */
  readonly secrets: Readonly<Record<string, string>>;
  readonly mountSsh: boolean;
  readonly platforms?: readonly string[];
  readonly extraTags?: readonly string[];
}

/** What a builder is asked to run, in the folder of the context unless said otherwise. */
export interface Call {
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** Its failure is no failure of the whole. */
  readonly mayFail?: boolean;
}

/**
 * Arguments of a build, by name: the file's and the flags', which win; then the packages of all chosen options in one.
 * contracts/cli.md §2.11
 */
export function buildArgsOf(
  f: { name: string; buildArgs: Readonly<Record<string, string>>; buildOptions: readonly string[] },
  flags: BuildOptions,
  template: Template | undefined,
): Record<string, string> {
  const { ADDITIONAL_PACKAGE: given = "", ...args } = { ...f.buildArgs, ...flags.buildArgs };
  const packages = [...flags.buildOptions, ...f.buildOptions].flatMap((name) => {
    const option = template?.buildOptions.find((o) => o.name === name);
    if (option) return option.packages;
    const known = template?.buildOptions.map((o) => o.name).join(", ");
    throw wrongUsage(`${f.name}: build option ${name} is not known; its template has ${known || "none"}`);
  });
  const all = [...new Set([...packages, ...given.split(" ").filter(Boolean)])];
  const sorted = Object.fromEntries(Object.entries(args).sort(([a], [b]) => (a < b ? -1 : 1)));
  return { ...sorted, ...(all.length > 0 && { ADDITIONAL_PACKAGE: all.join(" ") }) };
}

const proxies = ["http_proxy", "https_proxy"] as const;

/** The flags of docker, which the others understand as well. */
function common(plan: ImagePlan, env: Readonly<Record<string, string | undefined>>): string[] {
  const proxied = proxies.flatMap((name) => (env[name] ? ["--build-arg", `${name}=${env[name]}`] : []));
  return [
    ...(plan.noCache ? ["--no-cache"] : []),
    ...(plan.squash ? ["--squash"] : []),
    ...proxied,
    ...Object.entries(plan.buildArgs).flatMap(([key, value]) => ["--build-arg", `${key}=${value}`]),
    ...Object.entries(plan.buildLabels).flatMap(([key, value]) => ["--label", `${key}=${value}`]),
    ...(plan.pull ? ["--pull"] : []),
  ];
}

const secretsOf = ({ secrets }: ImagePlan): string[] =>
  Object.entries(secrets).flatMap(([id, file]) => ["--secret", `id=${id},src=${file}`]);

/** How an image is built into the builder's own store. */
export function buildCall({ kind }: Builder, plan: ImagePlan, env: Readonly<Record<string, string | undefined>>): Call {
  const ssh = plan.mountSsh ? ["--ssh", "default"] : [];
  if (kind === "docker") {
    // BuildKit is asked for where it is needed; elsewhere docker decides
    const kit = plan.mountSsh || Object.keys(plan.secrets).length > 0;
    const args = ["build", ...common(plan, env), ...ssh, "--tag", plan.image, ".", ...secretsOf(plan)];
    return { args, ...(kit && { env: { DOCKER_BUILDKIT: "1" } }) };
  }
  const layers = (kind === "buildah" || kind === "podman") && !plan.noCache ? ["--layers"] : [];
  // unlike docker it looks for newer bases unless asked not to, and keeps a container for each stage
  const own = kind === "buildah" ? ["--force-rm", ...(plan.pull ? [] : ["--pull=false"])] : [];
  const flags = [...layers, ...own, ...common(plan, env), ...ssh, ...secretsOf(plan)];
  return { args: ["build", ...flags, "--tag", canonical(plan.image), "."] };
}

/** How an image of the builder's store gets to its registry. */
export function pushCall({ kind }: Builder, image: string): Call {
  if (kind === "buildah") return { args: ["push", canonical(image), `docker://${canonical(image)}`] };
  return { args: ["push", kind === "docker" ? image : canonical(image)] };
}

/** How an image for several platforms is built and pushed: in one step where that is possible. */
export function publishCalls(
  { kind }: Builder,
  plan: ImagePlan,
  env: Readonly<Record<string, string | undefined>>,
): Call[] {
  const platforms = (plan.platforms ?? []).join(",");
  const extra = (plan.extraTags ?? []).map((tag) => `${plan.image.replace(/:[^:/]*$/, "")}:${tag}`);
  if (kind === "docker") {
    const tags = extra.flatMap((image) => ["--tag", image]);
    const how = ["--progress=plain", `--platform=${platforms}`, "--output=type=registry,push=true"];
    const rest = [...common(plan, env), "--tag", plan.image, ".", ...tags, ...secretsOf(plan)];
    return [{ args: ["buildx", "build", ...how, ...rest] }];
  }
  const { args } = buildCall({ kind, program: "" }, plan, env);
  const images = [plan.image, ...extra].map(canonical);
  if (kind === "nerdctl") {
    const tagged = [...args.slice(0, -1), ...images.slice(1).flatMap((image) => ["--tag", image]), "."];
    const build = [tagged[0]!, `--platform=${platforms}`, ...tagged.slice(1)];
    return [{ args: build }, ...images.map((image) => ({ args: ["push", `--platform=${platforms}`, image] }))];
  }
  // a list of our own, made anew: an old one would keep its images, and an image may have the name
  const { repository, tag } = referenceOf(plan.image);
  const list = `localhost/nap-publish/${repository}:${tag}`;
  const build = [args[0]!, `--platform=${platforms}`, ...args.slice(1, -3), "--manifest", list, "."];
  return [
    { args: ["manifest", "rm", list], mayFail: true },
    { args: build },
    ...images.map((image) => ({ args: ["manifest", "push", "--all", list, `docker://${image}`] })),
  ];
}
