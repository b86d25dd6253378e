import assert from "node:assert/strict";
import { test } from "node:test";
import { Fault } from "#core/fault.ts";
import type { ScoreCall } from "#core/pool-calls.ts";
import { type PairTemplate, pairTemplate } from "#prompt/pair-template.ts";
import { grant } from "./_fixture.ts";
import { AFTER, BEFORE, BETWEEN, type PoolScript, poolFixture } from "./_fixture-pooling.ts";
import { score } from "./score.ts";

function run(script: PoolScript, call: Partial<ScoreCall>, pairs?: PairTemplate) {
  const { pooling, serving } = poolFixture(script, pairs === undefined ? {} : { pairs });
  const whole: ScoreCall = { api: "Score", queries: ["a"], documents: ["b"], fields: ["text_1", "text_2"], ...call };
  return { answer: score(grant("embeddings"), serving, whole, new AbortController().signal), pooling };
}

const cross = { info: { tasks: ["classify", "score"], type: "rank", classes: 1 } } as const;
const text = (tokens: Int32Array | undefined): string =>
  [...(tokens ?? [])]
    .map((id) => (id === BEFORE ? "<" : id === BETWEEN ? "|" : id === AFTER ? ">" : String.fromCharCode(id)))
    .join("");
const refused = (param: string) => (error: unknown) =>
  error instanceof Fault && error.kind === "invalid_request" && error.param === param;

test("a model with a head reads both texts at once, one query against all or each against its own", async () => {
  const one = run(cross, { documents: ["bc", "d"] });
  const { scores, usage } = await one.answer;
  assert.deepEqual(one.pooling.pools[0]?.inputs.map(text), ["<a|bc>", "<a|d>"]);
  assert.deepEqual([scores, usage.promptTokens], [[6, 5], 11]);
  const pairs = run(cross, { queries: ["a", "x"], documents: ["b", "yz"] });
  await pairs.answer;
  assert.deepEqual(pairs.pooling.pools[0]?.inputs.map(text), ["<a|b>", "<x|yz>"]);
  assert.equal(pairs.pooling.pools[0]?.task, "score");
});

test("an embedding model reads each text once, and the score is the cosine", async () => {
  const { answer, pooling } = run({}, { queries: ["a"], documents: ["a", "bcd"] });
  const { scores, usage } = await answer;
  assert.deepEqual(pooling.pools[0]?.inputs.map(text), ["<a>", "<a>", "<bcd>"]);
  const [a, b] = [
    [3, BEFORE, AFTER],
    [5, BEFORE, AFTER],
  ] as const;
  const dot = (x: readonly number[], y: readonly number[]): number =>
    x.reduce((sum, v, at) => sum + v * (y[at] ?? 0), 0);
  assert.ok(Math.abs((scores[0] ?? 0) - 1) < 1e-12);
  assert.ok(Math.abs((scores[1] ?? 0) - dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b))) < 1e-12);
  assert.equal(usage.promptTokens, 11);
});

test("a pair is cut from its longer text until both share the room", async () => {
  const cut = async (query: string, document: string, side: "left" | "right" = "right"): Promise<string> => {
    const truncate = { tokens: 9, side, field: "truncate_prompt_tokens" } as const;
    const { answer, pooling } = run(cross, { queries: [query], documents: [document], truncate });
    await answer;
    return text(pooling.pools[0]?.inputs[0]);
  };
  assert.equal(await cut("ab", "cd"), "<ab|cd>");
  assert.equal(await cut("ab", "cdefgh"), "<ab|cdef>");
  assert.equal(await cut("abcdef", "gh"), "<abcd|gh>");
  assert.equal(await cut("abcdef", "ghijkl"), "<abc|ghi>");
  assert.equal(await cut("abcdef", "ghijkl", "left"), "<def|jkl>");
  assert.equal(await cut("ab", "cdefgh", "left"), "<ab|efgh>");
});

test("each side may be cut by itself", async () => {
  const { answer, pooling } = run(cross, { queries: ["abc"], documents: ["def"], queryTokens: 1, documentTokens: 2 });
  await answer;
  assert.equal(text(pooling.pools[0]?.inputs[0]), "<a|de>");
});

const TEMPLATE = pairTemplate("<s>Q{query}<|>{document}</s>!");

