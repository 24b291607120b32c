import { execFile } from "node:child_process";
import { promisify } from "node:util";

const run = promisify(execFile);

/** Makes `DIR/NAME.crt` and `DIR/NAME.key`: signed by itself, for `localhost` and 127.0.0.1. */
export async function makeCertificate(
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
