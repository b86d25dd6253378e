/**
 * `castellan usage`: what was used, out of the store, whether or not a server runs.
 */
import { stateDirectory } from "#app/paths.ts";
import { StartupError } from "#app/startup-error.ts";
import { openPolicyStore } from "#app/store.ts";
import { stringifyJson } from "#base/json.ts";
import { silentLog } from "#base/log.ts";
import { environment } from "#config/environment.ts";
import { SettingError } from "#config/kinds.ts";
import { resolveSettings } from "#config/resolve.ts";
import { openStateDirectory, StateError } from "#policy/state.ts";
import { type UsageWords, usageQuery } from "#policy/usage/query.ts";
import { readUsage, type UsageQuery } from "#policy/usage/table.ts";
import { encodeUsage } from "#wire/admin/usage.ts";
import { FAILURE, fail, USAGE } from "./serve.ts";
import { type UsageFormat, usageText } from "./usage-text.ts";

export interface UsageOptions extends UsageWords {
  readonly stateDir?: string;
  readonly json?: boolean;
  readonly csv?: boolean;
}

/** @returns the exit code */
export async function runUsage(options: UsageOptions): Promise<number> {
  const query = usageQuery(options, Date.now());
  if ("problem" in query) return fail(`--${query.field} ${query.problem}`, USAGE);
  const format: UsageFormat = options.json ? "json" : options.csv ? "csv" : "table";
  try {
    process.stdout.write(await answer(query, format, options.stateDir));
    return 0;
  } catch (error) {
    if (error instanceof SettingError) return fail(error.message, USAGE);
    if (error instanceof StartupError || error instanceof StateError) return fail(error.message, FAILURE);
    throw error;
  }
}

async function answer(query: UsageQuery, format: UsageFormat, directory: string | undefined): Promise<string> {
  const env = environment();
  const { settings } = resolveSettings(directory === undefined ? [] : ["--state-dir", directory], env);
  const state = openStateDirectory(stateDirectory(settings.stateDir, env));
  const store = await openPolicyStore(settings, state, silentLog);
  try {
    const sums = await readUsage(store.db, query);
    return format === "json" ? `${stringifyJson(encodeUsage(query, sums))}\n` : usageText(sums, query, format);
  } finally {
    await store.close();
  }
}
