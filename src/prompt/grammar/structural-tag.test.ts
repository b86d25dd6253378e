/**
 * Structural tags: the grammar against a naive reader of the same format, over random formats and texts; and examples.
 */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import type { Tag, TagFormat, TriggeredTags } from "#core/structural-tag.ts";
import { accepts, randomOf, sample } from "../../../test/fixtures/grammar-walk.ts";
import { buildGrammar, GrammarError } from "./builder.ts";
import { structuralTagRules } from "./structural-tag.ts";

type Ends = readonly string[] | undefined;

const grammarOf = (format: TagFormat) => buildGrammar(structuralTagRules(format), "root");

/** Places where a part that begins at `from` may end, its end included. By the book, and slow. */
function read(format: TagFormat, text: string, from: number, ends: Ends): Set<number> {
  switch (format.kind) {
    case "const_string":
      return after([format.value], text, from, ends);
    case "json_schema":
      return after([JSON.stringify((format.schema as { const: unknown }).const)], text, from, ends);
    case "regex":
    case "grammar":
      throw new Error("not in these tests");
    case "any_text":
      return readText({ triggers: [], tags: [], excludes: format.excludes, stopAfterFirst: false }, text, from, ends);
    case "sequence": {
      const last = format.elements.length - 1;
      return format.elements.reduce(
        (at, part, i) => flat(at, (place) => read(part, text, place, i === last ? ends : undefined)),
        new Set([from]),
      );
    }
    case "or":
      return flat(format.elements, (part) => read(part, text, from, ends));
    case "repeat": {
      const all = new Set<number>();
      let at = new Set([from]);
      for (let count = 0; at.size > 0 && count <= (format.max ?? text.length + format.min); count++) {
        if (count >= format.min) for (const place of at) all.add(place);
        at = flat(at, (place) => read(format.content, text, place, undefined));
      }
      return flat(all, (place) => closing(text, place, ends));
    }
    case "tag":
      return flat(readTag(format, text, from), (place) => closing(text, place, ends));
    case "triggered_tags": {
      if (!format.atLeastOne) return readText(format, text, from, ends);
      const first = flat(format.tags, (tag) => readTag(tag, text, from));
      return flat(first, (place) =>
        format.stopAfterFirst ? closing(text, place, ends) : readText(format, text, place, ends),
      );
    }
    case "tags_with_separator": {
      const all = new Set<number>(format.atLeastOne ? [] : [from]);
      let at = flat(format.tags, (tag) => readTag(tag, text, from));
      for (let count = 0; at.size > 0 && count <= text.length; count++) {
        for (const place of at) all.add(place);
        if (format.stopAfterFirst) break;
        const apart = flat(at, (place) => after([format.separator], text, place, undefined));
        at = flat(apart, (place) => flat(format.tags, (tag) => readTag(tag, text, place)));
      }
      return flat(all, (place) => closing(text, place, ends));
    }
  }
}

function readTag(tag: Tag, text: string, from: number): Set<number> {
  return flat(after([tag.begin], text, from, undefined), (place) => read(tag.content, text, place, tag.ends));
}

/** Character by character; the first string that completes decides. */
function readText(
  format: Pick<TriggeredTags, "triggers" | "tags" | "excludes" | "stopAfterFirst">,
  text: string,
  from: number,
  ends: Ends,
): Set<number> {
  const all = new Set<number>();
  for (let at = from; at <= text.length; at++) {
    const completes = (one: string): boolean => text.slice(from, at).endsWith(one);
    if (ends?.some(completes)) return all.add(at);
    if (format.excludes.some(completes)) return all;
    const triggers = format.triggers.filter(completes);
    if (triggers.length > 0) {
      const tags = format.tags.filter((tag) => triggers.some((trigger) => tag.begin.startsWith(trigger)));
      for (const tag of tags) {
        const trigger = triggers.find((one) => tag.begin.startsWith(one)) as string;
        for (const place of readTag(tag, text, at - trigger.length)) {
          const rest = format.stopAfterFirst ? closing(text, place, ends) : readText(format, text, place, ends);
          for (const end of rest) all.add(end);
        }
      }
      return all;
    }
    if (ends === undefined) all.add(at);
  }
  return all;
}

