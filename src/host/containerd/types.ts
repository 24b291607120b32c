/** A piece of content by what it is: contracts/containerd.md §1.2. `size` in bytes, as decimal text on answers. */
export interface Descriptor {
  media_type: string;
  digest: string;
  size: string | number;
  annotations?: Record<string, string>;
}

/** A mount as a snapshotter gives it; passed on to Tasks.Create and Diff.Apply unchanged. */
export interface Mount {
  type: string;
  source: string;
  target: string;
  options: string[];
}

export interface Timestamp {
  seconds: string;
  nanos: number;
}
