const bounds = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];
const verbs = new Set(["GET", "PUT", "HEAD", "POST", "DELETE", "CONNECT", "OPTIONS", "NOTIFY", "TRACE", "PATCH"]);

/** Calls of one method with one result. */
class Series {
  /** Per bucket, not cumulated; the last one is beyond every bound. */
  readonly counts = new Float64Array(bounds.length + 1);
  sum = 0;

  add(seconds: number): void {
    let i = 0;
    while (i < bounds.length && seconds > bounds[i]!) i++;
    this.counts[i]!++;
    this.sum += seconds;
  }
}

/** Counts calls of the function (contracts/watchdog.md §1.7). Made for the hot path: text is made when asked for. */
export class CallMetrics {
  readonly #series = new Map<string, Map<number, Series>>();
  inflight = 0;

  /** A call is over. `status` 0: its connection ended before anything was answered, counted as code 499. */
  record(method: string, status: number, seconds: number): void {
    const verb = verbs.has(method) ? method : "unknown";
    const codes = gotOrMade(this.#series, verb, () => new Map<number, Series>());
    gotOrMade(codes, status, () => new Series()).add(seconds);
  }

  /** In the text format of Prometheus, without what concerns the process. */
  print(): string {
    const totals: string[] = [];
    const durations: string[] = [];
    for (const [method, codes] of this.#series)
      for (const [status, series] of codes) {
        const labels = `code="${status || 499}",method="${method.toLowerCase()}"`;
        const count = series.counts.reduce((sum, n) => sum + n, 0);
        totals.push(`http_requests_total{${labels}} ${count}\n`);
        durations.push(histogram(series, labels, count));
      }
    return (
      family("http_requests_total", "counter", "total HTTP requests processed", totals) +
      family("http_request_duration_seconds", "histogram", "Seconds spent serving HTTP requests.", durations) +
      family("http_requests_in_flight", "gauge", "total HTTP requests in-flight", [
        `http_requests_in_flight ${this.inflight}\n`,
      ])
    );
  }
}

function gotOrMade<K, V>(map: Map<K, V>, key: K, make: () => V): V {
  const there = map.get(key);
  if (there !== undefined) return there;
  const made = make();
  map.set(key, made);
  return made;
}

function histogram({ counts, sum }: Series, labels: string, count: number): string {
  const name = "http_request_duration_seconds";
  let below = 0;
  let text = "";
  for (const [i, bound] of bounds.entries()) {
    below += counts[i]!;
    text += `${name}_bucket{${labels},le="${bound}"} ${below}\n`;
  }
  text += `${name}_bucket{${labels},le="+Inf"} ${count}\n`;
  return `${text}${name}_sum{${labels}} ${sum}\n${name}_count{${labels}} ${count}\n`;
}

/** A family of samples with its head; nothing at all without samples. */
export function family(name: string, type: "counter" | "gauge" | "histogram", help: string, samples: string[]): string {
  return samples.length === 0 ? "" : `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n${samples.join("")}`;
}
