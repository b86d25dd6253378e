/**
 * How a verdict of the policy and the results of a policy file's tests are shown: as text for people, as JSON for
 * programs. Pure.
 */
import type { Question, Verdict } from "#policy/explain.ts";
import type { CaseResult } from "#policy/file/cases.ts";
import { facts, type Screen, table } from "./table.ts";

export interface Explained {
  readonly question: Question;
  readonly verdict: Verdict;
}

/** The decision first, then every rule that was asked. */
export function verdictText({ method, path, listener }: Question, verdict: Verdict): string {
  const head = verdict.allowed ? "Allowed" : `Denied with ${verdict.status}, by the rule ${verdict.decidedBy}`;
  const steps = facts(verdict.steps.map(({ rule, holds, says }) => [rule, `${holds ? "ok  " : "no  "} ${says}`]));
  const rest = verdict.allowed ? "What its limits leave, and what the body asks for, is judged besides.\n" : "";
  return `${head}: ${method} ${path} on the ${listener} listener\n\n${steps}\n${rest}`;
}

export function verdictTable(rows: readonly Explained[], screen: Screen): string {
  const columns = [
    { title: "METHOD", of: ({ question }: Explained) => question.method },
    { title: "PATH", of: ({ question }: Explained) => question.path },
    { title: "LISTENER", of: ({ question }: Explained) => question.listener },
    { title: "", of: ({ verdict }: Explained) => (verdict.allowed ? "allowed" : `denied, ${verdict.status}`) },
    { title: "BECAUSE", of: ({ verdict }: Explained) => verdict.because, flexible: true as const },
  ];
  return table(columns, rows, screen);
}

export function resultText(path: string, results: readonly CaseResult[], screen: Screen): string {
  if (results.length === 0) return `${path} is right, and has no tests.\n`;
  const failed = results.filter(({ passed }) => !passed).length;
  const columns = [
    { title: "#", of: ({ number }: CaseResult) => String(number) },
    { title: "", of: ({ passed }: CaseResult) => (passed ? "ok" : "FAILED") },
    { title: "TEST", of: ({ name }: CaseResult) => name, flexible: true as const },
    {
      title: "BECAUSE",
      of: ({ problem, verdict }: CaseResult) => problem ?? verdict.because,
      flexible: true as const,
    },
  ];
  return `${table(columns, results, screen)}\n${results.length - failed} of ${results.length} tests pass.\n`;
}
