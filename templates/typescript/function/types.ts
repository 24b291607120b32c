/** One request. */
export interface Event {
  readonly method: string;
  readonly path: string;
  /** Several values of one name are a list. */
  readonly query: Readonly<Record<string, string | string[]>>;
  /** By names in small letters. */
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  /** Text, or what a JSON body means; with RAW_BODY=true the bytes. */
  readonly body: unknown;
}

/** The answer to it. */
export interface Context {
  status(): number;
  status(status: number): this;
  headers(): Record<string, string>;
  headers(headers: Record<string, string>): this;
  /** Objects become JSON; bytes and streams pass as they are. */
  succeed(value: unknown): unknown;
  /** 500, unless a status was set. */
  fail(error: unknown): void;
}
