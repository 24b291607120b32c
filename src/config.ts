import { readFileSync } from "node:fs";
import { parse, safe } from "ini";
import { AppError, messageOf, systemCode } from "./base/errors.ts";
import { type HostPrefix, parseHostPrefix } from "./base/host-prefix.ts";
import { isName, isNamespace, splitAddress } from "./base/names.ts";
import { type Setting, type Settings, settings, type Value } from "./settings.ts";

/** How one registry host is reached. */
export interface RegistrySettings {
  host: string;
  /** Tried in this order before the host itself: origins such as `https://mirror.example`. */
  mirrors: string[];
  plainHttp: boolean;
  /** PEM file with certificates to trust besides the system's. */
  caFile?: string;
}

/** A host, or a path below it, that leads to a function. */
export interface RouteSettings extends HostPrefix {
  /** NAME or NAME.NAMESPACE. */
  readonly address: string;
}

export type Config = {
  readonly [S in keyof Settings]: { readonly [K in keyof Settings[S]]: Value<Settings[S][K]> };
} & {
  readonly registries: readonly RegistrySettings[];
  readonly routes: readonly RouteSettings[];
};

/** Where texts of settings come from, weakest first. */
export interface ConfigSources {
  /** Path of an ini file; must exist when `fileIsRequired`. */
  file: string;
  fileIsRequired: boolean;
  /** `NAPD_SECTION_KEY` variables: an unknown key of a section is refused; all other names are ignored. */
  environment: NodeJS.ProcessEnv;
  /** `section.key=value` texts. */
  flags: readonly string[];
}

/** Reads, checks and freezes the configuration. Fails with CONFIG, naming the setting, its source and what must hold. */
export function loadConfig(sources: ConfigSources): Config {
  const texts = new Map<string, { value: string; source: string }>();
  const registries = new Map<string, RegistrySettings>();
  const routes = new Map<string, RouteSettings>();
  const put = (name: string, value: string, source: string) => {
    if (!lookUp(name))
      throw new AppError("CONFIG", [`${source}: there is no setting ${name}; napd --print-config lists them all`]);
    texts.set(name, { value, source });
  };
  for (const [section, entries] of Object.entries(readIni(sources))) {
    if (typeof entries !== "object")
      throw new AppError("CONFIG", [`${sources.file}: ${section} stands outside of a [section]`]);
    for (const [key, value] of Object.entries(entries)) {
      if (typeof value === "object" && !Array.isArray(value))
        throw new AppError("CONFIG", [`${sources.file}: [${section}.${key}]: there are no sections within sections`]);
      if (section === "registries") registries.set(key, readRegistry(key, String(value), sources.file));
      else if (section === "routes") putRoute(routes, key, String(value), sources.file);
      else put(`${section}.${key}`, String(value), sources.file);
    }
  }
  for (const [variable, value = ""] of Object.entries(sources.environment)) {
    const match = /^NAPD_([A-Z]+)_([A-Z_]+)$/.exec(variable);
    if (match && match[1]!.toLowerCase() in settings)
      put(`${match[1]}.${match[2]}`.toLowerCase(), value, `environment variable ${variable}`);
  }
  for (const flag of sources.flags) {
    const equals = flag.indexOf("=");
    if (equals < 0) throw new AppError("CONFIG", [`--set ${flag}: must be section.key=value`]);
    const name = flag.slice(0, equals);
    if (name.startsWith("registries."))
      registries.set(name.slice(11), readRegistry(name.slice(11), flag.slice(equals + 1), `--set ${name}`));
    else if (name.startsWith("routes.")) putRoute(routes, name.slice(7), flag.slice(equals + 1), `--set ${name}`);
    else put(name, flag.slice(equals + 1), `--set ${name}`);
  }
  const config: Record<string, unknown> = {
    registries: Object.freeze([...registries.values()]),
    routes: Object.freeze([...routes.values()]),
  };
  for (const [section, entries] of Object.entries(settings)) {
    const values: Record<string, unknown> = {};
    for (const [key, setting] of Object.entries(entries) as [string, Setting<unknown>][]) {
      const given = texts.get(`${section}.${key}`);
      try {
        values[key] = given ? setting.read(given.value.trim()) : setting.fallback;
      } catch (e) {
        throw new AppError("CONFIG", [`${given!.source}: ${section}.${key} = ${given!.value}: ${messageOf(e)}`]);
      }
    }
    config[section] = Object.freeze(values);
  }
  checkTogether(config as Config);
  return Object.freeze(config) as Config;
}

function checkTogether({ images, tls }: Config): void {
  if (
    (tls.listen !== undefined || tls.certificate !== "" || tls.key !== "") &&
    (tls.certificate === "" || tls.key === "")
  )
    throw new AppError("CONFIG", ["for TLS both tls.certificate and tls.key must be given"]);
  if (images.gc_low > images.gc_high)
    throw new AppError("CONFIG", [`images.gc_low ${images.gc_low} must not be above images.gc_high ${images.gc_high}`]);
}

