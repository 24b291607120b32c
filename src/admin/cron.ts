import type { FastifyRequest } from "fastify";
import { AppError } from "../base/errors.ts";
import { splitAddress } from "../base/names.ts";
import type { CronStatus } from "../trigger/cron.ts";
import type { AddResource, ApiOptions } from "./api.ts";
import { nameInPath, namespaceOf } from "./request.ts";

type Run = CronStatus["runs"][number];

/** Schedules of functions and what came of them: ours, with OpenFaaS this is in a connector's log. */
export function cronRoutes(add: AddResource, { cron, namespaces, defaultNamespace }: ApiOptions): void {
  add("/system/cron", {
    GET: async (request) => cron.list(checked(request, defaultNamespace)).map(shown),
  });

  add(`/system/cron/${nameInPath}/run`, {
    POST: async (request, reply) => {
      const { name, namespace } = splitAddress((request.params as { name: string }).name, defaultNamespace);
      const run = cron.run({ name, namespace: checked(request, namespace) });
      return reply.code(202).send(shownRun(run));
    },
  });

  function checked(request: FastifyRequest, fallback: string): string {
    const namespace = namespaceOf(request, undefined, fallback);
    if (!namespaces.list().includes(namespace)) throw new AppError("NAMESPACE_NOT_FOUND", [namespace]);
    return namespace;
  }
}

/** Runs latest first, instants as RFC 3339, durations in seconds as everywhere in the API. */
function shown({ schedules, runs, isAsync, problems, ...status }: CronStatus) {
  return {
    ...status,
    async: isAsync,
    schedules: schedules.map(({ next, ...schedule }) => ({ ...schedule, next: instant(next) })),
    errors: problems,
    runs: runs.map(shownRun).reverse(),
  };
}

function shownRun({ scheduledAt, startedAt, durationMs, ...run }: Run) {
  const duration = durationMs === null ? null : Math.round(durationMs) / 1000;
  return { ...run, scheduledAt: instant(scheduledAt), startedAt: instant(startedAt), duration };
}

function instant(ms: number | null): string | null {
  return ms === null ? null : new Date(ms).toISOString();
}
