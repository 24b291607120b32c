import { keyOf } from "../base/names.ts";
import type { CallStats } from "./call-stats.ts";
import type { Observed } from "./managed.ts";

/** What metrics show of a function. */
export interface Sample {
  /** NAME.NAMESPACE. */
  readonly key: string;
  readonly name: string;
  readonly namespace: string;
  readonly calls: CallStats;
  readonly desired: number;
  readonly available: number;
  readonly minReplicas: number;
  /** What scaling aims at, for one replica. */
  readonly target: { readonly type: string; readonly load: number };
  /** Replicas by state. */
  readonly states: Readonly<Record<string, number>>;
}

export function sampleOf({ row, policy, calls, available, states }: Observed): Sample {
  const { name, namespace } = row;
  return {
    key: keyOf(row),
    ...{ name, namespace, calls, available, states },
    desired: row.replicas,
    minReplicas: policy.minReplicas,
    target: { type: policy.scale.measure, load: policy.scale.target },
  };
}
