/**
 * A short test report: a line a file, failures in full, skips with their reason, and one closing line of counts.
 */
import { relative } from "node:path";
import type { TestEvent } from "node:test/reporters";
import { inspect } from "node:util";

/** What the runner counts for itself. */
const OWN = /^(tests|suites|pass|fail|cancelled|skipped|todo|duration_ms) /;

interface FileTally {
  passed: number;
  failed: number;
  milliseconds: number;
}

export default async function* report(source: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  const tallies = new Map<string, FileTally>();
  const counts = { tests: 0, passed: 0, failed: 0, skipped: 0 };
  for await (const event of source) {
    if (event.type === "test:diagnostic" && event.data.file !== undefined && !OWN.test(event.data.message))
      yield `  ${relative(process.cwd(), event.data.file)}: ${event.data.message}\n`;
    if (event.type === "test:diagnostic" || (event.type !== "test:pass" && event.type !== "test:fail")) continue;
    const { data } = event;
    const name = relative(process.cwd(), data.file ?? "");
    if (isFileItself(data.name, data.file)) {
      if (event.type === "test:fail") counts.failed++;
      yield line(name, tallies.get(name), data.details.duration_ms);
      if (event.type === "test:fail") yield failure(name, data.name, event.data.details.error);
      continue;
    }
    counts.tests++;
    const tally = tallies.get(name) ?? { passed: 0, failed: 0, milliseconds: 0 };
    tallies.set(name, tally);
    if (data.skip !== undefined) {
      counts.skipped++;
      yield `  skipped: ${name}: ${data.name}${typeof data.skip === "string" ? ` (${data.skip})` : ""}\n`;
    } else if (event.type === "test:pass") [counts.passed, tally.passed] = [counts.passed + 1, tally.passed + 1];
    else {
      [counts.failed, tally.failed] = [counts.failed + 1, tally.failed + 1];
      yield failure(name, data.name, event.data.details.error);
    }
    tally.milliseconds += data.details.duration_ms;
  }
  for (const [name, tally] of tallies) yield line(name, tally, tally.milliseconds);
  yield `tests ${counts.tests} | passed ${counts.passed} | failed ${counts.failed} | skipped ${counts.skipped}\n`;
}

/** With a process a file, the runner reports the file as a test too when it could not be run at all. */
function isFileItself(name: string, file: string | undefined): boolean {
  return file !== undefined && (name === file || file.endsWith(`/${name}`));
}

function line(name: string, tally: FileTally | undefined, milliseconds: number): string {
  const { passed = 0, failed = 0 } = tally ?? {};
  return `${failed > 0 ? "FAIL" : "ok  "} ${name}  ${passed} passed${failed > 0 ? `, ${failed} failed` : ""}  ${(milliseconds / 1000).toFixed(1)} s\n`;
}

function failure(file: string, name: string, error: unknown): string {
  const cause = (error as { cause?: unknown }).cause ?? error;
  const text = cause instanceof Error ? (cause.stack ?? cause.message) : inspect(cause);
  return `\nFAILED ${file}: ${name}\n${text.replace(/^/gm, "    ")}\n\n`;
}
