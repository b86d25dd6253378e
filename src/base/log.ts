/**
 * Structured logging: one interface for every area, pino behind it.
 *
 * Invariant: fields are data about the call (ids, counts, times), never bodies, keys or prompts.
 */
import { pino } from "pino";

export type LogLevel = "debug" | "info" | "warn" | "error";
export type LogFields = Readonly<Record<string, unknown>>;
export type Log = (level: LogLevel, message: string, fields?: LogFields) => void;

export const silentLog: Log = () => {};

/**
 * One JSON line a record on stderr, so that stdout stays for what the user asked for.
 * @param redact the second line of defence: what it finds was not to be logged in the first place
 */
export function createLog(level: LogLevel | "silent", redact: (text: string) => string = (text) => text): Log {
  const logger = pino(
    { level, base: null, timestamp: pino.stdTimeFunctions.isoTime, hooks: { streamWrite: redact } },
    pino.destination({ fd: 2, sync: true }),
  );
  return (recordLevel, message, fields = {}) => logger[recordLevel](fields, message);
}
