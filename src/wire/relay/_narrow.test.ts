import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { ZodObject } from "zod";
import { conform } from "#core/conform.ts";
import { Fault } from "#core/fault.ts";
import { MessagesBody } from "#wire/anthropic/messages-schema.ts";
import { ChatBody } from "#wire/openai/chat-schema.ts";
import { CompletionBody } from "#wire/openai/completion-schema.ts";
import { CohereEmbedBody } from "#wire/pooling/cohere.ts";
import { EmbeddingsBody } from "#wire/pooling/embeddings.ts";
import { PoolingBody } from "#wire/pooling/pooling.ts";
import { RerankBody } from "#wire/pooling/rerank.ts";
import { ResponsesBody } from "#wire/responses/schema.ts";
import { GenerateBody } from "#wire/vllm/generate.ts";
import { TokenizeBody } from "#wire/vllm/tokenize.ts";
import { narrowed } from "./_narrow.ts";

const SCHEMAS: Readonly<Record<string, ZodObject>> = {
  ...{ ChatBody, CompletionBody, ResponsesBody, MessagesBody, GenerateBody, TokenizeBody },
  ...{ EmbeddingsBody, PoolingBody, RerankBody, CohereEmbedBody },
};

/** What it says, or what it says is wrong. */
function outcome(run: () => unknown): unknown {
  try {
    return { value: run() };
  } catch (error) {
    assert.ok(error instanceof Fault, String(error));
    const { kind, message, param } = error;
    return { kind, message, param };
  }
}

const USUAL = { model: "m", messages: "x", input: "x", prompt: "x", query: "x", documents: ["x"], max_tokens: 5 };
const value = fc.oneof(
  fc.constantFrom<unknown>(null, true, false, 0, 1, -1, 0.5, 1e300, "", "m", "auto", [], {}, [1], ["x"], { type: "x" }),
  fc.jsonValue({ maxDepth: 2 }),
);

for (const [name, schema] of Object.entries(SCHEMAS))
  test(`${name}: what a body is told of is what the whole schema tells it`, () => {
    const held = narrowed(schema);
    const fields = fc.constantFrom(...Object.keys(schema.shape), "unknown", "__proto__", "a,b");
    const body = fc.uniqueArray(fc.tuple(fields, value), { selector: ([field]) => field, maxLength: 6 });
    let taken = 0;
    fc.assert(
      fc.property(body, fc.boolean(), (entries, usual) => {
        // Object.fromEntries defines own properties.
        const given = Object.fromEntries([...(usual ? Object.entries(USUAL) : []), ...entries]) as Record<
          string,
          unknown
        >;
        const expected = outcome(() => conform(schema, given));
        if ("value" in (expected as object)) taken++;
        assert.deepEqual(
          outcome(() => held(given)),
          expected,
        );
      }),
      { numRuns: 300 },
    );
    assert.ok(taken > 0, "none was taken");
  });
