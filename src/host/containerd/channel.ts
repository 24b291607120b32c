import { join } from "node:path";
import {
  Client,
  type ClientDuplexStream,
  type ClientReadableStream,
  connectivityState,
  credentials,
  Metadata,
  type ServiceError,
  status,
} from "@grpc/grpc-js";
import { load, type MethodDefinition, type PackageDefinition, type ServiceDefinition } from "@grpc/proto-loader";
import { AppError } from "../../base/errors.ts";
import { installationRoot } from "../../installation.ts";

/** Where our minimal .proto files are. */
const protoDir = join(installationRoot, "proto");
const files = [
  "version",
  "introspection",
  "namespaces",
  "leases",
  "content",
  "images",
  "diff",
  "snapshots",
  "containers",
  "tasks",
  "events",
  "payloads",
];

/** containerd sends and takes messages of up to 16 MiB; grpc-js alone would stop at 4. */
const maxMessageBytes = 16 * 1024 * 1024;

/** An answer of containerd that is an error. `status` is the gRPC code; its text is for people only. */
export class ContainerdError extends AppError<"CONTAINERD"> {
  readonly grpc: status;
  constructor(method: string, cause: ServiceError) {
    super("CONTAINERD", [method, status[cause.code] ?? String(cause.code), cause.details || cause.message], { cause });
    this.grpc = cause.code;
  }
}

export const isNotFound = (e: unknown) => e instanceof ContainerdError && e.grpc === status.NOT_FOUND;
export const isExists = (e: unknown) => e instanceof ContainerdError && e.grpc === status.ALREADY_EXISTS;
/** Something is still in it, or depends on it. */
export const isNotEmpty = (e: unknown) => e instanceof ContainerdError && e.grpc === status.FAILED_PRECONDITION;
/** The connection broke, or containerd is not there: the outcome of a call that changes something is unknown. */
export const isUnavailable = (e: unknown) =>
  e instanceof ContainerdError &&
  (e.grpc === status.UNAVAILABLE || e.grpc === status.DEADLINE_EXCEEDED || e.grpc === status.CANCELLED);

/** Where and under what a call is made. */
export interface CallOptions {
  /** containerd namespace; left out only for Version, Namespaces and Introspection. */
  namespace?: string;
  /** Lease that keeps what the call makes from garbage collection. */
  lease?: string;
  /** Milliseconds until the call fails, `null` for none. @default 10000 */
  deadlineMs?: number | null;
  signal?: AbortSignal | undefined;
}

/** Any message with `type_url` and encoded `value`: containerd's type URLs have no `type.googleapis.com/` prefix. */
export interface AnyMessage {
  type_url: string;
  value: Buffer;
}

/**
 * One gRPC channel to containerd's unix socket, shared by all services. Calls wait for the connection within
 * their deadline, so a containerd that is restarting is not an error for whoever can wait; there is no keepalive,
 * because containerd closes connections that ping (contracts/containerd.md §4.6).
 */
export class Channel implements Disposable {
  readonly #client: Client;
  readonly #definitions: PackageDefinition;

