/**
 * The cases that a policy file carries: each is asked of the file's own rules, over the server's routes. Pure.
 * Callers: app (a file whose cases fail is not used), `castellan policy test`.
 */
import {
  type Asker,
  explain,
  isOf,
  type Listener,
  type Question,
  type RouteFacts,
  type Verdict,
} from "#policy/explain.ts";
import { askerOf } from "./callers.ts";
import type { PolicyCase, PolicyFile } from "./schema.ts";
import { TenantRules } from "./tenants.ts";

export interface CaseResult {
  /** From 1. */
  readonly number: number;
  readonly name: string;
  readonly passed: boolean;
  /** What was expected and is not so; undefined: it passed. */
  readonly problem?: string;
  readonly verdict: Verdict;
}

/** @param routes as if every switch were on: a case is about rights */
export function runCases(file: PolicyFile, routes: readonly RouteFacts[]): readonly CaseResult[] {
  const tenants = new TenantRules(file.tenants);
  return (file.tests ?? []).map((each, i) => runCase(each, i + 1, { file, routes, tenants }));
}

interface Setting {
  readonly file: PolicyFile;
  readonly routes: readonly RouteFacts[];
  readonly tenants: TenantRules;
}

function runCase(each: PolicyCase, number: number, { file, routes, tenants }: Setting): CaseResult {
  const asker = askerOf(each.as, file);
  const verdict = explain(questionOf(each, routes), asker, routes, tenants);
  const problem = identityProblem(each, asker) ?? verdictProblem(each, verdict);
  return {
    number,
    name: each.name ?? each.request,
    passed: problem === undefined,
    ...(problem === undefined ? {} : { problem }),
    verdict,
  };
}

function questionOf(each: PolicyCase, routes: readonly RouteFacts[]): Question {
  const [method = "", path = ""] = each.request.split(" ");
  const { listener, model, adapter, tool, from } = each;
  return {
    method,
    path,
    listener: listener ?? listenerOf(path, routes),
    ...(model === undefined ? {} : { model }),
    ...(adapter === undefined ? {} : { adapter }),
    ...(tool === undefined ? {} : { tool }),
    ...(from === undefined ? {} : { address: from }),
  };
}

/** The one that has the path; of both, and of neither, the public one. */
export function listenerOf(path: string, routes: readonly RouteFacts[]): Listener {
  const planes = routes.filter((route) => isOf(path, route.path)).map(({ plane }) => plane);
  return planes.length > 0 && planes.every((plane) => plane === "ops") ? "ops" : "public";
}

function identityProblem({ tenant, role }: PolicyCase, asker: Asker): string | undefined {
  if (tenant === undefined && role === undefined) return undefined;
  if (asker.kind !== "known") return "the caller is nobody";
  const { principal } = asker;
  if (tenant !== undefined && principal.tenant !== tenant) return `the caller's tenant is ${principal.tenant}`;
  return role === undefined || principal.role === role ? undefined : `the caller's role is ${principal.role}`;
}

function verdictProblem({ expect }: PolicyCase, { allowed, status, because }: Verdict): string | undefined {
  const fits = typeof expect === "number" ? status === expect : allowed === (expect === "allow");
  if (fits) return undefined;
  return `${allowed ? "allowed" : `denied with ${status}`}: ${because}`;
}
