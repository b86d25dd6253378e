/**
 * The operator's policy file (--policy): read at the start, and again at SIGHUP or when an administrator asks.
 *
 * Invariants: a file whose own cases fail is not used; a reload takes all of the file or none of it, is in the audit log
 * before it holds, and holds from the next request on; what the file says no flag says too. Called by policy.ts and by
 * the commands that look at such a file.
 */
import type { Settings } from "#config/settings.ts";
import type { Actor } from "#policy/audit/record.ts";
import type { RouteFacts } from "#policy/explain.ts";
import { type CaseResult, runCases } from "#policy/file/cases.ts";
import { PolicyFile } from "#policy/file/schema.ts";
import { TenantRules } from "#policy/file/tenants.ts";
import { conforming, operatorYamlFile } from "./operator-yaml.ts";
import type { Policy, PolicyInForce, Prepare, RecordChange } from "./policy.ts";
import { StartupError } from "./startup-error.ts";

const SHOWN_FAILURES = 5;

type PolicySettings = Pick<
  Settings,
  | "policy"
  | "jwtConfig"
  | "clientCertificates"
  | "keyLimits"
  | "tenantLimits"
  | "tenantWeights"
  | "modelLimits"
  | "modelPrices"
>;

/** @throws StartupError */
export async function openPolicyFile(settings: PolicySettings): Promise<Policy> {
  const { policy: path = "" } = settings;
  let current = await load(path, settings);
  const prepares: Prepare[] = [];
  let record: RecordChange = async () => {};
  let reloading: Promise<unknown> = Promise.resolve();
  const reload = async (actor: Actor): Promise<PolicyInForce> => {
    const next = await load(path, settings);
    const commits: (() => void)[] = [];
    for (const prepare of prepares) commits.push(await prepare(next.file));
    await record(actor, { sha256: next.sha256, before: current.sha256 });
    current = next;
    for (const commit of commits) commit();
    return next;
  };
  return {
    path,
    current: () => current,
    onReload: (prepare) => void prepares.push(prepare),
    recordIn: (into) => {
      record = into;
    },
    // One after the other: two files at once would be neither.
    reload: (actor) => {
      const done = reloading.then(() => reload(actor));
      reloading = done.catch(() => {});
      return done;
    },
  };
}

async function load(path: string, settings: PolicySettings): Promise<PolicyInForce> {
  const { value: file, sha256 } = operatorYamlFile(path, PolicyFile);
  checkOnce(path, file, settings);
  const failed = (await casesOf(file)).filter(({ passed }) => !passed);
  if (failed.length > 0) throw new StartupError(failureText(path, failed));
  return { file, tenants: new TenantRules(file.tenants), sha256 };
}

async function casesOf(file: PolicyFile): Promise<readonly CaseResult[]> {
  if ((file.tests ?? []).length === 0) return [];
  return runCases(file, (await import("#routes/index.ts")).routes as readonly RouteFacts[]);
}

/** The text of a file that is not one yet. @throws StartupError it is not right */
export async function testPolicyText(text: string): Promise<readonly CaseResult[]> {
  return casesOf(conforming("policy", text, PolicyFile));
}

/** For people who write such a file. @throws StartupError it is not one */
export async function testPolicyFile(path: string): Promise<readonly CaseResult[]> {
  return casesOf(operatorYamlFile(path, PolicyFile).value);
}

function failureText(path: string, failed: readonly CaseResult[]): string {
  const told = failed.slice(0, SHOWN_FAILURES).map(({ number, name, problem }) => `  ${number}. ${name}: ${problem}`);
  const more = failed.length > SHOWN_FAILURES ? [`  and ${failed.length - SHOWN_FAILURES} more`] : [];
  return [`${path}: its own tests fail, so it is not used:`, ...told, ...more].join("\n");
}

/** What stands in two places is in force in one only, and nobody would know in which. */
function checkOnce(path: string, file: PolicyFile, settings: PolicySettings): void {
  const tenants = Object.values(file.tenants ?? {});
  const models = Object.values(file.models ?? {});
  const twice: readonly (readonly [flag: string, given: boolean, said: boolean])[] = [
    ["--jwt-config", settings.jwtConfig !== undefined, file.tokens !== undefined],
    ["--client-certificates", settings.clientCertificates !== undefined, file.certificates !== undefined],
    ["--key-limits", settings.keyLimits !== undefined, file.keys?.limits !== undefined],
    ["--tenant-limits", settings.tenantLimits !== undefined, tenants.some(({ limits }) => limits !== undefined)],
    ["--tenant-weights", settings.tenantWeights.size > 0, tenants.some(({ weight }) => weight !== undefined)],
    ["--model-limits", settings.modelLimits !== undefined, models.some(({ limits }) => limits !== undefined)],
    ["--model-prices", settings.modelPrices !== undefined, models.some(({ price }) => price !== undefined)],
  ];
  const [found] = twice.filter(([, given, said]) => given && said);
  if (found !== undefined) throw new StartupError(`${found[0]} and ${path} say the same thing: keep one of them`);
}
