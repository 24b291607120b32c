import { writeOciArchive } from "../scripts/oci-image.ts";
import { compileC } from "./process.ts";

/** Writes the C upstream of this folder as an image that serves as a function; returns the archive. */
export async function upstreamImage(dir: string, ref: string): Promise<string> {
  const program = await compileC(dir, "upstream", "-static");
  const archive = `${dir}/upstream.tar`;
  const layers = [[{ path: "/upstream", file: program, mode: 0o755 }]];
  await writeOciArchive(archive, { ref, layers, cmd: ["/upstream", "8080", "any"] });
  return archive;
}
