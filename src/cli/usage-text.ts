/**
 * How `castellan usage` prints: a table for people, CSV for sheets. Pure.
 */
import { dollars } from "#policy/limits/refusal.ts";
import type { UsageQuery, UsageSum } from "#policy/usage/table.ts";
import { addCounts, NO_COUNTS, type UsageCounts } from "#policy/usage/usage.ts";

export type UsageFormat = "table" | "csv" | "json";

export function usageText(sums: readonly UsageSum[], query: UsageQuery, format: "table" | "csv"): string {
  return format === "csv" ? csv(sums, query) : table(sums, query);
}

const COLUMNS: readonly (readonly [title: string, name: string, of: keyof UsageCounts])[] = [
  ["requests", "requests", "requests"],
  ["errors", "errors", "errors"],
  ["prompt", "prompt_tokens", "promptTokens"],
  ["cached", "cached_tokens", "cachedTokens"],
  ["completion", "completion_tokens", "completionTokens"],
];

function table(sums: readonly UsageSum[], { by, from, to }: UsageQuery): string {
  const caption = `Usage ${from === undefined ? "" : `from ${from} `}${to === undefined ? "until now" : `to ${to}`} (days of UTC)`;
  if (sums.length === 0) return `${caption}\n\nNothing was used.\n`;
  const cells = (counts: UsageCounts): string[] => [
    ...COLUMNS.map(([, , of]) => grouped(counts[of])),
    `$${dollars(counts.cost)}`,
  ];
  const total = { ...NO_COUNTS };
  for (const sum of sums) addCounts(total, sum);
  const rows = [
    [...by, ...COLUMNS.map(([title]) => title), "cost"],
    ...sums.map(({ group, ...counts }) => [...by.map((word) => shown(group[word])), ...cells(counts)]),
    ...(sums.length > 1 ? [[...by.map((_, i) => (i === 0 ? "total" : "")), ...cells(total)]] : []),
  ];
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  const lines = rows.map((row) =>
    row
      .map((cell, column) =>
        column < by.length ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0),
      )
      .join("  ")
      .trimEnd(),
  );
  return `${caption}\n\n${lines.join("\n")}\n`;
}

/** Names come from tokens, too: what a terminal would obey is not printed to one. */
function shown(name: string | undefined): string {
  return name === undefined || name === "" ? "–" : name.replaceAll(/\p{C}/gu, "?");
}

function grouped(count: number): string {
  return String(count).replaceAll(/\B(?=(\d{3})+$)/g, ",");
}

function csv(sums: readonly UsageSum[], { by }: UsageQuery): string {
  const head = [...by, ...COLUMNS.map(([, name]) => name), "cost_usd"];
  const lines = sums.map(({ group, ...counts }) => [
    ...by.map((word) => quoted(group[word] ?? "")),
    ...COLUMNS.map(([, , of]) => String(counts[of])),
    dollars(counts.cost),
  ]);
  return `${[head, ...lines].map((line) => line.join(",")).join("\r\n")}\r\n`;
}

/** RFC 4180; what a sheet would take for a formula is a text. */
function quoted(text: string): string {
  const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
