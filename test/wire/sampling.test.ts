/**
 * Sampling fields beyond OpenAI's, over the real server and model, with the official client: logprobs of tokens by id,
 * the budget for reasoning, beam search, intervals of a stream.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import OpenAI, { BadRequestError } from "openai";
import { startServer, TEST_KEY, type TestServer } from "../harness.ts";

let server: TestServer;
let client: OpenAI;
before(async () => {
  server = await startServer();
  client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: TEST_KEY, maxRetries: 0 });
});
after(() => server.stop());

const base = {
  model: "castellan-demo",
  messages: [{ role: "user" as const, content: "How much is 12 plus 30?" }],
  max_tokens: 60,
  temperature: 0,
};
/** What the client's types do not know. */
const extra = <T extends object>(fields: T): object => fields;

interface VllmChoice {
  readonly token_ids: number[];
  readonly stop_reason: number | string | null;
  readonly message: { readonly reasoning?: string | null; readonly content: string | null };
}

async function tokenIds(text: string): Promise<number[]> {
  const answer = await server.fetch("/tokenize", {
    method: "POST",
    body: JSON.stringify({ prompt: text, add_special_tokens: false }),
  });
  return ((await answer.json()) as { tokens: number[] }).tokens;
}

async function refused(promise: Promise<unknown>, param: string): Promise<void> {
  await assert.rejects(promise, (error) => {
    assert.ok(error instanceof BadRequestError, String(error));
    assert.equal(error.param, param);
    return true;
  });
}

/** The token among these that stands for a text. */
async function spelledBy(ids: readonly number[], text: string): Promise<number> {
  for (const id of new Set(ids)) {
    const answer = await server.fetch("/detokenize", { method: "POST", body: JSON.stringify({ tokens: [id] }) });
    if (((await answer.json()) as { prompt: string }).prompt === text) return id;
  }
  throw new Error(`no token of ${ids} is ${text}`);
}

test("logprob_token_ids: just these tokens, with the logprobs that the whole vocabulary gives them", async () => {
  const ids = [...new Set((await tokenIds("The answer is 42")).slice(0, 3))];
  const chat = async (fields: object) => {
    const answer = await client.chat.completions.create({ ...base, max_tokens: 4, logprobs: true, ...fields });
    return answer.choices[0]?.logprobs?.content ?? [];
  };
  const plain = await chat({ top_logprobs: 20 });
  const chosen = await chat(extra({ logprob_token_ids: ids, return_tokens_as_token_ids: true }));
  assert.equal(chosen.length, 4);
  for (const [at, { token, logprob, top_logprobs: top }] of chosen.entries()) {
    const others = ids.map((id) => `token_id:${id}`).filter((name) => name !== token);
    assert.deepEqual(
      top.map((entry) => entry.token),
      [token, ...others],
    );
    assert.ok(Math.abs(logprob - (plain[at]?.logprob ?? 0)) < 1e-6);
    const floor = plain[at]?.top_logprobs.at(-1)?.logprob ?? 0;
    for (const entry of top.slice(1)) {
      const known = plain[at]?.top_logprobs.some((one) => Math.abs(one.logprob - entry.logprob) < 1e-6);
      assert.ok(known || entry.logprob <= floor);
    }
  }
  const completion = await client.completions.create({
    model: "castellan-demo",
    prompt: "The answer",
    max_tokens: 2,
    logprobs: 0,
    ...extra({ logprob_token_ids: ids, return_tokens_as_token_ids: true }),
  });
  const map = completion.choices[0]?.logprobs?.top_logprobs?.[0] ?? {};
  for (const id of ids) assert.equal(typeof map[`token_id:${id}`], "number");
  await refused(chat(extra({ logprob_token_ids: [9_999_999] })), "logprob_token_ids.0");
});

test("thinking_token_budget: the thought ends after so many tokens, and a format holds behind it", async () => {
  const ask = async (fields: object) => {
    const answer = await client.chat.completions.create({
      ...base,
      ...extra({ chat_template_kwargs: { enable_thinking: true }, return_token_ids: true, ...fields }),
    });
    const usage = answer.usage as unknown as { completion_tokens_details?: { reasoning_tokens: number } };
    return { choice: answer.choices[0] as unknown as VllmChoice, usage };
  };
  const free = await ask({});
  const tags = await Promise.all(["<think>", "</think>"].map((tag) => spelledBy(free.choice.token_ids, tag)));
  const [open, close] = tags.map((tag) => free.choice.token_ids.indexOf(tag)) as [number, number];
  assert.ok(open >= 0 && close > open + 5, `the model thinks: ${JSON.stringify(free.choice)}`);
  for (const budget of [0, 1, 3]) {
    const { choice } = await ask({ thinking_token_budget: budget });
    assert.equal(choice.token_ids.indexOf(tags[1] as number), open + 1 + budget, JSON.stringify(choice.token_ids));
    assert.deepEqual(choice.token_ids.slice(0, open + 1 + budget), free.choice.token_ids.slice(0, open + 1 + budget));
    assert.ok((free.choice.message.reasoning ?? "").startsWith(choice.message.reasoning ?? ""));
  }
  const wide = await ask({ thinking_token_budget: 500 });
  assert.deepEqual(wide.choice.token_ids, free.choice.token_ids);
  // A prompt that has opened the thought: a format holds behind its end.
  const opened = { messages: [...base.messages, { role: "assistant" as const, content: "<think>" }] };
  const form = {
    structured_outputs: { regex: "[0-9]{2}" },
    continue_final_message: true,
    add_generation_prompt: false,
  };
  const { choice } = await ask({ ...opened, ...form, thinking_token_budget: 4 });
  assert.equal(choice.token_ids.indexOf(tags[1] as number), 4);
  assert.match(choice.message.content ?? "", /^[0-9]{2}$/);
  assert.ok((choice.message.reasoning ?? "").length > 0);
});

