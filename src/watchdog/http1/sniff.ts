/**
 * The media type of a body that nobody named, from its first 512 bytes: the WHATWG MIME sniffing rules in the
 * selection of Go's http.DetectContentType, which the reference applies (contracts/watchdog.md §2).
 */
export function sniffContentType(body: Uint8Array): string {
  const start = Buffer.from(body.buffer, body.byteOffset, Math.min(body.length, 512));
  const text = start.toString("latin1");
  const trimmed = text.replace(/^[\t\n\f\r ]+/, "");
  if (HTML.test(trimmed)) return "text/html; charset=utf-8";
  if (trimmed.startsWith("<?xml")) return "text/xml; charset=utf-8";
  for (const [signature, type] of signatures) if (signature.test(text)) return type;
  return BINARY.test(text) ? "application/octet-stream" : "text/plain; charset=utf-8";
}

const HTML = /^<(?:!--|(?:!DOCTYPE HTML|HTML|HEAD|SCRIPT|IFRAME|H1|DIV|FONT|TABLE|A|STYLE|TITLE|B|BODY|BR|P)[ >])/i;

// biome-ignore lint/suspicious/noControlCharactersInRegex: bytes that no text has are the very point
const BINARY = /[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]/;

/* biome-ignore-start lint/suspicious/noControlCharactersInRegex: signatures of binary formats */
const signatures: readonly (readonly [RegExp, string])[] = [
  [/^%PDF-/, "application/pdf"],
  [/^%!PS-Adobe-/, "application/postscript"],
  [/^\xfe\xff/, "text/plain; charset=utf-16be"],
  [/^\xff\xfe/, "text/plain; charset=utf-16le"],
  [/^\xef\xbb\xbf/, "text/plain; charset=utf-8"],
  [/^\x00\x00\x01\x00|^\x00\x00\x02\x00/, "image/x-icon"],
  [/^BM/, "image/bmp"],
  [/^GIF8[79]a/, "image/gif"],
  [/^RIFF[\s\S]{4}WEBPVP/, "image/webp"],
  [/^\x89PNG\r\n\x1a\n/, "image/png"],
  [/^\xff\xd8\xff/, "image/jpeg"],
  [/^FORM[\s\S]{4}AIFF/, "audio/aiff"],
  [/^ID3/, "audio/mpeg"],
  [/^OggS\x00/, "application/ogg"],
  [/^MThd\x00\x00\x00\x06/, "audio/midi"],
  [/^RIFF[\s\S]{4}AVI /, "video/avi"],
  [/^RIFF[\s\S]{4}WAVE/, "audio/wave"],
  [/^[\s\S]{4}ftyp[\s\S]{0,24}?mp4/, "video/mp4"],
  [/^\x1a\x45\xdf\xa3/, "video/webm"],
  [/^\x00\x01\x00\x00/, "font/ttf"],
  [/^OTTO/, "font/otf"],
  [/^ttcf/, "font/collection"],
  [/^wOFF/, "font/woff"],
  [/^wOF2/, "font/woff2"],
  [/^\x1f\x8b\x08/, "application/x-gzip"],
  [/^PK\x03\x04/, "application/zip"],
  [/^Rar!\x1a\x07(\x00|\x01\x00)/, "application/x-rar-compressed"],
  [/^\x00asm/, "application/wasm"],
];
/* biome-ignore-end lint/suspicious/noControlCharactersInRegex: end of the signatures */
