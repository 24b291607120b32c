import { z } from "zod";
import { messageOf } from "../base/errors.ts";
import { splitAddress } from "../base/names.ts";
import type { AddResource, ApiOptions } from "./api.ts";
import { parseBody } from "./request.ts";

/** What Alertmanager's webhook sends, as far as it is looked at. */
const notification = z.object({
  alerts: z
    .array(
      z.object({
        status: z.string().nullish(),
        labels: z.record(z.string(), z.string()).nullish(),
      }),
    )
    .nullish(),
});

/** Alerts of Prometheus scale functions: contracts/api.md §2.8. */
export function alertRoutes(add: AddResource, { functions, defaultNamespace, log }: ApiOptions): void {
  add("/system/alert", {
    POST: async (request, reply) => {
      const { alerts } = parseBody(notification, request.body);
      const failures: string[] = [];
      for (const { status, labels } of alerts ?? []) {
        const target = labels?.function_name;
        if (!target) continue;
        try {
          await functions.alert(splitAddress(target, defaultNamespace), status === "firing");
        } catch (e) {
          failures.push(messageOf(e));
        }
      }
      if (failures.length === 0) return reply.code(200).send();
      log.warn({ failures }, "alerts could not be followed");
      const text = failures.map((failure, i) => `[${i}] ${failure}\n`).join("");
      return reply.code(500).type("text/plain; charset=utf-8").send(text);
    },
  });
}