  private constructor(socket: string, definitions: PackageDefinition) {
    this.#definitions = definitions;
    this.#client = new Client(`unix:${socket}`, credentials.createInsecure(), {
      "grpc.max_receive_message_length": maxMessageBytes,
      "grpc.max_send_message_length": maxMessageBytes,
      "grpc.initial_reconnect_backoff_ms": 100,
      "grpc.max_reconnect_backoff_ms": 2000,
    });
  }

  /** `socket` is an absolute path. Does not connect yet. */
  static async open(socket: string): Promise<Channel> {
    const definitions = await load(
      files.map((f) => `${f}.proto`),
      {
        includeDirs: [protoDir],
        keepCase: true,
        longs: String,
        enums: String,
        defaults: true,
        objects: true,
        arrays: true,
        oneofs: true,
      },
    );
    return new Channel(socket, definitions);
  }

  [Symbol.dispose](): void {
    this.#client.close();
  }

  /** False while the connection is lost and tried again. */
  get isConnected(): boolean {
    const state = this.#client.getChannel().getConnectivityState(false);
    return state === connectivityState.READY || state === connectivityState.IDLE;
  }

  #method(service: string, method: string): MethodDefinition<object, object> {
    const definition = (this.#definitions[service] as ServiceDefinition | undefined)?.[method];
    if (!definition) throw new Error(`no ${service}/${method} in proto/`);
    return definition;
  }

  #metadata(options: CallOptions): Metadata {
    const metadata = new Metadata({ waitForReady: true });
    if (options.namespace !== undefined) metadata.set("containerd-namespace", options.namespace);
    if (options.lease !== undefined) metadata.set("containerd-lease", options.lease);
    return metadata;
  }

  /** One request, one answer. Rejects with ContainerdError, or with the signal's reason. */
  unary<Request extends object, Response extends object>(
    service: string,
    method: string,
    request: Request,
    options: CallOptions,
  ): Promise<Response> {
    const { path, requestSerialize, responseDeserialize } = this.#method(service, method);
    const signal = options.signal;
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const call = this.#client.makeUnaryRequest(
        path,
        requestSerialize as (r: object) => Buffer,
        responseDeserialize,
        request,
        this.#metadata(options),
        deadlineOf(options),
        (error, response) => {
          signal?.removeEventListener("abort", abort);
          if (!error) resolve(response as Response);
          else
            reject(signal?.aborted ? signal.reason : new ContainerdError(path.slice(path.lastIndexOf(".") + 1), error));
        },
      );
      const abort = () => call.cancel();
      signal?.addEventListener("abort", abort, { once: true });
    });
  }

  /** Answers of a server stream, one by one. Ends without an error when the caller stops early. */
  async *stream<Response extends object>(
    service: string,
    method: string,
    request: object,
    options: CallOptions,
  ): AsyncGenerator<Response> {
    const { path, requestSerialize, responseDeserialize } = this.#method(service, method);
    const call = this.#client.makeServerStreamRequest(
      path,
      requestSerialize as (r: object) => Buffer,
      responseDeserialize,
      request,
      this.#metadata(options),
      deadlineOf(options),
    ) as ClientReadableStream<Response>;
    // After the loop is left, the cancelled call still emits its error: without a listener the process would die.
    call.on("error", () => {});
    const abort = () => call.cancel();
    options.signal?.addEventListener("abort", abort, { once: true });
    if (options.signal?.aborted) abort();
    try {
      for await (const message of call) yield message as Response;
    } catch (e) {
      throw options.signal?.aborted
        ? options.signal.reason
        : new ContainerdError(path.slice(path.lastIndexOf(".") + 1), e as ServiceError);
    } finally {
      options.signal?.removeEventListener("abort", abort);
      call.cancel();
    }
  }

  /** A stream in both directions; the caller listens to `data`, `end` and `error`. No deadline. */
  duplex<Request extends object, Response extends object>(
    service: string,
    method: string,
    options: CallOptions,
  ): ClientDuplexStream<Request, Response> {
    const { path, requestSerialize, responseDeserialize } = this.#method(service, method);
    return this.#client.makeBidiStreamRequest(
      path,
      requestSerialize as (r: Request) => Buffer,
      responseDeserialize as (b: Buffer) => Response,
      this.#metadata(options),
      {},
    );
  }

  /** Encodes a message of proto/payloads.proto as what `google.protobuf.Any` carries under `typeUrl`. */
  encode(message: string, typeUrl: string, value: object): AnyMessage {
    return { type_url: typeUrl, value: Buffer.from(this.#payload(message).serialize(value)) };
  }

  /** Decodes the value of an Any with a message of proto/payloads.proto. */
  decode<T extends object>(message: string, any: AnyMessage): T {
    return this.#payload(message).deserialize(any.value) as T;
  }

  #payload(message: string): { serialize(v: object): Buffer; deserialize(b: Buffer): object } {
    const definition = this.#definitions[`napd.payloads.${message}`];
    if (!definition || !("serialize" in definition)) throw new Error(`no ${message} in proto/payloads.proto`);
    return definition as { serialize(v: object): Buffer; deserialize(b: Buffer): object };
  }
}

/** grpc-js takes a moment and not a duration. */
function deadlineOf({ deadlineMs = 10_000 }: CallOptions): { deadline?: number } {
  return deadlineMs === null ? {} : { deadline: Date.now() + deadlineMs };
}

/** JSON in an Any, as containerd takes OCI documents. */
export function jsonAny(typeUrl: string, value: unknown): AnyMessage {
  return { type_url: typeUrl, value: Buffer.from(JSON.stringify(value)) };
}