test("a model's template stands around the pair, and nothing else does", async () => {
  const { answer, pooling } = run(cross, { documents: ["bc", "d"] }, TEMPLATE);
  await answer;
  assert.deepEqual(pooling.pools[0]?.inputs.map(text), ["<Qa|bc>!", "<Qa|d>!"]);
});

test("Wall: what a client writes makes neither a special token nor a place in the template", async () => {
  const queries = ["</s>", "{document}", "<", "<"];
  const documents = ["<s>", "{query}", "|>", "/s>"];
  const near = pairTemplate("<s>{query}{document}</s>");
  for (const template of [TEMPLATE, near]) {
    const { answer, pooling } = run({ ...cross, window: 32 }, { queries, documents }, template);
    await answer;
    const between = template === near ? "" : "|";
    const before = template === near ? "<" : "<Q";
    const inputs = pooling.pools[0]?.inputs ?? [];
    inputs.forEach((tokens, at) => {
      const specials = [...tokens].filter((id) => id > 255);
      assert.deepEqual(specials, template === near ? [BEFORE, AFTER] : [BEFORE, BETWEEN, AFTER]);
      const whole = `${before}${queries[at]}${between}${documents[at]}>${template === near ? "" : "!"}`;
      assert.equal(text(tokens), whole);
    });
    assert.equal(inputs.length, 4);
  }
});

test("in a template the texts are cut, never the template", async () => {
  const cut = async (query: string, document: string, more: Partial<ScoreCall> = {}): Promise<string> => {
    const truncate = { tokens: 9, side: "right", field: "truncate_prompt_tokens" } as const;
    const { answer, pooling } = run(cross, { queries: [query], documents: [document], truncate, ...more }, TEMPLATE);
    await answer;
    return text(pooling.pools[0]?.inputs[0]);
  };
  const left = { truncate: { tokens: 9, side: "left", field: "truncate_prompt_tokens" } } as const;
  assert.equal(await cut("ab", "cd"), "<Qab|cd>!");
  assert.equal(await cut("ab", "cdefgh"), "<Qab|cd>!");
  assert.equal(await cut("abcdef", "gh", left), "<Qef|gh>!");
  assert.equal(await cut("aé", "cdefgh"), "<Qa|cd>!", "a character that is cut through goes whole");
  assert.equal(await cut("abc", "def", { queryTokens: 1, documentTokens: 2 }), "<Qa|de>!");
  await assert.rejects(cut("a", "b", { truncate: { ...left.truncate, tokens: 5 } }), refused("truncate_prompt_tokens"));
  await assert.rejects(run(cross, { documents: ["x".repeat(14)] }, TEMPLATE).answer, refused("text_2"));
});

test("Jinja sees two messages and the client's variables, and the model's tokens stand around", async () => {
  const source =
    "{{ how }}{% for m in messages %}{{ m.role[0] }}:{{ m.content }}{% if m.role == 'query' %}<|>{% endif %}{% endfor %}";
  const { answer, pooling } = run(cross, { queries: ["<|>"], kwargs: { how: "</s>"[1] } }, pairTemplate(source));
  await answer;
  assert.equal(text(pooling.pools[0]?.inputs[0]), "</q:<|>|d:b>");
  assert.deepEqual(
    [...(pooling.pools[0]?.inputs[0] ?? [])].filter((id) => id > 255),
    [BEFORE, BETWEEN, AFTER],
  );
});

test("a template without a place for both texts, or that is no template, is a clear 400", async () => {
  for (const source of ["{query}", "{document}", "{{ query", "{% for %}"])
    await assert.rejects(run(cross, {}, pairTemplate(source)).answer, refused("model"), source);
});

test("what does not fit is refused by its field", async () => {
  for (const [script, call, param] of [
    [{}, { queries: ["a", "b"], documents: ["c"] }, "text_1"],
    [{}, { queries: [] }, "text_1"],
    [{}, { documents: [] }, "text_2"],
    [cross, { documents: ["b", "x".repeat(20)] }, "text_2.1"],
    [{}, { queries: ["x".repeat(20)] }, "text_1"],
    [{ info: { tasks: ["classify"], type: "rank", classes: 3 } }, {}, "model"],
    [{ info: { tasks: ["token_embed"], type: "none" } }, {}, "model"],
  ] as const)
    await assert.rejects(run(script, call).answer, refused(param));
});
