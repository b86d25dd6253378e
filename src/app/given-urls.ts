/**
 * The URLs with passwords that the operator gave, themselves or by a file. Callers: what connects to them, and secrets.ts.
 */
import type { Settings } from "#config/settings.ts";
import { secretOrFile } from "./secret-file.ts";

/** Undefined: the store is a file in the state directory. @throws StartupError */
export function databaseUrlOf(settings: Pick<Settings, "databaseUrl" | "databaseUrlFile">): string | undefined {
  return secretOrFile("database-url", settings.databaseUrl, settings.databaseUrlFile);
}

/** Undefined: each server counts in its memory. @throws StartupError */
export function redisUrlOf(settings: Pick<Settings, "redisUrl" | "redisUrlFile">): string | undefined {
  return secretOrFile("redis-url", settings.redisUrl, settings.redisUrlFile);
}
