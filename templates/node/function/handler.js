/**
 * Called once for every request.
 * @param event - method, path, query, headers, body: text, or what a JSON body means
 * @param context - status(code), headers({}), succeed(value), fail(error)
 */
module.exports = async (event, context) => {
  const name = event.query.name ?? "world";
  return context
    .status(200)
    .headers({ "Content-Type": "application/json" })
    .succeed({ greeting: `Hello, ${name}`, received: event.body });
};
