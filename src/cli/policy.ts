/**
 * `castellan policy …`: what a policy file's own cases come to, and what a caller may do and by which rule, without a
 * running server.
 */
import { existsSync } from "node:fs";
import { callerWords } from "#app/caller-words.ts";
import { databaseUrlOf } from "#app/given-urls.ts";
import { openKeyStore } from "#app/keys.ts";
import { stateDirectory } from "#app/paths.ts";
import { openPolicy } from "#app/policy.ts";
import { testPolicyFile } from "#app/policy-file.ts";
import { StartupError } from "#app/startup-error.ts";
import { openPolicyStore } from "#app/store.ts";
import { routeFacts } from "#app/switches.ts";
import { JsonError, type JsonValue, parseJson, stringifyJson } from "#base/json.ts";
import { silentLog } from "#base/log.ts";
import { environment } from "#config/environment.ts";
import { SettingError } from "#config/kinds.ts";
import { resolveSettings } from "#config/resolve.ts";
import type { Settings } from "#config/settings.ts";
import { ROLES, type Role } from "#core/principal.ts";
import { type Asker, explain, type Listener, type Question, type RouteFacts } from "#policy/explain.ts";
import { askerOf } from "#policy/file/callers.ts";
import { listenerOf } from "#policy/file/cases.ts";
import type { PolicyFile } from "#policy/file/schema.ts";
import type { TenantRules } from "#policy/file/tenants.ts";
import { askerOfKey } from "#policy/key-asker.ts";
import { KeyError } from "#policy/key-spec.ts";
import { openStateDirectory, StateError } from "#policy/state.ts";
import { routes } from "#routes/index.ts";
import { encodeCases, encodeRights, encodeVerdict } from "#wire/admin/policy.ts";
import { findKey, type PlaceOptions, placeArguments } from "./keys.ts";
import { type Explained, resultText, verdictTable, verdictText } from "./policy-text.ts";
import { FAILURE, fail, USAGE } from "./serve.ts";
import { type Screen, screenOf } from "./table.ts";

export interface ExplainOptions extends PlaceOptions {
  readonly policy?: string;
  readonly key?: string;
  readonly tenant?: string;
  readonly role?: string;
  readonly issuer?: string;
  readonly claims?: string;
  readonly certificate?: string;
  readonly nobody?: boolean;
  readonly model?: string;
  readonly adapter?: string;
  readonly tool?: string;
  readonly from?: string;
  readonly listener?: string;
}

/** @returns the exit code: 1 when a case fails */
export function runPolicyTest(path: string, { json }: { readonly json?: boolean }): Promise<number> {
  return answering(async () => {
    const results = await testPolicyFile(path);
    const failed = results.filter(({ passed }) => !passed).length;
    if (json) printJson({ file: path, ...encodeCases(results) });
    else process.stdout.write(resultText(path, results, screen()));
    return failed === 0 ? 0 : FAILURE;
  });
}

/** @returns the exit code: 1 when the request would be denied */
export function runPolicyExplain(words: readonly string[], options: ExplainOptions): Promise<number> {
  return answering(async () => {
    const problem = optionProblem(words, options);
    if (problem !== undefined) return fail(problem, USAGE);
    const file = options.policy === undefined ? [] : ["--policy", options.policy];
    const { settings } = resolveSettings([...placeArguments(options), ...file], environment());
    const { tenants, file: rules } = (await openPolicy(settings)).current();
    const facts = routeFacts(routes, settings);
    const asker = await askerFor(options, settings, rules);
    const [method, path] = words;
    if (method === undefined || path === undefined) return printAll(options, asker, facts, tenants);
    const question = { ...questionOf(options, path, facts), method: method.toUpperCase(), path };
    const verdict = explain(question, asker, facts, tenants);
    if (options.json) printJson(encodeVerdict({ question, verdict }));
    else process.stdout.write(verdictText(question, verdict));
    return verdict.allowed ? 0 : FAILURE;
  });
}

