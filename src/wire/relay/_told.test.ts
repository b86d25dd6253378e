import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { scanJson } from "#base/json-scan.ts";
import { Fault } from "#core/fault.ts";
import { DEFAULT_CAPS, type RequestCaps } from "#core/request-caps.ts";
import { toldBy } from "./_told.ts";
import { RELAY_RULES, type RelayRule } from "./rules.ts";

function outcome(rule: RelayRule, text: string, caps: RequestCaps): unknown {
  const bytes = Buffer.from(text);
  try {
    return toldBy(rule, bytes, scanJson(bytes), caps, new Set());
  } catch (error) {
    assert.ok(error instanceof Fault, String(error));
    const { kind, message, param } = error;
    return { kind, message, param };
  }
}

const SPELLED: Readonly<Record<string, readonly string[]>> = {
  model: ['"m"', '"n"', '"m\\u0000"', "null"],
  messages: ["[{}]", "[{},{}]", "[]", '"x"', '[{"content":[{},{},{}]}]', `[${"{},".repeat(8)}{}]`],
  prompt: ['"x"', '""', "[1,2]", '["a","b"]', "[[1],[2]]", "3"],
  input: ['"x"', '["a"]', "[1,2,3]", '["a","b","c","d"]'],
  tools: ["[]", "null", `[{"a":"${"x".repeat(60)}"}]`, "[{}]", '[[[["deep"]]]]'],
  max_tokens: ["1", "5", "1.0", "-1", "1e2", "true"],
  n: ["1", "2", "2 ", "100000"],
  stream: ["true", "false", "null"],
  stream_options: ['{"include_usage":true}', "{}", "null", '{"continuous_usage_stats":true}'],
  temperature: ["0", "0.0", "9"],
  priority: ["3", "null", "0", '"x"'],
  cache_salt: ['"own"', "null"],
  store: ["true", "false"],
  chat_template: ["null", '"x"'],
  '"odd ,\\n"': ["1"],
  extra_args: ["null", "{}"],
};
const RULES = ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings", "/tokenize"] as const;
const CAPS: RequestCaps = { ...DEFAULT_CAPS, messages: 6, contentParts: 2, toolCharacters: 60, toolDepth: 4 };

test("what is kept of a body is what would be found anew, whatever was kept before", () => {
  const member = fc
    .constantFrom(...Object.keys(SPELLED))
    .chain((name) =>
      fc.tuple(
        fc.constant(name.startsWith('"') ? name : JSON.stringify(name)),
        fc.constantFrom(...(SPELLED[name] ?? ["1"])),
      ),
    );
  const body = fc.uniqueArray(member, { selector: ([name]) => name, maxLength: 5 });
  let repeated = 0;
  const seen = new Map<string, unknown>();
  fc.assert(
    fc.property(
      fc.constantFrom(...RULES),
      body,
      fc.boolean(),
      fc.constantFrom("", " "),
      (path, members, usual, gap) => {
        const rule = RELAY_RULES[path];
        const first = usual ? ['"model":"m"', path === "/v1/embeddings" ? '"input":"x"' : '"messages":[{}]'] : [];
        const given = members
          .filter(([name]) => !first.some((one) => one.startsWith(name)))
          .map(([name, value]) => `${name}:${gap}${value}`);
        const text = `{${[...first, ...given].join()}}`;
        const kept = outcome(rule, text, CAPS);
        if (seen.get(`${path}${text}`) === kept) repeated++;
        seen.set(`${path}${text}`, kept);
        // Of caps that nobody has seen nothing is kept.
        assert.deepEqual(kept, outcome(rule, text, { ...CAPS }));
      },
    ),
    { numRuns: 3000 },
  );
  assert.ok(repeated > 100, `${repeated} came out of what was kept`);
});

test("nothing is kept of what a client writes in words, of unknown fields, or for other caps", () => {
  const same = (text: string, other: RequestCaps = CAPS): boolean => {
    const rule = RELAY_RULES["/v1/chat/completions"];
    return outcome(rule, text, CAPS) === outcome(rule, text, other);
  };
  assert.equal(same('{"model":"m","messages":[{}],"seed":7}'), true);
  assert.equal(same('{"model":"m","messages":[{}],"seed":7}', { ...CAPS }), false);
  for (const more of [
    '"user":"u"',
    '"stop":["x"]',
    '"response_format":{"type":"text"}',
    '"unknown":1',
    '"cache_salt":"x"',
  ])
    assert.equal(same(`{"model":"m","messages":[{}],${more}}`), false, more);
  assert.equal(same(`{"model":"${"m".repeat(600)}","messages":[{}]}`), false);
});
