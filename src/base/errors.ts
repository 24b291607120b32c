/**
 * The catalogue: every error that napd shows to somebody, with a stable code, the HTTP status it becomes at the
 * edge, and a sentence that names the thing, the limit and the remedy. A retired code is never used again.
 *
 * Throw `new AppError("CODE", [arguments of its sentence], { cause })`. Nobody between the thrower and the edge
 * looks at the text; code that must decide, decides by `code`.
 */
const catalogue = {
  // --- what a caller asked for -------------------------------------------------------------------------------
  BAD_REQUEST: { status: 400, say: (what: string) => what },
  BAD_JSON: { status: 400, say: (why: string) => `the request body is not the JSON that this route takes: ${why}` },
  BODY_TOO_LARGE: {
    status: 413,
    say: (limit: number) => `the request body is larger than the ${limit} bytes that this route takes`,
  },
  MALFORMED_REQUEST: { status: 400, say: (why: string) => `the request is malformed: ${why}` },
  REQUEST_TOO_SLOW: {
    status: 408,
    say: (what: string, ms: number, setting: string) => `${what} for ${ms / 1000} s (setting ${setting})`,
  },
  EXPECTATION_UNKNOWN: {
    status: 417,
    say: (what: string) => `expectation "${what}" is not known; only 100-continue is`,
  },
  HEADERS_TOO_LARGE: {
    status: 431,
    say: (bytes: number, fields: number) =>
      `the request's head has more than ${bytes} bytes (setting gateway.max_header_bytes) or ${fields} fields (setting gateway.max_headers)`,
  },
  TRANSFER_CODING: {
    status: 501,
    say: (coding: string) => `transfer coding "${coding}" is not supported; only chunked is`,
  },
  HTTP_VERSION: { status: 505, say: () => "only HTTP/1.1 and HTTP/1.0 are spoken here" },
  UNAUTHORIZED: { status: 401, say: () => "invalid credentials" },
  ROUTE_NOT_FOUND: { status: 404, say: () => "404 page not found" },
  METHOD_NOT_ALLOWED: { status: 405, say: () => "this path does not take that method" },
  FUNCTION_NOT_FOUND: {
    status: 404,
    say: (name: string) => `function ${name} does not exist; see the list of functions for what is deployed`,
  },
  FUNCTION_EXISTS: {
    status: 409,
    say: (name: string) => `function ${name} exists already; update it with PUT, or delete it first`,
  },
  SUPERSEDED: { status: 409, say: (name: string) => `this deployment of ${name} was overtaken by a newer one` },
  BAD_FUNCTION: { status: 400, say: (field: string, why: string) => `${field}: ${why}` },
  ROUTE_TAKEN: {
    status: 409,
    say: (route: string, owner: string) => `route ${route} belongs to ${owner}; choose another, or take it away there`,
  },
  BAD_LOG_QUERY: {
    status: 422,
    say: (parameter: string, value: string, rule: string) => `query parameter ${parameter}=${value} must be ${rule}`,
  },
  NAMESPACE_NOT_FOUND: { status: 400, say: (name: string) => `namespace ${name} is not valid: no such namespace` },
  NAMESPACE_UNKNOWN: {
    status: 404,
    say: (name: string) => `namespace ${name} does not exist; see the list of namespaces for those that do`,
  },
  NAMESPACE_EXISTS: { status: 409, say: (name: string) => `namespace ${name} exists already; change it with PUT` },
  NAMESPACE_TAKEN: {
    status: 409,
    say: (name: string) =>
      `namespace ${name} is there in containerd and not made by this napd: somebody else works with it; take another name`,
  },
  NAMESPACE_IN_USE: {
    status: 409,
    say: (name: string, by: string) => `namespace ${name} cannot be deleted: it still has ${by}; delete them first`,
  },
  NAMESPACE_DEFAULT: {
    status: 403,
    say: (name: string) => `namespace ${name} is the default one and cannot be deleted`,
  },
  SECRET_TOO_LARGE: {
    status: 400,
    say: (name: string, bytes: number, limit: number) =>
      `secret ${name} has ${bytes} bytes, more than the ${limit} that a secret may have`,
  },
  SECRET_EXISTS: {
    status: 409,
    say: (name: string, ns: string) => `secret ${name} exists already in namespace ${ns}; replace it with PUT`,
  },
  SECRET_NOT_FOUND: {
    status: 404,
    say: (name: string, ns: string) => `secret ${name} does not exist in namespace ${ns}`,
  },
  SECRET_MISSING: {
    status: 400,
    say: (name: string, ns: string) =>
      `secret ${name} does not exist in namespace ${ns}; create it before the function that uses it`,
  },

  CRON_UNKNOWN: {
    status: 404,
    say: (name: string) =>
      `function ${name} has no schedule: annotation topic must name cron-function, and schedule say when`,
  },
  CRON_RUNNING: {
    status: 409,
    say: (name: string) =>
      `function ${name} is running already, and annotation napd.cron.overlap is skip; wait until that run has ended`,
  },

  // --- images --------------------------------------------------------------------------------------------------
  IMAGE_BAD_REFERENCE: {
    status: 400,
    say: (ref: string, why: string) => `image reference "${ref}" is not valid: ${why}`,
  },
  IMAGE_NOT_FOUND: {
    status: 400,
    say: (ref: string, where: string) =>
      `image ${ref} does not exist on ${where}; check its name and tag, and that it was pushed`,
  },
  IMAGE_LOGIN_REFUSED: {
    status: 400,
    say: (ref: string, host: string, answer: string, remedy: string) =>
      `registry ${host} refuses to give image ${ref} (${answer}): ${remedy}`,
  },
  IMAGE_REGISTRY_UNREACHABLE: {
    status: 502,
    say: (ref: string, host: string, why: string) => `image ${ref} could not be fetched from ${host}: ${why}`,
  },
  IMAGE_DIGEST_MISMATCH: {
    status: 502,
    say: (ref: string, digest: string, what: string) =>
      `image ${ref}: ${what} is not what its digest ${digest} says; try again, and if it stays so, push the image again`,
  },
  IMAGE_PLATFORM: {
    status: 400,
    say: (ref: string, wanted: string, there: string) =>
      `image ${ref} is not made for ${wanted} but for ${there}; build and push it for this platform too`,
  },
  IMAGE_BAD_MANIFEST: {
    status: 400,
    say: (ref: string, why: string) => `image ${ref} is not one that can be used: ${why}; build and push it again`,
  },
  IMAGE_DISK_FULL: {
    status: 507,
    say: (ref: string) =>
      `image ${ref} does not fit: no space left on the file system of containerd; free some or remove unused images`,
  },
  DISK_LOW: {
    status: 507,
    say: (what: string, dir: string, free: string, needed: string, reserve: string) =>
      `${what} does not fit: the file system of ${dir} has ${free} free, ${needed} are needed, and ${reserve} stay free (setting images.disk_reserve); delete functions, remove unused images with POST /system/images/prune, or enlarge the disk`,
  },
  IMAGE_UNKNOWN: {
    status: 404,
    say: (name: string, ns: string) =>
      `image ${name} is not in namespace ${ns}; GET /system/images lists those that are`,
  },
  IMAGE_IN_USE: {
    status: 409,
    say: (name: string, users: string) => `image ${name} is used by ${users}; delete what uses it first`,
  },
  IMAGE_TOO_LARGE: {
    status: 413,
    say: (limit: string) =>
      `the image archive is larger than ${limit}, packed or unpacked; setting images.max_upload allows more`,
  },
  IMAGE_MISSING: {
    status: 400,
    say: (ref: string) =>
      `image ${ref} is not complete on this machine; import it, or deploy with a pull policy other than Never`,
  },
  IMAGE_BAD_ARCHIVE: {
    status: 400,
    say: (file: string, why: string) =>
      `${file} is not an image archive that can be imported: ${why}; make one with "docker save" or "skopeo copy … oci-archive:"`,
  },
  IMAGE_BAD_LAYER: {
    status: 400,
    say: (why: string) =>
      `the layer cannot be used: ${why}; send a tar file, plain or packed by gzip, with the files as they are to be in the image`,
  },
  IMAGE_LAYER_MISSING: {
    status: 404,
    say: (digest: string, ns: string) => `layer ${digest} is not in namespace ${ns}; send it as the request's body`,
  },
  IMAGE_CREDENTIALS: {
    status: 500,
    say: (file: string, why: string) => `the registry credentials in ${file} cannot be used: ${why}`,
  },
  IMAGE_UNUSABLE: { status: 400, say: (why: string) => `the image cannot be run: ${why}` },

  // --- starting and calling ------------------------------------------------------------------------------------
  START_FAILED: { status: 500, say: (id: string, why: string) => `replica ${id} could not be started: ${why}` },
  STOP_FAILED: { status: 500, say: (id: string, why: string) => `replica ${id} could not be stopped: ${why}` },
  REPLICA_EXITED: {
    status: 500,
    say: (id: string, code: number, when: string, tail: string) =>
      `replica ${id} exited with code ${code} ${when}${tail && `; its last output: ${tail}`}`,
  },
  REPLICA_LOST: { status: 500, say: (id: string) => `replica ${id} is gone, and nobody saw it end; it is replaced` },
  REPLICA_UNHEALTHY: {
    status: 500,
    say: (id: string, times: number, what: string) =>
      `replica ${id} failed its health check ${times} times in a row (${what}) and is replaced`,
  },
  REPLICA_OOM: {
    status: 500,
    say: (id: string, limit: string) =>
      `replica ${id} was killed because it ran out of its memory limit (${limit}); raise limits.memory`,
  },
  REPLICA_NOT_READY: {
    status: 500,
    say: (id: string, ms: number, what: string) =>
      `replica ${id} did not get ready within ${ms / 1000} s (${what}); the program must listen on port 8080, and setting functions.ready_timeout gives it longer`,
  },
  FUNCTION_UNAVAILABLE: { status: 503, say: (name: string, why: string) => `function ${name} cannot answer: ${why}` },
  CALL_TOO_LARGE: {
    status: 413,
    say: (name: string, limit: number) =>
      `the request body is larger than the ${limit} bytes that function ${name} takes; annotation napd.max-body or setting gateway.max_body raises the limit`,
  },
  CALLS_LIMITED: {
    status: 429,
    say: (name: string, running: number, waiting: number) =>
      `function ${name} has ${running} calls under way and ${waiting} waiting, and takes no more; try again later, or raise annotation napd.max-inflight or napd.queue`,
  },
  QUEUE_FULL: {
    status: 429,
    say: (limit: number) =>
      `the queue holds ${limit} calls and takes no more; try again later, or raise setting queue.max_pending`,
  },
  QUEUE_FUNCTION_FULL: {
    status: 429,
    say: (name: string, limit: number) =>
      `the queue holds ${limit} calls of function ${name} and takes no more; try again later, or raise setting queue.max_pending_function or annotation napd.async-queue`,
  },
  QUEUE_BODY_TOO_LARGE: {
    status: 413,
    say: (limit: number) =>
      `the request body is larger than the ${limit} bytes that an asynchronous call may have; setting queue.max_body or annotation napd.max-body raises the limit`,
  },
  QUEUE_CALL_NOT_FOUND: {
    status: 404,
    say: (callId: string) => `call ${callId} is not in the queue; it is done, was cancelled, or never came`,
  },
  QUEUE_CALL_NOT_DEAD: {
    status: 409,
    say: (callId: string) => `call ${callId} has not been given up; it is queued or runs already`,
  },
  RESULT_NOT_FOUND: {
    status: 404,
    say: (callId: string) =>
      `there is no result of call ${callId}: it never came, or its result was not kept, or not for so long; setting queue.keep_results or annotation napd.async-results keeps them`,
  },
  RESULT_NOT_KEPT: {
    status: 410,
    say: (callId: string, limit: number) =>
      `call ${callId} is done, but its answer was not kept: it is larger than the ${limit} bytes of setting queue.max_result, or the disk is full; a callback gets answers up to queue.max_body`,
  },
  CALLBACK_INVALID: {
    status: 400,
    say: (url: string) => `X-Callback-Url "${url}" is not an http or https URL`,
  },
  CALLBACK_REFUSED: {
    status: 400,
    say: (host: string, address: string) =>
      `callback host ${host} has the internal address ${address}; setting queue.callback_allow opens it`,
  },
  CALLBACK_FAILED: { status: 502, say: (host: string, why: string) => `the callback to ${host} failed: ${why}` },
  UPSTREAM_FAILED: { status: 502, say: (name: string, why: string) => `function ${name} did not answer: ${why}` },
  UPSTREAM_TIMEOUT: {
    status: 504,
    say: (name: string, s: number, setting: string, when: string) =>
      `function ${name} did not answer within ${s} s (${setting})${when && `: ${when}`}`,
  },

  // --- this machine --------------------------------------------------------------------------------------------
  CONFIG: { status: 500, say: (why: string) => why },
  HOST_COMMAND: { status: 500, say: (command: string, why: string) => `${command} failed: ${why}` },
  HOST_LACKS: { status: 500, say: (what: string, remedy: string) => `this machine lacks ${what}: ${remedy}` },
  INSTALL: {
    status: 500,
    say: (what: string, remedy: string, lines?: string) => `${what}; ${remedy}${lines ? `\n${lines}` : ""}`,
  },
  DISK_FULL: {
    status: 507,
    say: (what: string) =>
      `no space is left on this machine for ${what}; free some on the file systems of paths.data, paths.run and paths.logs`,
  },
  CONTAINERD: {
    status: 500,
    say: (call: string, code: string, why: string) => `containerd answered ${call} with ${code}: ${why}`,
  },
  CONTAINERD_UNAVAILABLE: {
    status: 503,
    say: (socket: string) =>
      `containerd does not answer on ${socket}; start it, or name its socket with setting containerd.socket`,
  },
  STORE: { status: 500, say: (file: string, why: string) => `the state database ${file} cannot be used: ${why}` },
  QUEUE_STORE: { status: 500, say: (file: string, why: string) => `the queue in ${file} cannot be used: ${why}` },
  BACKUP: { status: 500, say: (file: string, why: string) => `the backup ${file} could not be written: ${why}` },
  QUEUE_SERVER: {
    status: 503,
    say: (server: string, why: string) =>
      `the NATS server ${server} that keeps the queue cannot be used: ${why}; start it, or correct setting queue.url, and try again`,
  },
  QUEUE_SERVER_FULL: {
    status: 507,
    say: (server: string, why: string) =>
      `the NATS server ${server} has no room for the queue: ${why}; give its JetStream store more, or take something away`,
  },
  RESTORE: { status: 500, say: (file: string, why: string) => `${file} was not restored, nothing has changed: ${why}` },
  LISTEN: {
    status: 500,
    say: (address: string, why: string, setting: string) =>
      `cannot listen on ${address}: ${why}; free it or change setting ${setting}`,
  },
  TLS_CERTIFICATE: {
    status: 500,
    say: (file: string, why: string) =>
      `certificate ${file} cannot be used: ${why}; settings tls.certificate and tls.key name the files`,
  },
  SHUTTING_DOWN: { status: 503, say: () => "napd is shutting down; try again in a moment" },
  INTERNAL: { status: 500, say: (why: string) => `internal error: ${why}` },
} as const satisfies Record<string, { status: number; say: (...args: never[]) => string }>;

