/** How many columns of a terminal a text takes: two for wide characters and emoji, none for marks on others. */
export function widthOf(text: string): number {
  if (isPlain(text)) return text.length;
  let width = 0;
  for (const { segment } of graphemes(text)) width += widthOfGrapheme(segment);
  return width;
}

/** The beginning of a text that takes at most `width` columns, with `…` where something is missing. */
export function cut(text: string, width: number): string {
  if (widthOf(text) <= width) return text;
  if (isPlain(text)) return `${text.slice(0, width - 1)}…`;
  let taken = "";
  let room = width - 1;
  for (const { segment } of graphemes(text)) {
    room -= widthOfGrapheme(segment);
    if (room < 0) break;
    taken += segment;
  }
  return `${taken}…`;
}

export const pad = (text: string, width: number): string => text + " ".repeat(Math.max(0, width - widthOf(text)));

/** Every character takes one column: so it is nearly always, and quickly found out. */
const isPlain = (text: string): boolean => /^[\x20-\x7e…]*$/.test(text);

let segmenter: Intl.Segmenter | undefined;
function graphemes(text: string): Intl.Segments {
  segmenter ??= new Intl.Segmenter(undefined, { granularity: "grapheme" });
  return segmenter.segment(text);
}

function widthOfGrapheme(grapheme: string): number {
  if (/^[\p{Mn}\p{Me}\p{Cf}\p{Cc}]+$/u.test(grapheme)) return 0;
  return /^\p{Emoji_Presentation}|\ufe0f/u.test(grapheme) || wide.test(grapheme) ? 2 : 1;
}

/** The wide and full-width blocks of Unicode's East Asian Width (UAX #11). */
const wide =
  /^[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\ua960-\ua97f\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff01-\uff60\uffe0-\uffe6\u{1f300}-\u{1f64f}\u{1f900}-\u{1f9ff}\u{20000}-\u{3fffd}]/u;
