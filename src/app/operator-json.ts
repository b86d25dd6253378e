/**
 * JSON that the operator gives as a setting. Called by what reads such settings.
 */
import { z } from "zod";
import { JsonError, parseJson } from "#base/json.ts";
import { StartupError } from "./startup-error.ts";

/** @throws StartupError naming the flag */
export function operatorJson(flag: string, text: string): unknown {
  try {
    return parseJson(text);
  } catch (error) {
    if (error instanceof JsonError) throw new StartupError(`${flag} is not JSON: ${error.message}`);
    throw error;
  }
}

/** @throws StartupError naming the flag and the first thing that does not fit */
export function operatorObject<T>(flag: string, text: string, schema: z.ZodType<T>): T {
  const parsed = schema.safeParse(operatorJson(flag, text));
  if (!parsed.success) throw new StartupError(`${flag}: ${z.prettifyError(parsed.error).split("\n")[0]}`);
  return parsed.data;
}
