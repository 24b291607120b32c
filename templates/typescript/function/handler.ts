import type { Context, Event } from "./types.ts";

/** Called once for every request. */
export default async (event: Event, context: Context): Promise<unknown> => {
  const name = event.query.name ?? "world";
  return context
    .status(200)
    .headers({ "Content-Type": "application/json" })
    .succeed({ greeting: `Hello, ${name}`, received: event.body });
};
