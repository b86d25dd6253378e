import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Counter, createRegistry, Gauge, Histogram, printMetrics } from "#base/metrics.ts";
import { ExpositionError } from "./error.ts";
import type { Family } from "./family.ts";
import { printFamilies } from "./merge.ts";
import { ExpositionReader } from "./read.ts";

const LIMITS = { bytes: 1 << 20, lines: 10_000 };

interface How {
  readonly upstream?: string;
  readonly open?: boolean;
  readonly limits?: Partial<typeof LIMITS>;
  /** Bytes of a piece. */
  readonly pieces?: number;
}

function read(text: string | Uint8Array, { upstream = "one", open = false, limits, pieces }: How = {}) {
  const reader = new ExpositionReader({ model: "m", upstream }, open, { ...LIMITS, ...limits });
  const bytes = typeof text === "string" ? Buffer.from(text) : text;
  const step = pieces ?? Math.max(1, bytes.length);
  for (let at = 0; at < bytes.length; at += step) reader.take(bytes.subarray(at, at + step));
  return reader.end();
}
const shown = (text: string, how?: How): string => printFamilies([read(text, how)]);
const wrong = (text: string | Uint8Array, how?: How): string => {
  try {
    read(text, how);
  } catch (error) {
    if (error instanceof ExpositionError) return `${error.message} ${error.line ?? "-"}`;
    throw error;
  }
  return "taken";
};

test("families of several servers stand together, each sample with its server's labels", () => {
  const text = (n: number): string =>
    `# HELP a_total Some.\n# TYPE a_total counter\na_total{k="v,}\\"\\\\"} ${n}\na_total ${n}e+1 1700000000\n` +
    `# TYPE h histogram\nh_bucket{le="+Inf"} ${n}\nh_sum ${n}\nh_count ${n}\n\n# of no matter\nb NaN\n`;
  assert.equal(
    printFamilies([read(text(1)), read(text(2), { upstream: 'tw"o' })]),
    `# HELP a_total Some.
# TYPE a_total counter
a_total{model="m",upstream="one",k="v,}\\"\\\\"} 1
a_total{model="m",upstream="one"} 1e+1
a_total{model="m",upstream="tw\\"o",k="v,}\\"\\\\"} 2
a_total{model="m",upstream="tw\\"o"} 2e+1
# TYPE h histogram
h_bucket{model="m",upstream="one",le="+Inf"} 1
h_sum{model="m",upstream="one"} 1
h_count{model="m",upstream="one"} 1
h_bucket{model="m",upstream="tw\\"o",le="+Inf"} 2
h_sum{model="m",upstream="tw\\"o"} 2
h_count{model="m",upstream="tw\\"o"} 2
b{model="m",upstream="one"} NaN
b{model="m",upstream="tw\\"o"} NaN
`,
  );
  assert.equal(printFamilies([]), "");
  assert.equal(shown("# TYPE a counter\n"), "", "a family without a sample is none");
});

test("labels of the server's own under these names are renamed as Prometheus does", () => {
  assert.equal(
    shown('a{upstream="x",model="y",exported_model="z"} 1\n'),
    'a{model="m",upstream="one",exported_upstream="x",exported_exported_model="y",exported_model="z"} 1\n',
  );
});

test("OpenMetrics is read as the text format that holds the same samples", () => {
  const text = `# HELP c Calls \\"now\\".
# TYPE c counter
# UNIT c calls
c_total{k="v"} 1 1700000000.5 # {trace_id="t"} 0.5 1700000000.1
c_created{k="v"} 1.7e9
# TYPE i info
i_info{version="1"} 1
# TYPE s stateset
s{s="a"} 1
# TYPE g gaugehistogram
g_bucket{le="1.0"} 1
g_gcount 1
# TYPE u unknown
u 3
# EOF
`;
  assert.equal(
    shown(text, { open: true }),
    `# HELP c_total Calls "now".
# TYPE c_total counter
c_total{model="m",upstream="one",k="v"} 1
# HELP c_created Calls "now".
# TYPE c_created gauge
c_created{model="m",upstream="one",k="v"} 1.7e9
# TYPE i_info gauge
i_info{model="m",upstream="one",version="1"} 1
# TYPE s gauge
s{model="m",upstream="one",s="a"} 1
g_bucket{model="m",upstream="one",le="1.0"} 1
g_gcount{model="m",upstream="one"} 1
u{model="m",upstream="one"} 3
`,
  );
  assert.equal(wrong("a 1\n", { open: true }), "no end 1");
  assert.equal(wrong("# EOF\na 1\n", { open: true }), "something behind the end 2");
  assert.equal(wrong("a 1\n# EOF\n"), "taken", "in the other format it is a comment");
  assert.equal(wrong("# TYPE c counter\nc 1\n# EOF\n", { open: true }), "a sample that its family has not 2");
  assert.equal(wrong("a 1 # {x=1} 2\n# EOF\n", { open: true }), "labels 1");
  for (const exemplar of ["{}", "x", "{} 1 # {} 1", '{a="b"}'])
    assert.equal(wrong(`a 1 # ${exemplar}\n# EOF\n`, { open: true }), "an exemplar 1", exemplar);
});