/** Without a request: what of each route the caller may do. */
function printAll(options: ExplainOptions, asker: Asker, facts: readonly RouteFacts[], tenants: TenantRules): number {
  const rows = facts.map((route): Explained => {
    const { method, path } = route;
    const question = { ...questionOf(options, path, facts), method, path };
    return { question, verdict: explain(question, asker, facts, tenants) };
  });
  if (options.json) printJson(encodeRights(rows));
  else process.stdout.write(verdictTable(rows, screen()));
  return 0;
}

function optionProblem(words: readonly string[], options: ExplainOptions): string | undefined {
  const { key, tenant, role, issuer, claims, certificate, nobody, listener } = options;
  if (words.length === 1 || words.length > 2) return "a request is a method and a path: POST /v1/chat/completions";
  const callers = [key, tenant ?? role, issuer ?? claims, certificate, nobody].filter((each) => each !== undefined);
  if (callers.length !== 1)
    return "one caller is asked about: --key, or --tenant and --role, or --issuer and --claims, or --certificate, or --nobody";
  if ((issuer === undefined) !== (claims === undefined)) return "--issuer and --claims go together";
  if (role !== undefined && !(role in ROLES)) return `--role is one of ${Object.keys(ROLES).join(", ")}`;
  if (listener !== undefined && listener !== "public" && listener !== "ops") return "--listener is public or ops";
  return undefined;
}

function questionOf(
  options: ExplainOptions,
  path: string,
  facts: readonly RouteFacts[],
): Omit<Question, "method" | "path"> {
  const { listener, from, model, adapter, tool } = options;
  return {
    listener: (listener as Listener | undefined) ?? listenerOf(path, facts),
    ...(from === undefined ? {} : { address: from }),
    ...(model === undefined ? {} : { model }),
    ...(adapter === undefined ? {} : { adapter }),
    ...(tool === undefined ? {} : { tool }),
  };
}

/** @throws KeyError | StartupError | StateError */
async function askerFor(options: ExplainOptions, settings: Settings, file: PolicyFile): Promise<Asker> {
  const { key, tenant = "default", role = "user", issuer, claims, certificate } = options;
  if (key !== undefined) return keyAsker(key, settings);
  if (options.nobody) return { kind: "nobody" };
  const words = callerWords(settings, file);
  if (issuer !== undefined) return askerOf({ issuer, claims: claimsOf(claims ?? "{}") }, words);
  if (certificate !== undefined) return askerOf({ certificate }, words);
  return askerOf({ tenant, role: role as Role }, words);
}

async function keyAsker(which: string, settings: Settings): Promise<Asker> {
  const directory = stateDirectory(settings.stateDir, environment());
  if (databaseUrlOf(settings) === undefined && !existsSync(directory))
    throw new StartupError(`there is no state directory ${directory}; name it with --state-dir`);
  const state = openStateDirectory(directory);
  const store = await openPolicyStore(settings, state, silentLog);
  try {
    return askerOfKey(await findKey(await openKeyStore(settings, state, store), which), Date.now());
  } finally {
    await store.close();
  }
}

/** @throws KeyError */
function claimsOf(text: string): Record<string, JsonValue> {
  try {
    const claims = parseJson(text);
    if (typeof claims === "object" && claims !== null && !Array.isArray(claims)) return claims;
  } catch (error) {
    if (!(error instanceof JsonError)) throw error;
  }
  throw new KeyError("--claims is a JSON object, as it stands in a token");
}

async function answering(run: () => Promise<number>): Promise<number> {
  try {
    return await run();
  } catch (error) {
    if (error instanceof SettingError) return fail(error.message, USAGE);
    if (error instanceof KeyError || error instanceof StartupError || error instanceof StateError)
      return fail(error.message, FAILURE);
    throw error;
  }
}

function screen(): Screen {
  return screenOf(process.stdout, environment());
}

function printJson(value: unknown): void {
  process.stdout.write(`${stringifyJson(value)}\n`);
}
