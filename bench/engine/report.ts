/**
 * Medians over the rounds, their ratios to the peer, as tables and as JSON with the machine's facts.
 */
import { writeFileSync } from "node:fs";
import { availableParallelism, cpus } from "node:os";
import type { Run } from "./throughput.ts";

export interface Figure {
  readonly server: string;
  readonly scenario: string;
  readonly unit: string;
  readonly value: number;
  /** CPU milliseconds of the server for all of it. */
  readonly cpuMs?: number;
}

export interface Results {
  readonly runs: readonly Run[];
  readonly figures: readonly Figure[];
  readonly facts: Readonly<Record<string, unknown>>;
}

const PEER = "llama-server";

const median = (list: readonly number[]): number =>
  list.toSorted((a, b) => a - b)[Math.floor((list.length - 1) / 2)] ?? Number.NaN;

const unique = <T>(list: readonly T[]): T[] => [...new Set(list)];

export function report({ runs, figures, facts }: Results, file: string | undefined): void {
  if (runs.length > 0) printThroughput(runs);
  if (figures.length > 0) printFigures(figures);
  if (file === undefined) return;
  const machine = { cpu: cpus()[0]?.model, processors: availableParallelism(), node: process.version };
  writeFileSync(file, `${JSON.stringify({ machine, ...facts, runs, figures }, null, 2)}\n`);
}

function printThroughput(runs: readonly Run[]): void {
  console.log(`\n| c | server | tok/s | CPU ms/token | ratio | CPU ratio | front |\n|${"---|".repeat(7)}`);
  for (const concurrency of unique(runs.map((run) => run.concurrency))) {
    const of = (server: string, pick: (run: Run) => number | undefined): number =>
      median(
        runs
          .filter((run) => run.server === server && run.concurrency === concurrency)
          .flatMap((run) => pick(run) ?? []),
      );
    for (const server of unique(runs.map((run) => run.server))) {
      const [speed, cpu] = [of(server, (run) => run.tokensPerSecond), of(server, (run) => run.cpuMsPerToken)];
      const ratios = [speed / of(PEER, (run) => run.tokensPerSecond), cpu / of(PEER, (run) => run.cpuMsPerToken)];
      const front = of(server, (run) => run.frontShare) * 100;
      const cells = [concurrency, server, speed.toFixed(1), cpu.toFixed(2), ...ratios.map((r) => r.toFixed(2))];
      console.log(`| ${cells.join(" | ")} | ${front.toFixed(1)} % |`);
    }
  }
}

function printFigures(figures: readonly Figure[]): void {
  const servers = unique(figures.map(({ server }) => server));
  console.log(`\n| load | ${servers.join(" | ")} | ratio | CPU ratio |\n|${"---|".repeat(servers.length + 3)}`);
  for (const scenario of unique(figures.map((figure) => figure.scenario))) {
    const of = (server: string, pick = ({ value }: Figure): number => value): number =>
      median(figures.filter((f) => f.scenario === scenario && f.server === server).map(pick));
    const cpu = (server: string): number => of(server, ({ cpuMs = Number.NaN }) => cpuMs);
    const unit = figures.find((figure) => figure.scenario === scenario)?.unit ?? "";
    const ratio = (of("castellan") / of(PEER)).toFixed(2);
    const cpuRatio = (cpu("castellan") / cpu(PEER)).toFixed(2);
    console.log(
      `| ${scenario} | ${servers.map((server) => `${of(server).toFixed(1)} ${unit}`).join(" | ")} | ${ratio} | ${cpuRatio} |`,
    );
  }
}
