import { AppError } from "../../base/errors.ts";

/** An image reference in its full form. Source: the grammar of distribution/reference. */
export interface Reference {
  /** Registry, with its port if one is given: `docker.io`, `127.0.0.1:5000`. */
  readonly host: string;
  /** Path in the registry: `library/nginx`. */
  readonly repository: string;
  /** `host/repository`. */
  readonly name: string;
  /** `latest` when neither tag nor digest is given; undefined when there is a digest only. */
  readonly tag: string | undefined;
  /** `sha256:…`; wins over the tag when both are there. */
  readonly digest: string | undefined;
  /** The whole text with every default filled in: what image records are called. */
  readonly canonical: string;
}

const digestForm = /^sha256:[0-9a-f]{64}$/;
const tagForm = /^\w[\w.-]{0,127}$/;
// path-component = alphanumeric *( separator alphanumeric ); separator = "." / "_" / "__" / 1*"-"
const componentForm = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/;
const hostForm =
  /^(?:\[[0-9a-fA-F:]+\]|[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*)(?::(\d{1,5}))?$/;

/** Bytes of `host/repository`, as every registry limits them. */
const maxName = 255;
const maxText = 1024;

export function isDigest(text: string): boolean {
  return digestForm.test(text);
}

/** Fills in docker.io, `library/` and `latest`. Throws IMAGE_BAD_REFERENCE saying what is wrong. */
export function parseReference(text: string): Reference {
  const bad = (why: string) => new AppError("IMAGE_BAD_REFERENCE", [text.slice(0, 200), why]);
  if (text === "") throw bad("it is empty");
  if (text.length > maxText) throw bad(`it is longer than ${maxText} characters`);
  if (/\s/.test(text)) throw bad("it contains white space");
  if (text.includes("://")) throw bad("it begins with a scheme; leave that away");

  const { rest, digest } = splitDigest(text, bad);
  const { path, tag } = splitTag(rest, bad);
  const { host, repository } = splitHost(path);
  checkHost(host, bad);
  checkRepository(repository, bad);
  const name = `${host}/${repository}`;
  if (name.length > maxName) throw bad(`its name is longer than ${maxName} characters`);

  const useTag = tag ?? (digest ? undefined : "latest");
  const canonical = `${name}${useTag ? `:${useTag}` : ""}${digest ? `@${digest}` : ""}`;
  return { host, repository, name, tag: useTag, digest, canonical };
}

type Bad = (why: string) => AppError;

function splitDigest(text: string, bad: Bad): { rest: string; digest: string | undefined } {
  const at = text.indexOf("@");
  if (at < 0) return { rest: text, digest: undefined };
  const digest = text.slice(at + 1);
  if (!isDigest(digest)) throw bad('its digest is not "sha256:" with 64 lower-case hexadecimal digits');
  return { rest: text.slice(0, at), digest };
}

/** A colon behind the last slash begins a tag; one before it is a port. */
function splitTag(text: string, bad: Bad): { path: string; tag: string | undefined } {
  const colon = text.indexOf(":", text.lastIndexOf("/") + 1);
  if (colon < 0 || (text.startsWith("[") && !text.includes("/"))) return { path: text, tag: undefined };
  const tag = text.slice(colon + 1);
  if (!tagForm.test(tag))
    throw bad("its tag is not 1 to 128 letters, digits, underscores, dots and hyphens that begin with none of .-");
  return { path: text.slice(0, colon), tag };
}

/** The first component is a registry when it could not be a path of docker.io: a dot, a port, capitals or localhost. */
function splitHost(path: string): { host: string; repository: string } {
  const slash = path.indexOf("/");
  const first = slash < 0 ? "" : path.slice(0, slash);
  const isHost = /[.:A-Z[]/.test(first) || first === "localhost";
  const host = !isHost || first === "index.docker.io" ? "docker.io" : first;
  const repository = isHost ? path.slice(slash + 1) : path;
  return { host, repository: host === "docker.io" && !repository.includes("/") ? `library/${repository}` : repository };
}

function checkHost(host: string, bad: Bad): void {
  const match = hostForm.exec(host);
  if (!match || Number(match[1] ?? 1) > 65_535 || match[1] === "0")
    throw bad(`"${host}" is not the name or address of a registry`);
}

function checkRepository(repository: string, bad: Bad): void {
  if (/[A-Z]/.test(repository)) throw bad("its name has capital letters, and may only have lower-case ones");
  for (const component of repository.split("/")) {
    if (component === "") throw bad("a part of its name is empty");
    if (!componentForm.test(component))
      throw bad(`"${component}" is not made of lower-case letters and digits, joined by single . _ or hyphens`);
  }
  if (/^(?:library\/)?[0-9a-f]{64}$/.test(repository)) throw bad("64 hexadecimal digits are an id and not a name");
}

/** Name of the record that keeps an image by its digest. */
export function pinName(reference: Reference, digest: string): string {
  return `${reference.name}@${digest}`;
}
