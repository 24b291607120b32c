import { AppError } from "../base/errors.ts";
import { parseReference, type Reference } from "../host/image/reference.ts";
import { Failure } from "./failure.ts";

/** An image's name with registry, path and tag. */
export function referenceOf(image: string): Reference {
  try {
    return parseReference(image);
  } catch (e) {
    throw e instanceof AppError ? new Failure(`image "${image}": ${e.message}`) : e;
  }
}

/** `acme/web` is `docker.io/acme/web:latest`. Builders other than docker put `localhost/` before short names. */
export const canonical = (image: string): string => referenceOf(image).canonical;