function after(options: readonly string[], text: string, from: number, ends: Ends): Set<number> {
  return flat(options, (one) =>
    text.startsWith(one, from) ? closing(text, from + one.length, ends) : new Set<number>(),
  );
}

function closing(text: string, from: number, ends: Ends): Set<number> {
  return ends === undefined ? new Set([from]) : after(ends, text, from, undefined);
}

function flat<T>(items: Iterable<T>, places: (item: T) => Set<number>): Set<number> {
  return new Set([...items].flatMap((item) => [...places(item)]));
}

const valid = (format: TagFormat, text: string): boolean => read(format, text, 0, undefined).has(text.length);

/** Few characters, so that strings overlap. */
const word = fc.string({ unit: fc.constantFrom("a", "b", "<"), minLength: 1, maxLength: 3 });
const words = fc.array(word, { maxLength: 2 });
const { format } = fc.letrec<{ format: TagFormat; tag: Tag }>((tie) => ({
  format: fc.oneof(
    { depthSize: "small", withCrossShrink: true },
    word.map((value): TagFormat => ({ kind: "const_string", value })),
    words.map((excludes): TagFormat => ({ kind: "any_text", excludes })),
    fc.constant<TagFormat>({ kind: "json_schema", schema: { const: 7 } }),
    tie("tag"),
    fc
      .tuple(
        fc.constantFrom("sequence" as const, "or" as const),
        fc.array(tie("format"), { minLength: 1, maxLength: 3 }),
      )
      .map(([kind, elements]): TagFormat => ({ kind, elements })),
    fc
      .tuple(tie("format"), fc.nat(2), fc.option(fc.nat(1), { nil: undefined }))
      .map(
        ([content, min, more]): TagFormat =>
          more === undefined ? { kind: "repeat", content, min } : { kind: "repeat", content, min, max: min + more },
      ),
    fc
      .tuple(fc.array(word, { minLength: 1, maxLength: 2 }), fc.array(tie("tag"), { minLength: 1, maxLength: 2 }))
      .chain(([triggers, tags]) =>
        fc.record<TriggeredTags>({
          kind: fc.constant("triggered_tags"),
          triggers: fc.constant(triggers),
          tags: fc.constant(tags.map((tag, i) => ({ ...tag, begin: `${triggers[i % triggers.length]}${tag.begin}` }))),
          excludes: words,
          atLeastOne: fc.boolean(),
          stopAfterFirst: fc.boolean(),
        }),
      ),
    fc.tuple(fc.array(tie("tag"), { minLength: 1, maxLength: 2 }), word, fc.boolean(), fc.boolean()).map(
      ([tags, separator, atLeastOne, stopAfterFirst]): TagFormat => ({
        kind: "tags_with_separator",
        tags,
        separator,
        atLeastOne,
        stopAfterFirst,
      }),
    ),
  ),
  tag: fc
    .tuple(word, tie("format"), word, words)
    .map(([begin, content, end, more]): Tag => ({ kind: "tag", begin, content, ends: [end, ...more] })),
}));