function lookUp(name: string): Setting<unknown> | undefined {
  const [section = "", key = ""] = name.split(".");
  const entries = Object.hasOwn(settings, section) ? settings[section as keyof Settings] : {};
  return Object.hasOwn(entries, key) ? (entries as Record<string, Setting<unknown>>)[key] : undefined;
}

function readIni(sources: ConfigSources): Record<string, Record<string, unknown> | string> {
  try {
    return parse(readFileSync(sources.file, "utf8"));
  } catch (e) {
    if (systemCode(e) === "ENOENT" && !sources.fileIsRequired) return {};
    throw new AppError("CONFIG", [`cannot read configuration file ${sources.file}: ${messageOf(e)}`], { cause: e });
  }
}

/** `HOST = mirror:https://m1 mirror:https://m2 plain-http ca:/path` */
function readRegistry(host: string, text: string, source: string): RegistrySettings {
  const registry: RegistrySettings = { host, mirrors: [], plainHttp: false };
  for (const word of text.split(/[\s,]+/).filter((w) => w !== "")) {
    if (word === "plain-http") registry.plainHttp = true;
    else if (/^mirror:https?:\/\/[^/]+\/?$/.test(word)) registry.mirrors.push(word.slice(7).replace(/\/$/, ""));
    else if (word.startsWith("ca:/")) registry.caFile = word.slice(3);
    else
      throw new AppError("CONFIG", [
        `${source}: registry ${host}: "${word}" is not mirror:https://HOST, plain-http or ca:/PATH`,
      ]);
  }
  return registry;
}

/** `HOST[/PREFIX] = NAME[.NAMESPACE]`; two spellings of one route are the same, and the later one counts. */
function putRoute(routes: Map<string, RouteSettings>, text: string, address: string, source: string): void {
  const where = parseHostPrefix(text);
  const refuse = (what: string) => new AppError("CONFIG", [`${source}: route ${text}: ${what}`]);
  if (typeof where === "string") throw refuse(where);
  const { name, namespace } = splitAddress(address, "x");
  if (!isName(name) || !isNamespace(namespace))
    throw refuse(`"${address}" is not NAME or NAME.NAMESPACE of a function`);
  routes.set(where.host + where.prefix, { ...where, address });
}

/** The configuration as an ini file with every setting, its sentence and its value. */
export function printConfig(config: Config): string {
  const lines: string[] = [];
  for (const [section, entries] of Object.entries(settings)) {
    lines.push(`[${section}]`);
    for (const [key, setting] of Object.entries(entries) as [string, Setting<unknown>][]) {
      const values = config[section as keyof Settings] as Record<string, unknown>;
      lines.push(`; ${setting.sentence} ${defaultOf(setting)}`, `${key} = ${safe(setting.write(values[key]))}`);
    }
    lines.push("");
  }
  lines.push("[registries]", `; ${registriesSentence}`);
  for (const { host, mirrors, plainHttp, caFile } of config.registries) {
    const words = [
      ...mirrors.map((m) => `mirror:${m}`),
      ...(plainHttp ? ["plain-http"] : []),
      ...(caFile ? [`ca:${caFile}`] : []),
    ];
    lines.push(`${host} = ${safe(words.join(" "))}`);
  }
  lines.push("", "[routes]", `; ${routesSentence}`);
  for (const { host, prefix, address } of config.routes) lines.push(`${host}${prefix} = ${address}`);
  return `${lines.join("\n")}\n`;
}

const registriesSentence = "How a registry is reached: HOST = mirror:https://OTHER … plain-http ca:/FILE; live";
const routesSentence = "Which function a host, or a path below it, leads to: HOST[/PREFIX] = NAME[.NAMESPACE]";

/** `Default: 1m0s; live`. */
function defaultOf({ fallback, write, isLive }: Setting<unknown>): string {
  return `Default: ${write(fallback) || "empty"}${isLive ? "; live" : ""}`;
}

/** An ini file that sets nothing, and has every setting with its default to be uncommented. */
export function sampleConfig(): string {
  const sections = Object.entries(settings).map(([section, entries]) => {
    const list = Object.entries(entries) as [string, Setting<unknown>][];
    const lines = list.map(([key, setting]) =>
      `; ${setting.sentence} ${defaultOf(setting)}\n;${key} = ${safe(setting.write(setting.fallback))}`.trimEnd(),
    );
    return [`[${section}]`, ...lines].join("\n");
  });
  const registries = `[registries]\n; ${registriesSentence}\n;registry.example.com:5000 = mirror:https://mirror.example.com`;
  const routes = `[routes]\n; ${routesSentence}\n;www.example.com/shop = shop.openfaas-fn`;
  return `${[...sections, registries, routes].join("\n\n")}\n`;
}
