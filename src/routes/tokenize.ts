/**
 * POST /tokenize and /detokenize; GET /tokenizer_info, only when switched on
 */
import { capsFor } from "#core/request-caps.ts";
import { key } from "#http/access.ts";
import { json } from "#http/reply.ts";
import { detokenize as detokenizeTokens, tokenize as tokenizeSource } from "#serving/tokenize.ts";
import { tokenizerFacts } from "#serving/tokenizer-info.ts";
import { openai } from "#wire/openai/dialect.ts";
import { encodeTokenizerInfo, TokenizerInfoReply } from "#wire/vllm/server.ts";
import {
  DetokenizeBody,
  DetokenizeReply,
  decodeDetokenize,
  decodeTokenize,
  encodeTokenize,
  TokenizeBody,
  TokenizeReply,
} from "#wire/vllm/tokenize.ts";
import { failures } from "./_answers.ts";
import { MIB, route, SECOND } from "./_services.ts";

export const tokenize = route({
  method: "POST",
  path: "/tokenize",
  dialect: openai,
  access: key("tokenize"),
  plane: "public",
  limits: { bodyBytes: 8 * MIB, timeoutMs: 30 * SECOND },
  body: TokenizeBody,
  reply: [{ status: 200, contentType: "application/json", schema: TokenizeReply, doc: "The token ids." }, ...failures],
  audit: "none",
  doc: "Token ids of a prompt, or of a conversation under the model's template.",
  handler: async ({ caller, body, services }) =>
    json(
      encodeTokenize(
        await tokenizeSource(
          caller,
          services.serving,
          decodeTokenize(body, capsFor(services.caps, caller.principal.caps)),
        ),
      ),
    ),
});

export const detokenize = route({
  method: "POST",
  path: "/detokenize",
  dialect: openai,
  access: key("tokenize"),
  plane: "public",
  limits: { bodyBytes: 8 * MIB, timeoutMs: 30 * SECOND },
  body: DetokenizeBody,
  reply: [{ status: 200, contentType: "application/json", schema: DetokenizeReply, doc: "The text." }, ...failures],
  audit: "none",
  doc: "Text of token ids.",
  handler: ({ caller, body, services }) =>
    json({ prompt: detokenizeTokens(caller, services.serving, decodeDetokenize(body)) }),
});

export const tokenizerInfo = route({
  method: "GET",
  path: "/tokenizer_info",
  dialect: openai,
  access: key("tokenize"),
  plane: "public",
  switchedBy: "enableTokenizerInfoEndpoint",
  limits: { timeoutMs: 30 * SECOND },
  reply: [
    { status: 200, contentType: "application/json", schema: TokenizerInfoReply, doc: "The template and the tokens." },
    ...failures,
  ],
  audit: "metadata",
  doc: "What the model's tokenizer is, and its chat template.",
  handler: ({ caller, services }) => json(encodeTokenizerInfo(tokenizerFacts(caller, services.serving))),
});