describe("structural tags", () => {
  it("let through what a naive reader takes, and nothing else", () => {
    const seen = { compiled: 0, walked: 0, accepted: 0 };
    const texts = fc.array(fc.string({ unit: fc.constantFrom("a", "b", "<", "7", "c"), maxLength: 9 }), {
      maxLength: 12,
    });
    fc.assert(
      fc.property(format, texts, fc.nat(), (tag, tries, seed) => {
        let grammar: ReturnType<typeof grammarOf>;
        try {
          grammar = grammarOf(tag);
        } catch (error) {
          assert.ok(error instanceof GrammarError, String(error));
          return;
        }
        seen.compiled++;
        for (const text of tries) {
          assert.equal(accepts(grammar, text), valid(tag, text), `${JSON.stringify(tag)} of ${text}`);
          if (valid(tag, text)) seen.accepted++;
        }
        const walk = sample(grammar, randomOf(seed), 24);
        if (walk === undefined) return;
        seen.walked++;
        assert.ok(valid(tag, walk), `${JSON.stringify(tag)} gave ${walk}`);
      }),
      { numRuns: 600 },
    );
    assert.ok(seen.compiled > 300 && seen.walked > 100 && seen.accepted > 100, JSON.stringify(seen));
  });

  const json = (name: string): Tag => ({
    kind: "tag",
    begin: `<function=${name}>`,
    content: {
      kind: "json_schema",
      schema: { type: "object", properties: { n: { type: "integer" } }, required: ["n"] },
    },
    ends: ["</function>"],
  });
  const triggered = (changes: Partial<TriggeredTags> = {}): TriggeredTags => ({
    kind: "triggered_tags",
    triggers: ["<function="],
    tags: [json("f"), json("g")],
    excludes: [],
    atLeastOne: false,
    stopAfterFirst: false,
    ...changes,
  });
  const call = (name: string) => `<function=${name}>{"n":1}</function>`;

  for (const [what, tag, good, bad] of [
    [
      "triggered tags: any text, and what begins like a tag is one",
      triggered(),
      ["", "hi <b> <functio", `a${call("f")}b${call("g")}c`, '<func<function=f>{"n":1}</function>'],
      ["<function=h", "<function=f>{}</function>", "<function=f>", `${call("f")}<function=`],
    ],
    [
      "at least one: no text before",
      triggered({ atLeastOne: true }),
      [call("f"), `${call("f")} b`],
      ["", `a${call("f")}`],
    ],
    [
      "stop after first",
      triggered({ stopAfterFirst: true }),
      ["", "ab", `ab${call("g")}`],
      [`${call("g")}b`, call("f") + call("g")],
    ],
    ["exactly one", triggered({ stopAfterFirst: true, atLeastOne: true }), [call("g")], ["", `${call("g")}b`, "a"]],
    ["excludes", triggered({ excludes: ["no", "é"] }), ["n", `n${call("f")}o`], ["no", "ano", "né"]],
    [
      "a thought, then calls with commas",
      {
        kind: "sequence",
        elements: [
          { kind: "tag", begin: "<think>", content: { kind: "any_text", excludes: [] }, ends: ["</think>"] },
          { kind: "tags_with_separator", tags: [json("f")], separator: ",", atLeastOne: true, stopAfterFirst: false },
        ],
      },
      [`<think>a < b </thin ü</think>${call("f")}`, `<think></think>${call("f")},${call("f")}`],
      ["<think></think>", `<think>a</think>b</think>${call("f")}`, `<think></think>${call("f")},`, call("f")],
    ],
    [
      "regex, grammar, several ends",
      {
        kind: "or",
        elements: [
          { kind: "tag", begin: "#", content: { kind: "regex", pattern: "[0-9]{2}" }, ends: [".", "!"] },
          { kind: "tag", begin: "$", content: { kind: "grammar", source: 'root ::= x x\nx ::= "o"' }, ends: [""] },
        ],
      },
      ["#12.", "#12!", "$oo"],
      ["#12", "#1.", "$o", "#12.!"],
    ],
  ] as const satisfies readonly (readonly [string, TagFormat, readonly string[], readonly string[]])[]) {
    it(what, () => {
      const grammar = grammarOf(tag);
      for (const text of good) assert.ok(accepts(grammar, text), `takes ${text}`);
      for (const text of bad) assert.ok(!accepts(grammar, text), `refuses ${text}`);
    });
  }

  it("refuses what cannot be meant", () => {
    const other = { ...json("f"), begin: "<other>" };
    for (const [tag, message] of [
      [triggered({ tags: [other] }), /exactly one of the triggers/],
      [triggered({ triggers: ["<", "<function="] }), /exactly one of the triggers/],
      [triggered({ triggers: ["<function=", "n="], tags: [json("f"), { ...json("g"), begin: "n=1" }] }), undefined],
      [triggered({ excludes: ["func"] }), /would never come/],
      [
        triggered({ excludes: ["ab".repeat(300), ..."cdefghijklmnopqrstuvwxyz"].map((one) => one.repeat(300)) }),
        /too many/,
      ],
    ] as const) {
      if (message === undefined) assert.ok(grammarOf(tag));
      else assert.throws(() => grammarOf(tag), message);
    }
  });
});
