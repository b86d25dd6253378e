/**
 * `castellan keys …`: keys in the state directory's store or in PostgreSQL, without a running server; a server that runs
 * sees the change within a second or two.
 *
 * A key is printed once, alone, on standard output, so that it can be piped; what is said about it goes to standard error.
 */
import { existsSync } from "node:fs";
import { userInfo } from "node:os";
import { withCommandAudit } from "#app/audit.ts";
import { databaseUrlOf } from "#app/given-urls.ts";
import { openKeyStore } from "#app/keys.ts";
import { stateDirectory } from "#app/paths.ts";
import { StartupError } from "#app/startup-error.ts";
import { openPolicyStore } from "#app/store.ts";
import { stringifyJson } from "#base/json.ts";
import { silentLog } from "#base/log.ts";
import { environment } from "#config/environment.ts";
import { SettingError } from "#config/kinds.ts";
import { resolveSettings } from "#config/resolve.ts";
import { LIMIT_DOCS, type LimitFigure, type Limits } from "#core/limits.ts";
import { OPERATOR_TENANT, ROLES, type Role, type Scope } from "#core/principal.ts";
import { AuditFailure } from "#policy/audit/log.ts";
import type { EventKind } from "#policy/audit/record.ts";
import { checkKeySpec, KeyError, type KeySpec } from "#policy/key-spec.ts";
import type { KeyRecord, KeyStore, NewKey } from "#policy/key-store.ts";
import { KEY_PREFIX, mintKeyId } from "#policy/keys.ts";
import { openStateDirectory, StateError } from "#policy/state.ts";
import { encodeKey, encodeNewKey } from "#wire/admin/keys.ts";
import { keyColumns, keyFacts } from "./key-view.ts";
import { budgetOf, capOf, durationOf, figureOf, kebab, timeOf } from "./key-words.ts";
import { FAILURE, fail, USAGE } from "./serve.ts";
import { facts, screenOf, table } from "./table.ts";

/** Where the keys are, as `castellan serve` takes it. */
export interface PlaceOptions {
  readonly stateDir?: string;
  readonly databaseUrl?: string;
  readonly databaseUrlFile?: string;
  readonly pepperFile?: string;
  readonly config?: string;
  readonly json?: boolean;
}

export interface CreateOptions extends PlaceOptions, Partial<Record<LimitFigure, string>> {
  readonly tenant: string;
  readonly name: string;
  readonly role: string;
  readonly scopes?: readonly string[];
  readonly models?: readonly string[];
  readonly adapters?: readonly string[];
  readonly tools?: readonly string[];
  readonly networks?: readonly string[];
  readonly priority?: string;
  readonly budget?: readonly string[];
  readonly cap?: readonly string[];
  readonly notBefore?: string;
  readonly expires?: string;
}

export interface ListOptions extends PlaceOptions {
  readonly tenant?: string;
  readonly all?: boolean;
}

export interface RotateOptions extends PlaceOptions {
  readonly overlap: string;
}

type Change = "disable" | "enable" | "delete";
const DONE: Readonly<Record<Change, string>> = { disable: "is disabled", enable: "is enabled", delete: "is deleted" };

/** Each returns the exit code. */
export function createKey(options: CreateOptions): Promise<number> {
  return withKeys(options, true, async (keys, record) => {
    const spec = specOf(options, Date.now());
    const known = spec.tenant === OPERATOR_TENANT || (await keys.hasTenant(spec.tenant));
    const { tenant, name, role, scopes = null } = checkKeySpec(spec);
    const id = mintKeyId();
    await record("key.create", id, { tenant, name, role, scopes });
    const made = await keys.create(spec, actor(), id);
    if (!known) process.stderr.write(`castellan: ${spec.tenant} is a new tenant\n`);
    return printNew(made, options);
  });
}

export function rotateKey(which: string, options: RotateOptions): Promise<number> {
  return withKeys(options, false, async (keys, record) => {
    const { id } = await findKey(keys, which);
    await record("key.rotate", id, { overlap: options.overlap });
    return printNew(await keys.rotate(id, durationOf(options.overlap), actor()), options);
  });
}

export function listKeys(options: ListOptions): Promise<number> {
  return withKeys(options, false, async (keys) => {
    const records: KeyRecord[] = [];
    const filter = {
      deleted: options.all ?? false,
      ...(options.tenant === undefined ? {} : { tenant: options.tenant }),
    };
    for (let page = await keys.list(filter); page.length > 0; ) {
      records.push(...page);
      page = await keys.list({ ...filter, after: page.at(-1) as KeyRecord });
    }
    const now = Date.now();
    if (options.json) printJson(records.map((record) => encodeKey(record, now)));
    else if (records.length === 0) process.stderr.write("There are no keys; castellan keys create makes one.\n");
    else process.stdout.write(table(keyColumns(now), records, screenOf(process.stdout, environment())));
    return 0;
  });
}

export function showKey(which: string, options: PlaceOptions): Promise<number> {
  return withKeys(options, false, async (keys) => {
    const record = await findKey(keys, which);
    if (options.json) printJson(encodeKey(record, Date.now()));
    else process.stdout.write(facts(keyFacts(record, Date.now())));
    return 0;
  });
}

