import { createHash, timingSafeEqual } from "node:crypto";
import { AppError } from "../base/errors.ts";
import type { Credentials } from "../store/credentials.ts";

/** Checks an Authorization header against the administrator's credentials: contracts/api.md §1.3. Fails with UNAUTHORIZED. */
export function authenticator({ user, password }: Credentials): (authorization: string | undefined) => void {
  const wanted = digest(`${user}:${password}`);
  return (authorization) => {
    const encoded = /^basic +([a-z0-9+/=_-]+)$/i.exec(authorization ?? "")?.[1];
    // digests have one length, so the comparison takes the same time whatever was sent
    const given = digest(encoded === undefined ? "" : Buffer.from(encoded, "base64").toString("utf8"));
    if (encoded === undefined || !timingSafeEqual(given, wanted)) throw new AppError("UNAUTHORIZED", []);
  };
}

function digest(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}
