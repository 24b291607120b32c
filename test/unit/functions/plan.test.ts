import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { plan } from "../../../src/functions/plan.ts";
import type { ReplicaState } from "../../../src/functions/replica.ts";

/** `GENERATION.NUMBER STATE`, and `adopted` */
function replicaOf(text: string) {
  const [id = "", state = "", adopted] = text.split(" ");
  const [generation, number] = id.split(".").map(Number) as [number, number];
  return { id, generation, number, state: state as ReplicaState, adopted: adopted !== undefined };
}

interface Row {
  says: string;
  /** Wanted: generation × count. */
  want: [generation: number, count: number];
  have: string[];
  start?: number[];
  route?: string[];
  retire?: string[];
}

const rows: Row[] = [
  // a new function
  { says: "a new function starts all its replicas", want: [1, 2], have: [], start: [0, 1] },
  { says: "what is being started is waited for", want: [1, 2], have: ["1.0 starting"], start: [1] },
  {
    says: "a replica of a new function gets requests as soon as it is ready",
    want: [1, 2],
    have: ["1.0 ready", "1.1 starting"],
    route: ["1.0"],
  },
  {
    says: "a complete function has nothing to do",
    want: [1, 2],
    have: ["1.0 ready", "1.1 ready"],
    route: ["1.0", "1.1"],
  },
  { says: "who sleeps serves", want: [1, 2], have: ["1.0 frozen", "1.1 ready"], route: ["1.0", "1.1"] },

  // update
  {
    says: "an old one that ran before napd did is looked at, and not given up before the new one is ready",
    want: [2, 1],
    have: ["1.0 starting adopted", "2.0 starting"],
  },
  {
    says: "nor when another old one has been looked at",
    want: [2, 2],
    have: ["1.0 ready adopted", "1.1 starting adopted", "2.0 starting adopted", "2.1 ready"],
    route: ["1.0"],
  },
  {
    says: "but is when the new one is ready",
    want: [2, 1],
    have: ["1.0 starting adopted", "2.0 ready"],
    route: ["2.0"],
    retire: ["1.0"],
  },
  {
    says: "an adopted one beyond the wanted number is given up at once",
    want: [1, 1],
    have: ["1.0 ready", "1.1 starting adopted"],
    route: ["1.0"],
    retire: ["1.1"],
  },
  {
    says: "an update starts the new one beside the old one",
    want: [2, 1],
    have: ["1.0 ready"],
    start: [0],
    route: ["1.0"],
  },
  {
    says: "the old one serves while the new one starts",
    want: [2, 1],
    have: ["1.0 ready", "2.0 starting"],
    route: ["1.0"],
  },
  {
    says: "when the new one is ready it serves, and the old one goes",
    want: [2, 1],
    have: ["1.0 ready", "2.0 ready"],
    route: ["2.0"],
    retire: ["1.0"],
  },
  {
    says: "an old one that sleeps is gone from as from any other",
    want: [2, 1],
    have: ["1.0 frozen", "2.0 ready"],
    route: ["2.0"],
    retire: ["1.0"],
  },
  {
    says: "of several, the old ones serve until the last new one is ready",
    want: [2, 3],
    have: ["1.0 ready", "1.1 ready", "1.2 ready", "2.0 ready", "2.1 ready", "2.2 starting"],
    route: ["1.0", "1.1", "1.2"],
  },
  {
    says: "of several, all change at once",
    want: [2, 2],
    have: ["1.0 ready", "1.1 ready", "2.0 ready", "2.1 ready"],
    route: ["2.0", "2.1"],
    retire: ["1.0", "1.1"],
  },
  {
    says: "an update to more replicas starts as many as are wanted",
    want: [2, 3],
    have: ["1.0 ready"],
    start: [0, 1, 2],
    route: ["1.0"],
  },
  {
    says: "a newer update ends the start of the one before, and leaves what serves",
    want: [3, 1],
    have: ["1.0 ready", "2.0 starting"],
    start: [0],
    route: ["1.0"],
    retire: ["2.0"],
  },
  {
    says: "with the old one lost, ready new ones serve before all of them are there",
    want: [2, 2],
    have: ["1.0 stopping", "2.0 ready", "2.1 starting"],
    route: ["2.0"],
  },
  {
    says: "back to the older version while it still serves: nothing starts, the newer one goes",
    want: [1, 1],
    have: ["1.0 ready", "2.0 failed"],
    route: ["1.0"],
    retire: ["2.0"],
  },

  // failures
  { says: "a failed replica is cleared away first", want: [1, 1], have: ["1.0 failed"], retire: ["1.0"] },
  { says: "nothing starts under a name that is still in use", want: [1, 1], have: ["1.0 stopping"] },
  {
    says: "a failed one leaves the others serving",
    want: [1, 2],
    have: ["1.0 ready", "1.1 failed"],
    route: ["1.0"],
    retire: ["1.1"],
  },
  {
    says: "a failed new one leaves the old one serving",
    want: [2, 1],
    have: ["1.0 ready", "2.0 failed"],
    route: ["1.0"],
    retire: ["2.0"],
  },
  {
    says: "a failed old one goes at once",
    want: [2, 1],
    have: ["1.0 failed", "2.0 starting"],
    retire: ["1.0"],
  },

  // scale
  { says: "scaling up starts the missing ones", want: [1, 3], have: ["1.0 ready"], start: [1, 2], route: ["1.0"] },
  {
    says: "scaling up fills gaps",
    want: [1, 3],
    have: ["1.0 ready", "1.2 ready"],
    start: [1],
    route: ["1.0", "1.2"],
  },
  {
    says: "scaling down keeps the first ones",
    want: [1, 1],
    have: ["1.0 ready", "1.1 ready", "1.2 starting"],
    route: ["1.0"],
    retire: ["1.1", "1.2"],
  },
  {
    says: "scaling down while the first one is not there keeps somebody serving",
    want: [1, 1],
    have: ["1.0 starting", "1.1 ready"],
    route: ["1.1"],
  },
  {
    says: "scaling to zero retires everybody and routes to nobody",
    want: [1, 0],
    have: ["1.0 ready", "1.1 frozen", "1.2 starting", "1.3 failed"],
    retire: ["1.0", "1.1", "1.2", "1.3"],
  },
  { says: "at zero there is nothing to do", want: [1, 0], have: [] },
  { says: "at zero, who stops already is left alone", want: [1, 0], have: ["1.0 stopping"] },

  // delete: no generation is wanted
  {
    says: "a deleted function retires everything of any generation",
    want: [-1, 0],
    have: ["1.0 ready", "2.0 starting", "3.0 failed", "4.0 stopping"],
    retire: ["1.0", "2.0", "3.0"],
  },
];

