/**
 * How a key's record is shown to people; for programs wire/admin/keys.ts prints it. Pure; a record holds no secret.
 */
import { keyStatus } from "#core/key-status.ts";
import type { Limits } from "#core/limits.ts";
import { ROLES } from "#core/principal.ts";
import type { KeyRecord } from "#policy/key-store.ts";
import { budgetText, kebab } from "./key-words.ts";
import type { Column } from "./table.ts";

export function keyColumns(now: number): readonly Column<KeyRecord>[] {
  return [
    { title: "ID", of: ({ id }) => id },
    { title: "STATUS", of: (record) => keyStatus(record, now) },
    { title: "TENANT", of: ({ tenant }) => tenant, flexible: true },
    { title: "NAME", of: ({ name }) => name, flexible: true },
    { title: "ROLE", of: ({ role, scopes }) => (scopes === undefined ? role : `${role}*`) },
    { title: "MODELS", of: ({ reach }) => (reach.models ?? ["all"]).join(","), flexible: true },
    { title: "CREATED", of: ({ createdAt }) => day(createdAt) },
    { title: "EXPIRES", of: ({ expiresAt }) => (expiresAt === undefined ? "never" : day(expiresAt)) },
    { title: "LAST USED", of: ({ lastUsedAt }) => (lastUsedAt === undefined ? "-" : ago(lastUsedAt, now)) },
  ];
}

export function keyFacts(record: KeyRecord, now: number): readonly (readonly [string, string])[] {
  const { reach } = record;
  const listed = (name: string, list: readonly string[] | undefined): [string, string][] =>
    list === undefined ? [] : [[name, list.length === 0 ? "none" : list.join(", ")]];
  const timed = (name: string, time: number | undefined): [string, string][] =>
    time === undefined ? [] : [[name, moment(time)]];
  return [
    ["id", record.id],
    ["status", keyStatus(record, now)],
    ["tenant", record.tenant],
    ["name", record.name],
    ["role", record.role],
    ["scopes", (record.scopes ?? ROLES[record.role]).join(", ")],
    ...listed("models", reach.models),
    ...listed("adapters", reach.adapters),
    ...listed("tools", reach.tools),
    ...listed("networks", reach.networks),
    ...(reach.priority === undefined ? [] : ([["priority", String(reach.priority)]] as const)),
    ...limitFacts(record.limits),
    ...Object.entries(record.caps).map(([name, value]) => [`cap ${kebab(name)}`, String(value)] as const),
    ...timed("not before", record.notBefore),
    ...timed("expires", record.expiresAt),
    ...timed("disabled", record.disabledAt),
    ...timed("deleted", record.deletedAt),
    ["created", `${moment(record.createdAt)} by ${record.createdBy}`],
    [
      "last used",
      record.lastUsedAt === undefined ? "never" : `${moment(record.lastUsedAt)}, ${ago(record.lastUsedAt, now)}`,
    ],
    ...record.secrets.map(({ generation, createdAt, createdBy, endsAt }) => {
      const end =
        endsAt === undefined ? "" : endsAt <= now ? `, ended ${moment(endsAt)}` : `, works until ${moment(endsAt)}`;
      return [`generation ${generation}`, `${moment(createdAt)} by ${createdBy}${end}`] as const;
    }),
  ];
}

function limitFacts({ budgets = [], ...figures }: Limits): (readonly [string, string])[] {
  return [
    ...Object.entries(figures).map(([name, value]) => [kebab(name).replaceAll("-", " "), String(value)] as const),
    ...budgets.map((budget) => ["budget", budgetText(budget)] as const),
  ];
}

function day(time: number): string {
  return new Date(time).toISOString().slice(0, 10);
}

function moment(time: number): string {
  return `${new Date(time).toISOString().slice(0, 16).replace("T", " ")} UTC`;
}

const STEPS: readonly (readonly [unit: string, milliseconds: number])[] = [
  ["d", 86_400_000],
  ["h", 3_600_000],
  ["m", 60_000],
];

function ago(time: number, now: number): string {
  const past = Math.max(0, now - time);
  const step = STEPS.find(([, milliseconds]) => past >= milliseconds);
  return step === undefined ? "just now" : `${Math.floor(past / step[1])}${step[0]} ago`;
}