test("beam search: the n best, in order, and never worse than greedy", async () => {
  const scores = async (fields: object, n: number) => {
    const answer = await client.completions.create({
      model: "castellan-demo",
      prompt: "The sun is",
      max_tokens: 8,
      temperature: 0,
      logprobs: 1,
      n,
      ...extra({ ignore_eos: true, return_token_ids: true, ...fields }),
    });
    return answer.choices.map((choice, index) => {
      assert.equal(choice.index, index);
      const logprobs = choice.logprobs?.token_logprobs ?? [];
      assert.equal(logprobs.length, 8);
      return {
        ids: (choice as unknown as VllmChoice).token_ids,
        sum: logprobs.reduce((all, one) => all + (one ?? 0), 0),
      };
    });
  };
  const [greedy] = await scores({}, 1);
  const [one] = await scores({ use_beam_search: true }, 1);
  assert.deepEqual(one?.ids, greedy?.ids);
  const beams = await scores({ use_beam_search: true }, 4);
  assert.equal(new Set(beams.map(({ ids }) => ids.join())).size, 4);
  assert.ok((beams[0]?.sum ?? -Infinity) >= (greedy?.sum ?? 0) - 1e-6);
  for (let at = 1; at < 4; at++) assert.ok((beams[at - 1]?.sum ?? 0) >= (beams[at]?.sum ?? 0) - 1e-6);
  const again = await scores({ use_beam_search: true }, 4);
  assert.deepEqual(again, beams);
});

test("beam search in a chat: turns end, usage counts what is returned, streams are refused", async () => {
  const ask = { ...base, max_tokens: 24, n: 3, ...extra({ use_beam_search: true, return_token_ids: true }) };
  const answer = await client.chat.completions.create(ask);
  const choices = answer.choices as unknown as (VllmChoice & { finish_reason: string })[];
  assert.equal(choices.length, 3);
  assert.equal(
    answer.usage?.completion_tokens,
    choices.reduce((sum, choice) => sum + choice.token_ids.length, 0),
  );
  for (const { finish_reason, stop_reason, message } of choices) {
    assert.equal(finish_reason === "stop", stop_reason !== null);
    assert.ok((message.content ?? "").length > 0);
  }
  assert.ok(choices.some(({ finish_reason }) => finish_reason === "stop"));
  await refused(client.chat.completions.create({ ...ask, stream: true }), "stream");
  await refused(client.chat.completions.create({ ...ask, stop: ["a"] }), "stop");
});

test("stream_interval: fewer chunks, the same text, logprobs and token ids", async () => {
  const listen = async (fields: object) => {
    const ask = {
      ...base,
      messages: [{ role: "user" as const, content: "What is Castellan?" }],
      stream: true as const,
    };
    const stream = await client.chat.completions.create({
      ...ask,
      logprobs: true,
      ...extra({ return_token_ids: true, ...fields }),
    });
    const [texts, ids, tokens]: [string[], number[], string[]] = [[], [], []];
    for await (const { choices } of stream) {
      const choice = choices[0] as (OpenAI.ChatCompletionChunk.Choice & { token_ids?: number[] }) | undefined;
      if (choice?.delta.content) texts.push(choice.delta.content);
      ids.push(...(choice?.token_ids ?? []));
      tokens.push(...(choice?.logprobs?.content ?? []).map(({ token }) => token));
    }
    return { texts, ids, tokens };
  };
  const [fine, coarse] = [await listen({}), await listen({ stream_interval: 8 })];
  assert.equal(coarse.texts.join(""), fine.texts.join(""));
  assert.deepEqual([coarse.ids, coarse.tokens], [fine.ids, fine.tokens]);
  assert.ok(fine.ids.length > 16, "an answer of some length");
  assert.ok(coarse.texts.length <= 2 + Math.ceil(fine.ids.length / 8), `${coarse.texts.length} chunks`);
});
