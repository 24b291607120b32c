import { join } from "node:path";

/** Where an installation keeps what is its own. Data, logs and run files are where the settings say. */
export interface Places {
  /** Begins with an empty name on a machine; tests put everything below a folder. */
  readonly root: string;
  readonly home: string;
  /** A folder for each release, see `Release.name`. */
  readonly releases: string;
  /** Links to the release that runs, and to the one before it. */
  readonly current: string;
  readonly previous: string;
  /** Where links to the programs go. */
  readonly bin: string;
  readonly units: string;
  readonly settings: string;
}

export function placesIn(root: string): Places {
  const home = join(root, "/opt/napd");
  return {
    root,
    home,
    releases: join(home, "releases"),
    current: join(home, "current"),
    previous: join(home, "previous"),
    bin: join(root, "/usr/local/bin"),
    units: join(root, "/etc/systemd/system"),
    settings: join(root, "/etc/napd"),
  };
}

/** Those that have a link in `Places.bin`. */
export const programs = ["napd", "nap"];

/** Whether a folder of the settings is napd's alone: `paths.logs` may be /var/log, where others are at home too. */
export function isOwn(folder: string): boolean {
  return folder.split("/").some((name) => name.includes("napd"));
}