suite("the plan", () => {
  for (const { says, want, have, start = [], route = [], retire = [] } of rows)
    test(says, () => {
      const p = plan(want[0], want[1], have.map(replicaOf));
      assert.deepEqual(p.start, start, "to start");
      assert.deepEqual(p.route.map((r) => r.id).sort(), route, "to route to");
      assert.deepEqual(p.retire.map((r) => r.id).sort(), retire, "to retire");
    });

  // every state of up to four replicas of two generations, for what holds whatever the case
  const states: ReplicaState[] = ["starting", "ready", "frozen", "failed", "stopping"];
  const ids = ["1.0", "1.1", "2.0", "2.1"];
  const worlds = ids.reduce<string[][]>(
    (all, id) => all.flatMap((world) => [world, ...states.map((state) => [...world, `${id} ${state}`])]),
    [[]],
  );

  const laws: {
    says: string;
    holds: (p: ReturnType<typeof plan>, replicas: ReturnType<typeof replicaOf>[], count: number) => boolean;
  }[] = [
    {
      says: "only those who serve are routed to",
      holds: (p) => p.route.every((r) => r.state === "ready" || r.state === "frozen"),
    },
    { says: "nobody is routed to and retired at once", holds: (p) => p.route.every((r) => !p.retire.includes(r)) },
    {
      says: "nothing is started under a name in use",
      holds: (p, replicas) => p.start.every((n) => !replicas.some((r) => r.generation === 2 && r.number === n)),
    },
    {
      says: "while anybody serves and some are wanted, somebody is routed to",
      holds: (p, replicas, count) =>
        count === 0 || p.route.length > 0 || !replicas.some((r) => r.state === "ready" || r.state === "frozen"),
    },
    { says: "who stops is not told again", holds: (p) => p.retire.every((r) => r.state !== "stopping") },
    {
      says: "who failed is cleared away",
      holds: (p, replicas) => replicas.every((r) => r.state !== "failed" || p.retire.includes(r)),
    },
    {
      says: "two generations are never routed to at once",
      holds: (p) => new Set(p.route.map((r) => r.generation)).size <= 1,
    },
  ];
  for (const { says, holds } of laws)
    test(`${says}, in each of ${worlds.length} situations`, () => {
      for (const world of worlds)
        for (const count of [0, 1, 2]) {
          const replicas = world.map(replicaOf);
          assert.ok(holds(plan(2, count, replicas), replicas, count), `${count} of generation 2: ${world.join(", ")}`);
        }
    });
});