test("what is none by the grammar is none at all, and the line is told", () => {
  const cases: readonly (readonly [line: string, what: string])[] = [
    ['a{x="y"z="w"} 1', "labels"],
    ['a{x="y} 1', "labels"],
    ["a{x='y'} 1", "labels"],
    ['a{x="\\q"} 1', "labels"],
    ["a{,} 1", "labels"],
    ['a{x="y",,} 1', "labels"],
    ['a{x="y",x="z"} 1', "a label twice"],
    ['a{__name__="b"} 1', "a label's name"],
    ["a one", "no value"],
    ["a", "no value"],
    ["a 1 2 3", "no value"],
    ["a 1.5.", "no value"],
    ["a 0x10", "no value"],
    ["a 1 1.5", "no value"],
    ["a 1\r", "no value"],
    [`a ${"1".repeat(65)}`, "no value"],
    ["{} 1", "no name"],
    ["<html>", "no name"],
    [" a 1", "no name"],
    ["# TYPE a", "a type"],
    ["# TYPE a info", "a type"],
    ["# TYPE 1a gauge", "a description"],
    ["# HELP a \\q", "a description"],
    ["# TYPE first gauge", "a type"],
    ["first 2", "a sample twice"],
    ['first{x=""} 2', "a sample twice"],
    [`a{x="${"y".repeat(16 * 1024)}"} 1`, "a line too long"],
    [`a{${Array.from({ length: 65 }, (_, at) => `l${at}="x"`).join(",")}} 1`, "too many labels"],
  ];
  for (const [line, what] of cases) assert.equal(wrong(`first 1\n${line}\n`), `${what} 2`, line);
  for (const [text, what] of [
    ["# TYPE h histogram\nh 1\n", "a sample that its family has not 2"],
    ["# TYPE h histogram\nh_bucket 1\n", "a bound 2"],
    ['# TYPE h histogram\nh_bucket{le="much"} 1\n', "a bound 2"],
    ['# TYPE s summary\ns_sum 1\ns_count 1\ns{quantile="0.5"} 1\ns 1\n', "a bound 5"],
    ["# HELP a x\n# HELP a y\n", "a description 2"],
    ["# TYPE a gauge\n# TYPE a gauge\n", "a type 2"],
    ["a 1", "no end 0"],
  ] as const)
    assert.equal(wrong(text), what, text);
  assert.equal(wrong(Buffer.from([0x61, 0x20, 0xff, 0x0a])), "no UTF-8 1");
  assert.equal(wrong("a 1\n".repeat(3), { limits: { lines: 2 } }), "a sample twice 2");
  assert.equal(wrong("\n".repeat(3), { limits: { lines: 2 } }), "too many lines -");
  assert.equal(wrong("\n".repeat(9), { limits: { bytes: 8 } }), "too many bytes -");
  assert.equal(wrong("a".repeat(17 * 1024)), "a line too long 1", "without an end, too");
});

