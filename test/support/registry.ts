/**
 * A registry to push to and pull from: Debian's `docker-registry` on a loopback port, plain HTTP, with its files in
 * a directory of choice; open, with a password, or with tokens as Docker Hub and GitHub hand them out.
 */
import { execFile } from "node:child_process";
import { createPrivateKey, type KeyObject, randomUUID, sign, X509Certificate } from "node:crypto";
import { once } from "node:events";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { promisify } from "node:util";
import { startChild, waitReady } from "../../scripts/child.ts";
import { freePort } from "./free-port.ts";

const run = promisify(execFile);

export interface RegistryOptions {
  /** Made when missing; a second registry on the same directory has the same images. */
  readonly dir: string;
  /** Without it everybody may push and pull. */
  readonly auth?: Credentials;
  /** Ask for a bearer token (distribution's token protocol) instead of basic authentication. */
  readonly token?: boolean;
}

export interface Credentials {
  readonly user: string;
  readonly password: string;
}

/** A running registry. Disposing it stops it; its files stay. */
export interface Registry extends AsyncDisposable {
  /** `127.0.0.1:PORT`, the first part of a reference. */
  readonly host: string;
  /** The registry's own log, one line per request. */
  readonly logFile: string;
  /** Scopes of the tokens handed out so far, such as `repository:app:pull`; empty without `token`. */
  readonly scopes: readonly string[];
  /** Pushes an OCI archive as `HOST/REPO:TAG`; returns that reference. */
  push(archive: string, repoTag: string): Promise<string>;
  /** Deletes the manifest behind `repo:tag`, whichever tags it has. */
  remove(repoTag: string): Promise<void>;
}

/** Starts a registry and waits until it answers. */
export async function openRegistry(options: RegistryOptions): Promise<Registry> {
  await using up = new AsyncDisposableStack();
  await mkdir(options.dir, { recursive: true });
  const host = `127.0.0.1:${await freePort()}`;
  const logFile = `${options.dir}/registry.log`;
  const scopes: string[] = [];
  const tokens = options.token ? up.use(await openTokenServer(options.dir, options.auth, scopes)) : undefined;
  const auth = tokens?.config ?? (options.auth && (await basicAuth(options.dir, options.auth)));
  await writeFile(`${options.dir}/config.yml`, configText(options.dir, host, auth));
  const child = up.use(await startChild("docker-registry", ["serve", `${options.dir}/config.yml`], { logFile }));
  await waitReady(child, () => answersHttp(`http://${host}/v2/`), {
    what: "docker-registry",
    timeoutMs: 15_000,
    logFile,
  });
  const running = up.move();

  const credentials = (side: string) =>
    options.auth ? [`--${side}creds`, `${options.auth.user}:${options.auth.password}`] : [];
  return {
    host,
    logFile,
    scopes,
    async push(archive, repoTag) {
      const to = ["--dest-tls-verify=false", ...credentials("dest-"), `docker://${host}/${repoTag}`];
      await run("skopeo", ["--insecure-policy", "copy", "--quiet", `oci-archive:${archive}`, ...to]);
      return `${host}/${repoTag}`;
    },
    async remove(repoTag) {
      await run("skopeo", ["delete", "--tls-verify=false", ...credentials(""), `docker://${host}/${repoTag}`]);
    },
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}

/** JSON is YAML. */
function configText(dir: string, host: string, auth: object | undefined): string {
  return JSON.stringify({
    version: 0.1,
    log: { level: "info" },
    storage: { filesystem: { rootdirectory: `${dir}/data` }, delete: { enabled: true } },
    http: { addr: host },
    ...(auth && { auth }),
  });
}

/** The registry takes bcrypt only. crypt(3) knows it, and perl-base, which every Debian has, knows crypt(3). */
async function basicAuth(dir: string, { user, password }: Credentials): Promise<object> {
  const salt = "$2y$04$napdnapdnapdnapdnapdnO"; // lowest cost: it guards nothing
  const { stdout: hash } = await run("perl", ["-e", "print crypt($ARGV[0], $ARGV[1])", password, salt]);
  await writeFile(`${dir}/htpasswd`, `${user}:${hash}\n`);
  return { htpasswd: { realm: "test", path: `${dir}/htpasswd` } };
}

interface TokenServer extends AsyncDisposable {
  readonly config: object;
}

/** Hands out tokens to whoever has the password, or to everybody when there is none. */
async function openTokenServer(dir: string, auth: Credentials | undefined, scopes: string[]): Promise<TokenServer> {
  const { key, certificate } = await makeSigner(dir);
  const server: Server = createServer((request, response) => {
    if (!isAllowed(request, auth)) return void response.writeHead(401).end();
    const { searchParams: query } = new URL(request.url!, "http://registry");
    scopes.push(...query.getAll("scope"));
    const token = tokenFor(query, auth?.user ?? "", key, certificate);
    response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify({ token, expires_in: 300 }));
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  const realm = `http://127.0.0.1:${(server.address() as AddressInfo).port}/token`;
  return {
    config: { token: { realm, service: "registry", issuer: "test", rootcertbundle: `${dir}/token.crt` } },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}

function isAllowed(request: IncomingMessage, auth: Credentials | undefined): boolean {
  const wanted = auth && `Basic ${Buffer.from(`${auth.user}:${auth.password}`).toString("base64")}`;
  return wanted === undefined || request.headers.authorization === wanted;
}

async function makeSigner(dir: string): Promise<{ key: KeyObject; certificate: X509Certificate }> {
  const [key, certificate] = [`${dir}/token.key`, `${dir}/token.crt`];
  const curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  await run("openssl", [
    "req",
    "-x509",
    ...curve,
    "-subj",
    "/CN=test",
    "-days",
    "2",
    "-keyout",
    key,
    "-out",
    certificate,
  ]);
  return {
    key: createPrivateKey(await readFile(key)),
    certificate: new X509Certificate(await readFile(certificate)),
  };
}

/** distribution's docs/spec/auth/jwt.md: `repository:NAME:pull,push` becomes one entry of `access`. */
function tokenFor(query: URLSearchParams, subject: string, key: KeyObject, certificate: X509Certificate): string {
  const now = Math.floor(Date.now() / 1000);
  const access = query.getAll("scope").map((scope) => {
    const [type, ...rest] = scope.split(":");
    const actions = rest.pop()!.split(",");
    return { type, name: rest.join(":"), actions };
  });
  const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const claims = {
    iss: "test",
    sub: subject,
    aud: "registry",
    exp: now + 300,
    nbf: now - 10,
    iat: now,
    jti: randomUUID(),
  };
  const head = encode({ typ: "JWT", alg: "ES256", x5c: [certificate.raw.toString("base64")] });
  const text = `${head}.${encode({ ...claims, access })}`;
  const signature = sign("sha256", Buffer.from(text), { key, dsaEncoding: "ieee-p1363" });
  return `${text}.${signature.toString("base64url")}`;
}

async function answersHttp(url: string): Promise<boolean> {
  try {
    const { status } = await fetch(url);
    return status === 200 || status === 401;
  } catch {
    return false;
  }
}
