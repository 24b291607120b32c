import { execFile, execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);

export interface Certificate {
  key: string;
  cert: string;
  /** File with the certificate of the authority that signed it. */
  caFile: string;
}

/** A certificate for `names` (in OpenSSL's words, such as `IP:127.0.0.1`) by an authority of its own, made in `dir`. */
export function makeCertificate(dir: string, names = "IP:127.0.0.1"): Certificate {
  const at = (name: string) => join(dir, name);
  const openssl = (...args: string[]) => execFileSync("openssl", args, { cwd: dir, stdio: "pipe" });
  const newKey = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
  openssl(
    "req",
    "-x509",
    ...newKey,
    "-keyout",
    "ca.key",
    "-out",
    "ca.pem",
    "-days",
    "30",
    "-subj",
    "/CN=test authority",
  );
  openssl("req", ...newKey, "-keyout", "key.pem", "-out", "request.pem", "-subj", "/CN=gateway");
  writeFileSync(at("names"), `subjectAltName=${names}\n`);
  const signing = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "30", "-extfile", "names"];
  openssl("x509", "-req", "-in", "request.pem", ...signing, "-out", "cert.pem");
  return { key: readFileSync(at("key.pem"), "utf8"), cert: readFileSync(at("cert.pem"), "utf8"), caFile: at("ca.pem") };
}

/** Makes `DIR/NAME.crt` and `DIR/NAME.key`: signed by itself, for `localhost` and 127.0.0.1. */
export async function makeSelfSigned(
  dir: string,
  name: string,
  days = 2,
): Promise<{ certificate: string; key: string }> {
  const [certificate, key] = [`${dir}/${name}.crt`, `${dir}/${name}.key`];
  const request = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  const subject = ["-subj", `/CN=${name}`, "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"];
  await run("openssl", [...request, ...subject, "-days", String(days), "-keyout", key, "-out", certificate]);
  return { certificate, key };
}
