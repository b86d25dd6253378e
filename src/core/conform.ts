/**
 * A value held against a schema: what it says, or a Fault that names the field.
 *
 * Bounds (vLLM has the same): at most 10 problems in one message, 1000 characters a problem, 200 of echoed input.
 */
import type { ZodError, ZodType, z } from "zod";
import { stringifyJson } from "#base/json.ts";
import { Fault } from "./fault.ts";

type Issue = ZodError["issues"][number];

const MAX_ISSUES = 10;
const MAX_MESSAGE = 1000;
const MAX_ECHO = 200;
export const MAX_PATH = 200;

/** @throws Fault invalid_request */
export function conform<T>(schema: ZodType<T>, value: unknown): T {
  const result = schema.safeParse(value, { reportInput: true });
  if (result.success) return result.data;
  throw schemaFault(result.error);
}

function schemaFault(error: z.ZodError): Fault {
  const issues = error.issues.map(closest);
  const lines = issues.slice(0, MAX_ISSUES).map(printIssue);
  if (issues.length > MAX_ISSUES) lines.push(`and ${issues.length - MAX_ISSUES} more`);
  const param = pathOf(issues[0]);
  return new Fault("invalid_request", lines.join("; "), param === "" ? {} : { param });
}

/** Of a union's branches the one that got furthest: its problem is most likely the one that the client has. */
function closest(issue: Issue): Issue {
  if (issue.code !== "invalid_union") return issue;
  let best: Issue = issue;
  let depth = 0;
  for (const branch of issue.errors) {
    const first = branch[0];
    if (first === undefined) continue;
    const inner = closest(first as Issue);
    if (inner.path.length > depth) {
      depth = inner.path.length;
      best = { ...inner, path: [...issue.path, ...inner.path] } as Issue;
    }
  }
  return best;
}

function printIssue(issue: Issue): string {
  const path = pathOf(issue);
  const echo = issue.input === undefined ? "" : ` (input: ${printInput(issue.input)})`;
  return clip(
    `${path === "" ? "" : `${path}: `}${clip(issue.message, MAX_MESSAGE - MAX_PATH - MAX_ECHO - 50)}${echo}`,
    MAX_MESSAGE,
  );
}

/** Containers are not printed: a megabyte of them would be turned into text to keep 200 characters. */
function printInput(input: unknown): string {
  if (Array.isArray(input)) return `an array of ${input.length}`;
  if (typeof input === "object" && input !== null) return "an object";
  if (typeof input === "string") return clip(stringifyJson(input.slice(0, MAX_ECHO)), MAX_ECHO);
  return clip(String(input), MAX_ECHO);
}

function pathOf(issue: Issue | undefined): string {
  return clip(issue?.path.map(String).join(".") ?? "", MAX_PATH);
}

/** Cut between characters, not inside a surrogate pair. */
export function clip(text: string, length: number): string {
  return text.length <= length
    ? text
    : `${text
        .slice(0, length - 1)
        .toWellFormed()
        .replace(/\ufffd$/, "")}…`;
}