export type ErrorCode = keyof typeof catalogue;
type Arguments<C extends ErrorCode> = Parameters<(typeof catalogue)[C]["say"]>;

/** An error of the catalogue. `message` is the sentence, `status` what an HTTP edge answers with. */
export class AppError<C extends ErrorCode = ErrorCode> extends Error {
  override readonly name = "AppError";
  readonly code: C;
  readonly status: number;
  constructor(code: C, args: Arguments<C>, options?: { cause?: unknown }) {
    const entry = catalogue[code];
    super((entry.say as (...a: unknown[]) => string)(...args), options);
    this.code = code;
    this.status = entry.status;
  }
}

/** Whether `e` is an AppError, of that code if one is given. */
export function isAppError<C extends ErrorCode>(e: unknown, code?: C): e is AppError<C> {
  return e instanceof AppError && (code === undefined || e.code === code);
}

/** The sentence of anything thrown. */
export function messageOf(e: unknown): string {
  return e instanceof Error ? e.message : String(e);
}

/** The system's error code (ENOENT, EADDRINUSE, …) of anything thrown, or undefined. */
export function systemCode(e: unknown): string | undefined {
  return e instanceof Error && "code" in e && typeof e.code === "string" ? e.code : undefined;
}

/** Codes with their statuses and sentences, for the documentation and its test. */
export function listErrors(): { code: string; status: number; say: (...args: unknown[]) => string }[] {
  return Object.entries(catalogue).map(([code, { status, say }]) => ({
    code,
    status,
    say: say as (...args: unknown[]) => string,
  }));
}
