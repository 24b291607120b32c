/**
 * `npm run build:docs`: writes the pages of docs/ that are made from the source. A test compares them with a fresh
 * generation, so a changed setting or error comes with its page.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { listErrors } from "../src/base/errors.ts";
import { loadConfig, printConfig, sampleConfig } from "../src/config.ts";

const root = join(import.meta.dirname, "..");

/** What is made, by path. */
export function pages(): Record<string, string> {
  return {
    "docs/errors.md": errorsPage(),
    "docs/configuration.md": configurationPage(),
    "systemd/napd.ini": sampleFile(),
  };
}

function errorsPage(): string {
  const rows = listErrors()
    .map(({ code, status, say }) => `| \`${code}\` | ${status} | ${cell(sentence(say))} |`)
    .join("\n");
  return `# Errors

<!-- made by \`npm run build:docs\` from src/base/errors.ts -->

Every error that napd shows to somebody. The code stays the same for good; the status is what the API or a call
answers with, as plain text. Errors of calls carry the header \`X-OpenFaaS-Internal: napd\`, which tells them from
answers of the function.

| Code | Status | Sentence |
|---|---|---|
${rows}
`;
}

/** The sentence with the names of its arguments in braces. */
export function sentence(say: (...args: unknown[]) => string): string {
  const list = /^\(([^)]*)\)/.exec(say.toString())?.[1] ?? "";
  const names = list.split(",").flatMap((name) => name.trim() || []);
  // counted with, so a placeholder would become NaN
  return say(...names.map((name) => (name === "ms" ? 60_000 : `{${name}}`)));
}

/** A cell of a table: a bar or the end of a line would end it. */
function cell(text: string): string {
  return text.replaceAll("|", "\\|").replaceAll("\n", " ");
}

function configurationPage(): string {
  const config = loadConfig({ file: "/nonexistent", fileIsRequired: false, environment: {}, flags: [] });
  return `# Configuration

<!-- made by \`npm run build:docs\` from src/settings.ts -->

Every setting with its default, as an ini file; \`napd --print-config\` prints it with the values in force. Weakest
first, settings come from the file (\`--config FILE\`, else \`/etc/napd/napd.ini\` if it is there), from environment
variables \`NAPD_SECTION_KEY\`, and from \`--set section.key=value\`. Unknown settings are refused.

\`\`\`ini
${printConfig(config)}\`\`\`
`;
}

function sampleFile(): string {
  return `; Settings of napd, for /etc/napd/napd.ini. Made by \`npm run build:docs\` from src/settings.ts.
;
; Every setting with its default: take the first ; of its line away and change it. Durations are written as 30s or 1m30s,
; amounts of bytes as 256Mi or 4Gi. What is marked live is taken up by \`systemctl reload napd\`, everything else by a
; restart; \`napd --print-config\` says what is in force.

${sampleConfig()}`;
}

if (import.meta.main) for (const [file, text] of Object.entries(pages())) writeFileSync(join(root, file), text);