export function changeKey(change: Change, which: string, options: PlaceOptions): Promise<number> {
  return withKeys(options, false, async (keys, record) => {
    const { id } = await findKey(keys, which);
    await record(`key.${change}`, id);
    const changed = await keys[change](id);
    if (options.json) printJson(encodeKey(changed, Date.now()));
    else process.stdout.write(facts([[changed.id, DONE[change]]]));
    return 0;
  });
}

/** To the audit log, before the change: what cannot be recorded is not done. */
type Announce = (kind: EventKind, subject?: string, details?: object) => Promise<void>;

/** Opens the store, runs, closes; prints what people have to know. @param make whether a missing state directory is made */
async function withKeys(
  options: PlaceOptions,
  make: boolean,
  run: (keys: KeyStore, record: Announce) => Promise<number>,
): Promise<number> {
  try {
    const env = environment();
    const { settings } = resolveSettings(placeArguments(options), env);
    const directory = stateDirectory(settings.stateDir, env);
    if (!make && databaseUrlOf(settings) === undefined && !existsSync(directory))
      return fail(`there is no state directory ${directory}; name it with --state-dir`, FAILURE);
    const state = openStateDirectory(directory);
    const store = await openPolicyStore(settings, state, silentLog);
    try {
      const keys = await openKeyStore(settings, state, store);
      const record: Announce = (kind, subject, details) =>
        withCommandAudit(settings, env, (audit) => audit.event(kind, subject, details));
      return await run(keys, record);
    } finally {
      await store.close();
    }
  } catch (error) {
    if (error instanceof SettingError) return fail(error.message, USAGE);
    if (error instanceof KeyError || error instanceof StartupError || error instanceof StateError)
      return fail(error.message, FAILURE);
    if (error instanceof AuditFailure) return fail(`nothing was changed: ${error.message}`, FAILURE);
    throw error;
  }
}

/** The command line that says it to the settings. */
export function placeArguments(options: PlaceOptions): string[] {
  const given = {
    "state-dir": options.stateDir,
    "database-url": options.databaseUrl,
    "database-url-file": options.databaseUrlFile,
    "pepper-file": options.pepperFile,
    config: options.config,
  };
  return Object.entries(given).flatMap(([flag, value]) => (value === undefined ? [] : [`--${flag}`, value]));
}

/** By id, or by a name that one key alone has. @throws KeyError */
export async function findKey(keys: KeyStore, which: string): Promise<KeyRecord> {
  if (which.startsWith(KEY_PREFIX))
    throw new KeyError("that is a key itself, which nobody should see; name its id (castellan keys list)");
  const byId = await keys.get(which);
  if (byId !== undefined) return byId;
  const [only, ...others] = await keys.named(which);
  if (only === undefined) throw new KeyError(`there is no key with the id or name ${JSON.stringify(which)}`);
  if (others.length > 0)
    throw new KeyError(
      `${others.length + 1} keys have this name: ${[only, ...others]
        .map(({ id }) => id)
        .slice(0, 5)
        .join(", ")}`,
    );
  return only;
}

/** @throws KeyError */
function specOf(options: CreateOptions, now: number): KeySpec {
  const { tenant, name, role, scopes, models, adapters, tools, networks, priority, notBefore, expires } = options;
  if (!(role in ROLES))
    throw new KeyError(`there is no role ${JSON.stringify(role)}; there are ${Object.keys(ROLES).join(", ")}`);
  const expiresAt = expires === undefined ? undefined : timeOf(expires, now);
  if (expiresAt !== undefined && expiresAt <= now) throw new KeyError("the key would have expired already");
  return {
    tenant,
    name,
    role: role as Role,
    ...(scopes === undefined ? {} : { scopes: scopes as readonly Scope[] }),
    reach: {
      ...(models === undefined ? {} : { models }),
      ...(adapters === undefined ? {} : { adapters }),
      ...(tools === undefined ? {} : { tools }),
      ...(networks === undefined ? {} : { networks }),
      ...(priority === undefined ? {} : { priority: priorityOf(priority) }),
    },
    limits: limitsOf(options),
    caps: Object.fromEntries((options.cap ?? []).map(capOf)),
    ...(notBefore === undefined ? {} : { notBefore: timeOf(notBefore, now) }),
    ...(expiresAt === undefined ? {} : { expiresAt }),
  };
}

function priorityOf(text: string): number {
  return text.startsWith("-") ? -figureOf(text.slice(1), "--priority") : figureOf(text, "--priority");
}

function limitsOf(options: CreateOptions): Limits {
  const figures = (Object.keys(LIMIT_DOCS) as LimitFigure[]).flatMap((name) => {
    const text = options[name];
    return text === undefined ? [] : [[name, figureOf(text, `--${kebab(name)}`)] as const];
  });
  const budgets = (options.budget ?? []).map(budgetOf);
  return { ...Object.fromEntries(figures), ...(budgets.length === 0 ? {} : { budgets }) };
}

function printNew({ record, key }: NewKey, { json }: PlaceOptions): number {
  const now = Date.now();
  if (json) {
    printJson(encodeNewKey(key.expose(), record, now));
    return 0;
  }
  process.stderr.write(`${facts(keyFacts(record, now))}\nThe key, shown this once; only a keyed hash of it is kept:\n`);
  process.stdout.write(`${key.expose()}\n`);
  return 0;
}

function printJson(value: unknown): void {
  process.stdout.write(`${stringifyJson(value)}\n`);
}

/** Who changes keys here, for the record. */
function actor(): string {
  return `cli:${userInfo().username}`;
}
