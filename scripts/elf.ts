/** What has to be known of an ELF file (64 bits, little endian) to mend one. Offsets and types: elf(5). */
import { closeSync, openSync, readSync, writeSync } from "node:fs";

const DYNAMIC = 6; // SHT_DYNAMIC
const GNU_VERDEF = 0x6ffffffd; // SHT_GNU_verdef
const VERDEF = 0x6ffffffcn; // DT_VERDEF

/**
 * patchelf (0.14.3) moves `.gnu.version_d` where it needs the room and forgets the one entry that leads
 * there: the loader then reads what happens to be in the old place. Points the entry to the section again.
 */
export function repairVersionDefinitions(file: string): void {
  const fd = openSync(file, "r+");
  try {
    const read = (offset: number, length: number): Buffer => {
      const bytes = Buffer.alloc(length);
      if (readSync(fd, bytes, 0, length, offset) !== length) throw new Error(`${file} is no complete ELF file`);
      return bytes;
    };
    const header = read(0, 64);
    const size = header.readUInt16LE(58);
    const table = read(Number(header.readBigUInt64LE(40)), size * header.readUInt16LE(60));
    const section = (type: number): Buffer | undefined => {
      for (let at = 0; at < table.length; at += size)
        if (table.readUInt32LE(at + 4) === type) return table.subarray(at, at + size);
      return undefined;
    };
    const [dynamic, definitions] = [section(DYNAMIC), section(GNU_VERDEF)];
    if (!dynamic || !definitions) return;
    const offset = Number(dynamic.readBigUInt64LE(24));
    const entries = read(offset, Number(dynamic.readBigUInt64LE(32)));
    for (let at = 0; at < entries.length; at += 16)
      if (entries.readBigUInt64LE(at) === VERDEF) writeSync(fd, definitions, 16, 8, offset + at + 8);
  } finally {
    closeSync(fd);
  }
}
