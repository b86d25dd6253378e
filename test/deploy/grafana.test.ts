/**
 * The dashboard: every metric and label in its queries is one that the server exports, by the registry itself.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { test } from "node:test";
import { everyMetric } from "../../scripts/every-metric.ts";

interface Target {
  readonly expr: string;
  readonly legendFormat: string;
}
interface Panel {
  readonly id: number;
  readonly type: string;
  readonly title: string;
  readonly gridPos: { readonly x: number; readonly w: number; readonly y: number; readonly h: number };
  readonly targets?: readonly Target[];
}
interface Dashboard {
  readonly title: string;
  readonly uid: string;
  readonly panels: readonly Panel[];
  readonly templating: { readonly list: readonly { readonly name: string; readonly query: unknown }[] };
}

const text = readFileSync(resolve(import.meta.dirname, "../../deploy/grafana/castellan.json"), "utf8");
const dashboard = JSON.parse(text) as Dashboard;
const targets = dashboard.panels.flatMap((panel) => panel.targets ?? []);
/** What Prometheus puts on every series, what it calls a bucket's bound, and what stands for the model. */
const FOREIGN = ["job", "instance", "le"];
const WORDS = /^(sum|max|min|rate|increase|histogram_quantile|by|time)$/;

/** By name: its labels. Histograms also under the names of their series. */
function exported(): Map<string, readonly string[]> {
  const known = new Map<string, readonly string[]>();
  for (const metric of everyMetric().getMetricsAsArray() as unknown as {
    name: string;
    type: string;
    labelNames?: string[];
  }[]) {
    const labels = metric.labelNames ?? [];
    if (metric.type === "histogram")
      for (const end of ["bucket", "sum", "count"]) known.set(`${metric.name}_${end}`, labels);
    else known.set(metric.name, labels);
  }
  assert.ok(known.size > 50);
  return known;
}

/** The metrics of an expression. */
function metricsOf(expr: string): string[] {
  const bare = expr
    .replace(/"[^"]*"/g, '""')
    .replace(/\{[^}]*\}/g, "")
    .replace(/\[[^\]]*\]/g, "")
    .replace(/\bby \([^)]*\)/g, "");
  return [...bare.matchAll(/[a-z_][a-z0-9_:]*/g)].map(([name]) => name).filter((name) => !WORDS.test(name));
}

function labelsOf(expr: string): string[] {
  const selected = [...expr.matchAll(/\{([^}]*)\}/g)].flatMap(([, inside = ""]) =>
    [...inside.matchAll(/(\w+)=~?/g)].map(([, name = ""]) => name),
  );
  const grouped = [...expr.matchAll(/\bby \(([^)]*)\)/g)].flatMap(([, inside = ""]) =>
    inside.split(",").map((name) => name.trim()),
  );
  return [...selected, ...grouped];
}

test("every metric and label that the dashboard asks for is there", () => {
  const known = exported();
  assert.ok(targets.length > 30);
  for (const { expr, legendFormat } of targets) {
    const names = metricsOf(expr);
    assert.ok(names.length > 0, expr);
    for (const name of names) {
      const labels = known.get(name);
      assert.ok(labels !== undefined, `${name} in ${expr}`);
      for (const label of labelsOf(expr)) assert.ok([...labels, ...FOREIGN].includes(label), `${label} of ${name}`);
    }
    for (const [, label = ""] of legendFormat.matchAll(/\{\{(\w+)\}\}/g))
      assert.ok(labelsOf(expr).includes(label), legendFormat);
  }
  for (const { query } of dashboard.templating.list) {
    const names = /label_values\((?:\{__name__=~\\*")?([a-z_:|]+)/.exec(JSON.stringify(query))?.[1]?.split("|") ?? [];
    assert.ok(names.length > 0 || query === "prometheus", JSON.stringify(query));
    for (const name of names) assert.ok(known.has(name), name);
  }
});

test("counters are asked for their rates, gauges for themselves", () => {
  const known = new Set(exported().keys());
  for (const { expr } of targets)
    for (const name of metricsOf(expr).filter((one) => known.has(one) && /_total$/.test(one)))
      assert.match(expr, new RegExp(`(rate|increase)\\(${name}\\{`), expr);
});

test("its panels have an id of their own, do not overlap, and use the variables that it defines", () => {
  assert.equal(new Set(dashboard.panels.map(({ id }) => id)).size, dashboard.panels.length);
  const variables = dashboard.templating.list.map(({ name }) => name);
  for (const [, name = ""] of text.matchAll(/\$(?!__)\{?([a-z_]+)\}?/g)) assert.ok(variables.includes(name), name);
  for (const [index, { gridPos: a }] of dashboard.panels.entries()) {
    assert.ok(a.x + a.w <= 24);
    for (const { gridPos: b, title } of dashboard.panels.slice(index + 1))
      assert.ok(a.x + a.w <= b.x || b.x + b.w <= a.x || a.y + a.h <= b.y || b.y + b.h <= a.y, title);
  }
});
