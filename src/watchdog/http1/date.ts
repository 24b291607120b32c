let second = 0;
let text = "";

/** The field Date with its line end (RFC 9110 §6.6.1). It is the same for a second. */
export function dateLine(): string {
  const now = Math.floor(Date.now() / 1000);
  if (now !== second) {
    second = now;
    text = `Date: ${new Date(now * 1000).toUTCString()}\r\n`;
  }
  return text;
}
