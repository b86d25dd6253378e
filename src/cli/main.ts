/**
 * The command line: `castellan <command>`. Commands load when they are called. Those that start an engine
 * (`serve`, `run-batch`) are looked for first, and its process is started before anything else is loaded: a server starts
 * as quickly as that process does.
 */
import { coreDumpsWithoutMemory } from "#app/core-dumps.ts";
import { engineEnvironment } from "#app/engine-environment.ts";
import { environment } from "#config/environment.ts";
import { prepareEngine } from "#engine/spare.ts";

/** Exits once what was printed is out; the engine and sockets are closed by then. */
function finish(code: number): void {
  process.exitCode = code;
  process.stdout.write("", () => process.stderr.write("", () => process.exit(code)));
}

async function main(): Promise<void> {
  const [command, ...args] = process.argv.slice(2);
  // The version may be asked for anywhere, and is told by the commands' own reader.
  const starts = command === "serve" || command === "run-batch";
  if (!starts || args.some((arg) => arg.startsWith("-V") || arg === "--version")) {
    await (await import("./commands.ts")).runCommand(finish);
    return;
  }
  // Before any process is started, which has it from this one.
  coreDumpsWithoutMemory();
  if (!args.includes("--help") && !args.includes("-h")) prepareEngine({ env: engineEnvironment(environment()) });
  finish(
    command === "serve"
      ? await (await import("./serve.ts")).runServe(args)
      : await (await import("./run-batch.ts")).runBatchCommand(args),
  );
}

await main().catch((error: unknown) => {
  process.stderr.write(`castellan: ${error instanceof Error ? (error.stack ?? error.message) : error}\n`);
  finish(1);
});
