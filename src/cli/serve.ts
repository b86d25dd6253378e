/**
 * `castellan serve [MODEL] [flags]`: the command line of the server. The flags are the settings table's.
 */
import { serve } from "#app/serve.ts";
import { StartupError } from "#app/startup-error.ts";
import { environment } from "#config/environment.ts";
import { SettingError } from "#config/kinds.ts";
import { type Resolved, resolveSettings } from "#config/resolve.ts";
import { discardEngine } from "#engine/spare.ts";
import { createProgress } from "./progress.ts";

export const FAILURE = 1;
export const USAGE = 2;

/** @returns the exit code */
export async function runServe(argv: readonly string[]): Promise<number> {
  if (argv.includes("--help") || argv.includes("-h")) {
    process.stdout.write((await import("./help.ts")).serveHelp());
    return 0;
  }
  try {
    return await runServer(argv);
  } finally {
    discardEngine();
  }
}

async function runServer(argv: readonly string[]): Promise<number> {
  const env = environment();
  let resolved: Resolved;
  try {
    resolved = resolveSettings(argv, env);
  } catch (error) {
    if (error instanceof SettingError) return fail(error.message, USAGE);
    throw error;
  }
  const progress = createProgress(process.stderr);
  try {
    return await serve(resolved, env, {
      print: (text) => {
        // The server is up: a gateway has taken no engine, whose process would stay for nothing (60 MB).
        discardEngine();
        process.stdout.write(text);
      },
      onProgress: ({ phase, file, done, total }) =>
        progress.update(`${phase === "download" ? "Downloading" : "Checking"} ${file}`, done, total),
      onWarning: (message) => process.stderr.write(`castellan: ${message}\n`),
    });
  } catch (error) {
    progress.stop();
    if (error instanceof StartupError) return fail(error.message, FAILURE);
    throw error;
  }
}

export function fail(message: string, code: number): number {
  process.stderr.write(`castellan: ${message}\n`);
  return code;
}
