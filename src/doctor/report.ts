import type { Finding } from "./checks.ts";

/** `ok` is false when something failed; warnings alone leave it true. */
export function report(findings: readonly Finding[], asJson: boolean): { text: string; ok: boolean } {
  const ok = findings.every(({ level }) => level !== "failure");
  return { ok, text: asJson ? `${JSON.stringify({ ok, checks: findings }, null, 2)}\n` : lines(findings) };
}

const marks = { ok: "OK", warning: "warning", failure: "FAILURE" };

function lines(findings: readonly Finding[]): string {
  const width = Math.max(...findings.map(({ check }) => check.length));
  const indent = " ".repeat(width + 11);
  return findings
    .map(({ check, level, message, remedy }) => {
      const line = `${marks[level].padEnd(7)}  ${check.padEnd(width)}  ${message}\n`;
      return remedy === "" ? line : `${line}${indent}→ ${remedy}\n`;
    })
    .join("");
}
