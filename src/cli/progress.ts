/**
 * Progress of long work over bytes: a bar with speed and remaining time on a terminal, else a line every 10 %.
 *
 * Invariant: nothing but the given stream is written to; labels are printed as they are, so they must be free of
 * control characters. Callers: cli commands; app hands its progress events on.
 */
import { createRequire } from "node:module";
import type { SingleBar } from "cli-progress";

export interface Progress {
  /** A new label starts a new bar. `done` ≤ `total`, in bytes. */
  update(label: string, done: number, total: number): void;
  /** Ends the bar; harmless when none runs. */
  stop(): void;
}

export interface ProgressStream {
  readonly isTTY?: boolean;
  write(text: string): unknown;
}

/** @param clock milliseconds; the real one unless said. */
export function createProgress(
  stream: NodeJS.WritableStream & ProgressStream,
  clock: () => number = Date.now,
): Progress {
  return stream.isTTY === true ? new Bar(stream, clock) : new Lines(stream, clock);
}

/** Loaded for the first bar: most starts have none. */
const cliProgress = (): typeof import("cli-progress") => createRequire(import.meta.url)("cli-progress");

/** 1536 → "1.5 KiB". */
export function formatBytes(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`;
}

/** Mean speed since the label's first event: what a resumed download found on the disk does not count. */
class Speed {
  private readonly clock: () => number;
  private readonly start: number;
  private readonly first: number;

  constructor(clock: () => number, done: number) {
    this.clock = clock;
    this.start = clock();
    this.first = done;
  }

  at(done: number): string {
    const seconds = (this.clock() - this.start) / 1000;
    return seconds <= 0 ? "-" : `${formatBytes((done - this.first) / seconds)}/s`;
  }
}

class Bar implements Progress {
  private readonly stream: NodeJS.WritableStream;
  private readonly clock: () => number;
  private current: { label: string; bar: SingleBar; speed: Speed } | undefined;

  constructor(stream: NodeJS.WritableStream, clock: () => number) {
    this.stream = stream;
    this.clock = clock;
  }

  update(label: string, done: number, total: number): void {
    if (this.current?.label !== label) this.begin(label, done, total);
    const { bar, speed } = this.current ?? {};
    bar?.update(done, { bytes: `${formatBytes(done)} of ${formatBytes(total)}`, speed: speed?.at(done) });
    if (done >= total) this.stop();
  }

  stop(): void {
    this.current?.bar.stop();
    this.current = undefined;
  }

  private begin(label: string, done: number, total: number): void {
    this.stop();
    const format = `${label.replaceAll("{", "(")} [{bar}] {percentage}% · {bytes} · {speed} · {eta_formatted} left`;
    const { Presets, SingleBar } = cliProgress();
    const bar = new SingleBar(
      { format, stream: this.stream, barsize: 24, etaBuffer: 50, gracefulExit: false },
      Presets.legacy,
    );
    bar.start(total, done, { bytes: "", speed: "-" });
    this.current = { label, bar, speed: new Speed(this.clock, done) };
  }
}

class Lines implements Progress {
  private readonly stream: ProgressStream;
  private readonly clock: () => number;
  private current: { label: string; tenth: number; speed: Speed } | undefined;

  constructor(stream: ProgressStream, clock: () => number) {
    this.stream = stream;
    this.clock = clock;
  }

  update(label: string, done: number, total: number): void {
    const tenth = total > 0 ? Math.floor((done / total) * 10) : 10;
    if (this.current?.label !== label) this.current = { label, tenth: -1, speed: new Speed(this.clock, done) };
    if (tenth <= this.current.tenth) return;
    this.current.tenth = tenth;
    this.stream.write(`${label}: ${tenth * 10}% of ${formatBytes(total)}, ${this.current.speed.at(done)}\n`);
  }

  stop(): void {
    this.current = undefined;
  }
}