test("what servers say of one name in two ways is printed without a type, and none is lost", () => {
  const histogram = '# TYPE h histogram\nh_bucket{le="+Inf"} 1\nh_sum 1\nh_count 1\n';
  const merged = (...texts: readonly string[]) =>
    printFamilies(texts.map((text, at) => read(text, { upstream: `u${at}` })));
  assert.equal(
    merged(histogram, "# HELP h_count Evil.\n# TYPE h_count counter\nh_count 9\n", "# TYPE a gauge\na 1\n"),
    `# TYPE a gauge
a{model="m",upstream="u2"} 1
h_bucket{model="m",upstream="u0",le="+Inf"} 1
h_sum{model="m",upstream="u0"} 1
h_count{model="m",upstream="u0"} 1
h_count{model="m",upstream="u1"} 9
`,
  );
  assert.equal(
    merged("# TYPE a gauge\na 1\n", "# TYPE a counter\na 2\n"),
    'a{model="m",upstream="u0"} 1\na{model="m",upstream="u1"} 2\n',
  );
  assert.match(merged(histogram, "# TYPE h gauge\n"), /^# TYPE h histogram$/m, "only what has samples counts");
});

const NAME = fc.stringMatching(/^[a-c](?:_(?:total|sum|count|bucket|created))?$/);
const WORDS = fc.string({ unit: "binary", maxLength: 12 });
const spell = (text: string): string => text.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");

interface Said {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}
const SAID: fc.Arbitrary<Said> = fc.record({
  name: NAME,
  labels: fc.dictionary(fc.stringMatching(/^(?:model|upstream|exported_model|le|[x-z])$/), WORDS, { maxKeys: 4 }),
  value: fc.double(),
});
const number = (value: number): string =>
  Number.isFinite(value) ? String(value) : Number.isNaN(value) ? "NaN" : value > 0 ? "+Inf" : "-Inf";
const key = ({ name, labels }: Said): string =>
  JSON.stringify([
    name,
    Object.entries(labels)
      .filter(([, value]) => value !== "")
      .sort(),
  ]);
const SERVER = fc.record({
  types: fc.dictionary(NAME, fc.constantFrom("gauge", "counter", "untyped"), { maxKeys: 3 }),
  said: fc.uniqueArray(SAID, { selector: key, maxLength: 8 }),
});

function textOf({ types, said }: { readonly types: Readonly<Record<string, string>>; readonly said: readonly Said[] }) {
  const heads = Object.entries(types).map(([name, type]) => `# TYPE ${name} ${type}\n`);
  const lines = said.map(({ name, labels, value }) => {
    const pairs = Object.entries(labels).map(([label, text]) => `${label}="${spell(text)}"`);
    return `${name}{${pairs.join(",")}} ${number(value)}\n`;
  });
  return [...heads, ...lines].join("");
}

test("every sample of every server is in the whole once, and the whole is an exposition again", () => {
  fc.assert(
    fc.property(fc.array(SERVER, { maxLength: 4 }), fc.integer({ min: 1, max: 50 }), (servers, pieces) => {
      const read4 = servers.map((server, at) => read(textOf(server), { upstream: `u${at}`, pieces }));
      const whole = printFamilies(read4);
      // Strict: of one type, no series twice, no type behind a sample.
      const again = read(whole, { upstream: "outer" }).flatMap(({ samples }) => samples);
      assert.equal(
        again.length,
        servers.reduce((sum, { said }) => sum + said.length, 0),
      );
      for (const [at, { said }] of servers.entries()) {
        const own = again.filter(({ line }) => line.includes(`exported_upstream="u${at}"`));
        const values = own.map(({ name, line }) => `${name} ${line.slice(line.lastIndexOf(" ") + 1)}`);
        assert.deepEqual(values.sort(), said.map(({ name, value }) => `${name} ${number(value)}`).sort());
      }
      const described = whole.split("\n").flatMap((line) => /^# TYPE (\S+)/.exec(line)?.[1] ?? []);
      assert.equal(new Set(described).size, described.length);
    }),
  );
});

test("whatever bytes come, it is an exposition or an error, and the same in any pieces", () => {
  const TOKEN = fc.constantFrom(
    "a",
    "# TYPE ",
    "# HELP ",
    "a_sum",
    "{",
    "}",
    'x="y"',
    ",",
    " ",
    "1",
    "Inf",
    "\\",
    '"',
    "histogram",
    "# EOF",
    "counter",
    "\n",
    "\n",
    "é",
    "\r",
  );
  const told = (text: string, how: How): string | readonly Family[] => {
    const what = wrong(text, how);
    return what === "taken" ? read(text, how) : what;
  };
  fc.assert(
    fc.property(
      fc.array(TOKEN, { maxLength: 40 }),
      fc.boolean(),
      fc.integer({ min: 1, max: 9 }),
      (tokens, open, pieces) => {
        const text = tokens.join("");
        assert.deepEqual(told(text, { open, pieces }), told(text, { open }));
      },
    ),
    { numRuns: 2000 },
  );
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), fc.boolean(), (bytes, open) => void wrong(bytes, { open })));
});

test("what this program's own metrics print is read whole", async () => {
  const registry = createRegistry();
  const registers = [registry];
  new Counter({ name: "calls_total", help: 'Calls\n"of" a \\ kind.', labelNames: ["route"], registers }).inc({
    route: 'a\n"\\b',
  });
  new Gauge({ name: "in:flight", help: "Now.", registers }).set(Number.POSITIVE_INFINITY);
  new Histogram({ name: "seconds", help: "Of all.", buckets: [0.1, 1], registers }).observe(0.5);
  const { body } = await printMetrics(registry);
  const again = shown(body);
  assert.equal(
    again.replaceAll('model="m",upstream="one"', "").replaceAll("{,", "{").replaceAll("{}", "").replaceAll("\n", ""),
    body.replaceAll("\n", ""),
  );
});
