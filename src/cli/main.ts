/**
 * The command line: `castellan <command>`. Commands load when they are called. `serve` is looked for first, and its
 * engine process is started before anything else is loaded: a server starts as quickly as that process does.
 */
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
  if (command !== "serve" || args.some((arg) => arg.startsWith("-V") || arg === "--version")) {
    await (await import("./commands.ts")).runCommand(finish);
    return;
  }
  if (!args.includes("--help") && !args.includes("-h")) prepareEngine({ env: engineEnvironment(environment()) });
  finish(await (await import("./serve.ts")).runServe(args));
}

await main().catch((error: unknown) => {
  process.stderr.write(`castellan: ${error instanceof Error ? (error.stack ?? error.message) : error}\n`);
  finish(1);
});
