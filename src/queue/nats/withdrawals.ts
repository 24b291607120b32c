import type { Pending } from "../../base/pending.ts";
import type { NatsBodies } from "./bodies.ts";
import type { Link } from "./connection.ts";
import type { Key, Layout } from "./layout.ts";
import type { Packed } from "./messages.ts";
import { purgeKey } from "./runs.ts";

interface Withdrawal {
  readonly key: Key;
  readonly bodyId: string | undefined;
}

export interface WithdrawalsOptions {
  readonly link: Link;
  readonly layout: Layout;
  readonly bodies: NatsBodies;
  /** Hears of work that goes on by itself. */
  readonly behind: Pending;
}

/** What was published without an answer, and whoever asked was told that it was not: it is taken back. */
export class Withdrawals {
  readonly #o: WithdrawalsOptions;
  readonly #open = new Set<Withdrawal>();

  constructor(options: WithdrawalsOptions) {
    this.#o = options;
  }

  add({ key, info }: Packed): void {
    const withdrawal = { key, bodyId: info.body?.id };
    this.#open.add(withdrawal);
    this.#try(withdrawal);
  }

  /** Once more, for those that could not be taken back: the server is there again. */
  retry(): void {
    for (const withdrawal of this.#open) this.#try(withdrawal);
  }

  #try(withdrawal: Withdrawal): void {
    const { link, layout, bodies, behind } = this.#o;
    const work = async () => {
      await link.ask(({ jsm }) => purgeKey(jsm, layout, "messages", withdrawal.key));
      if (withdrawal.bodyId !== undefined) await bodies.remove(withdrawal.bodyId);
      this.#open.delete(withdrawal);
    };
    behind.add(work());
  }
}
