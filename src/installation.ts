import { join } from "node:path";

/**
 * Where this napd is installed: the folder with `package.json`, `proto/`, `cni/` and `dist/`. That is the checkout, or
 * the unpacked release: this file lies one folder below it in both, here in `src/` and there bundled into `lib/`.
 */
export const installationRoot = join(import.meta.dirname, "..");
