/**
 * What a client may say in the body of a request that is passed on: one rule a route. Bounds, ranges and refusals are
 * those of the same route where this server answers itself, and by the same code; what is long is judged by its counts.
 *
 * Invariant: a field that the client may not decide is in OURS or REFUSED, whatever the route; a name that its rule does
 * not know is taken out, as vLLM would ignore it, unless the operator has named it.
 */
import type { ZodObject, z } from "zod";
import { invalid } from "#core/fault.ts";
import type { RequestCaps } from "#core/request-caps.ts";
import { decodeCountTokens, decodeMessages } from "#wire/anthropic/messages-decode.ts";
import { CountTokensBody, MessagesBody } from "#wire/anthropic/messages-schema.ts";
import type { JsonObject } from "#wire/openai/_compound.ts";
import { REMOVED_FIELDS } from "#wire/openai/_fields.ts";
import { ChatBatchBody, decodeChatBatch } from "#wire/openai/chat-batch.ts";
import { decodeChat } from "#wire/openai/chat-decode.ts";
import { ChatBody } from "#wire/openai/chat-schema.ts";
import { decodeCompletion } from "#wire/openai/completion-decode.ts";
import { CompletionBody } from "#wire/openai/completion-schema.ts";
import { ClassifyBody, decodeClassify } from "#wire/pooling/classify.ts";
import { CohereEmbedBody, decodeCohere } from "#wire/pooling/cohere.ts";
import { decodeEmbeddings, EmbeddingsBody } from "#wire/pooling/embeddings.ts";
import { decodeGenerativeScoring, GenerativeScoringBody } from "#wire/pooling/generative-scoring.ts";
import { decodePooling, PoolingBody } from "#wire/pooling/pooling.ts";
import { decodeRerank, RerankBody } from "#wire/pooling/rerank.ts";
import { decodeScore, ScoreBody } from "#wire/pooling/score.ts";
import { decodeResponse } from "#wire/responses/decode.ts";
import { ResponsesBody } from "#wire/responses/schema.ts";
import { decodeGenerate, GenerateBody } from "#wire/vllm/generate.ts";
import { DetokenizeBody, decodeTokenize, TokenizeBody } from "#wire/vllm/tokenize.ts";
import { promptStandIn, type Shapes, standIn } from "./_body.ts";
import { narrowed } from "./_narrow.ts";

/** What the request asks for, as far as quotas and balancing need it. */
export interface Asked {
  readonly n: number;
  readonly prompts: number;
  /** Of each choice; absent: as the model does. */
  readonly maxTokens?: number;
}

/** Fields that the server decides: its value, or none, stands in what is passed on. */
export type Ours = "cache_salt" | "priority" | "request_id";

export interface RelayRule {
  /** Small fields: their values are read. */
  readonly fields: ReadonlySet<string>;
  /** Fields of which a scan tells enough. */
  readonly big: ReadonlySet<string>;
  /** Those that the upstream's route has. */
  readonly ours: readonly Ours[];
  /** Where a conversation, and media, may stand. */
  readonly media: Readonly<Record<string, MediaPlace>>;
  /** Fields that say this whatever the client wrote, as JSON. */
  readonly sets: Readonly<Record<string, string>>;
  /** Whose stream tells usage when `stream_options` asks for it. */
  readonly asksForUsage: boolean;
  /** @throws Fault invalid_request | not_implemented, naming the field */
  readonly judge: (small: JsonObject, shapes: Shapes, caps: RequestCaps) => Asked;
}

/**
 * What a field holds: messages with parts, conversations of such, items with content, Anthropic's messages, its blocks,
 * a list of URLs.
 */
export type MediaPlace = "messages" | "batch" | "items" | "anthropic" | "blocks" | "urls" | "sides";

/** Refused by name, or, where they ask for nothing, taken out: on every route. */
export const REFUSED: ReadonlySet<string> = new Set([
  ...REMOVED_FIELDS,
  "chat_template",
  "ec_transfer_params",
  "kv_transfer_params",
  "logits_processors",
  "media_io_kwargs",
  "mm_processor_kwargs",
  "prompt_embeds",
]);
/** Names of engine inputs that no route of ours has; an upstream of another version might. */
export const NEVER: ReadonlySet<string> = new Set([
  "extra_args",
  "mm_hashes",
  "mm_placeholders",
  "multi_modal_data",
  "multi_modal_uuids",
]);
/** Of vLLM's, without effect here: passed on where they are a number or a switch, which can name nothing. */
export const UNREAD: ReadonlySet<string> = new Set([
  "reasoning_ended",
  "return_token_offsets",
  "routed_experts_prompt_start",
]);
/** Taken and without effect here, so without effect there. */
export const IGNORED: ReadonlySet<string> = new Set(["vllm_xargs"]);

/** Fields whose judges ask how long they are. */
export const SIZED: ReadonlySet<string> = new Set(["tools"]);
export const ALL_OURS: readonly Ours[] = ["cache_salt", "priority", "request_id"];
const MESSAGE = { role: "user", content: "" };

export function isOurs(name: string): name is Ours {
  return (ALL_OURS as readonly string[]).includes(name);
}

interface Spec {
  readonly big: readonly string[];
  readonly ours?: readonly Ours[];
  readonly media?: RelayRule["media"];
  readonly asksForUsage?: boolean;
  readonly sets?: RelayRule["sets"];
}

function rule<S extends ZodObject>(
  schema: S,
  { big, ours = ALL_OURS, media = {}, asksForUsage = false, sets = {} }: Spec,
  judge: (body: z.infer<S>, shapes: Shapes, caps: RequestCaps) => Asked,
): RelayRule {
  const held = narrowed(schema);
  return {
    fields: new Set([...Object.keys(schema.shape), ...REFUSED].filter((name) => !big.includes(name))),
    big: new Set(big),
    ours,
    media,
    asksForUsage,
    sets,
    judge: (small, shapes, caps) => {
      // That they are there is the schema's matter, what they are its judge's.
      const body: Record<string, unknown> = { ...small };
      for (const name of big) if (shapes.has(name)) body[name] = null;
      return judge(held(body), shapes, caps);
    },
  };
}

function asked(n: number, prompts: number, maxTokens: number | undefined): Asked {
  return maxTokens === undefined ? { n, prompts } : { n, prompts, maxTokens };
}

/** Wall: T10, by counts: how many tools, how long and how deep their text is. */
function judgeTools(shapes: Shapes, caps: RequestCaps): void {
  const tools = shapes.get("tools");
  if (tools === undefined || tools.kind === "null") return;
  if (tools.kind !== "array") throw invalid("tools", "tools must be a list.");
  standIn(tools, null, caps.tools);
  if (tools.depth > caps.toolDepth) throw invalid("tools", `tools nests deeper than ${caps.toolDepth} levels.`);
  if (tools.bytes > caps.toolCharacters)
    throw invalid("tools", `tools is larger than ${caps.toolCharacters} characters of JSON.`);
}

/** @param level of the lists of parts, under the list itself */
function messages(shapes: Shapes, name: string, caps: RequestCaps, level = 2, entry: unknown = MESSAGE): unknown {
  const shape = shapes.get(name);
  const widest = shape?.widest[level] ?? 0;
  if (widest > caps.contentParts)
    throw invalid(name, `a message of ${name} has ${widest} parts; at most ${caps.contentParts} are taken.`);
  return standIn(shape, entry, level === 3 ? caps.conversations : caps.messages);
}

const NO_TOOLS = { tools: undefined, tool_choice: undefined };

const chatRule = rule(
  ChatBody,
  { big: ["messages", "tools", "tool_choice"], media: { messages: "messages" }, asksForUsage: true },
  (body, shapes, caps) => {
    judgeTools(shapes, caps);
    const { call } = decodeChat({ ...body, ...NO_TOOLS, messages: messages(shapes, "messages", caps) }, caps);
    return asked(call.output.n, 1, call.sampling.maxTokens);
  },
);

const chatBatchRule = rule(ChatBatchBody, { big: ["messages"], media: { messages: "batch" } }, (body, shapes, caps) => {
  const given = shapes.get("messages")?.widest[1] ?? 0;
  if (given > caps.messages)
    throw invalid("messages", `a conversation has ${given} entries; at most ${caps.messages} are taken.`);
  const standing = messages(shapes, "messages", caps, 3, [MESSAGE]);
  const { calls } = decodeChatBatch({ ...body, messages: standing }, caps);
  return asked(1, calls.length, calls[0]?.sampling.maxTokens);
});

const completionRule = rule(CompletionBody, { big: ["prompt"], asksForUsage: true }, (body, shapes, caps) => {
  const prompt = promptStandIn(shapes.get("prompt"), caps.completionPrompts);
  const { call } = decodeCompletion({ ...body, prompt }, caps);
  return asked(call.output.n, call.prompts.length, call.sampling.maxTokens);
});

const responsesRule = rule(
  ResponsesBody,
  // Wall: T130, what an upstream kept it would show to whoever asks, or continue: it has no owners.
  {
    big: ["input", "instructions", "tools", "tool_choice"],
    media: { input: "items" },
    sets: { store: "false", background: "false" },
  },
  (body, shapes, caps) => {
    judgeTools(shapes, caps);
    const { kind = "null" } = shapes.get("instructions") ?? {};
    if (kind !== "string" && kind !== "null") throw invalid("instructions", "instructions must be a string.");
    const input = messages(shapes, "input", caps, 2, { role: "user", content: "x" });
    const { call } = decodeResponse({ ...body, ...NO_TOOLS, input }, caps);
    return asked(1, 1, call.chat.sampling.maxTokens);
  },
);

const ANTHROPIC = ["messages", "system", "tools", "tool_choice"];
const ANTHROPIC_MEDIA = { messages: "anthropic", system: "blocks" } as const;

function anthropicStandIn(shapes: Shapes, caps: RequestCaps) {
  judgeTools(shapes, caps);
  standIn(shapes.get("system"), null, caps.contentParts);
  return { ...NO_TOOLS, system: undefined, messages: messages(shapes, "messages", caps) };
}

const messagesRule = rule(MessagesBody, { big: ANTHROPIC, media: ANTHROPIC_MEDIA }, (body, shapes, caps) => {
  const call = decodeMessages({ ...body, ...anthropicStandIn(shapes, caps) }, caps, true);
  return asked(1, 1, call.sampling.maxTokens);
});

const countTokensRule = rule(
  CountTokensBody,
  { big: ANTHROPIC, media: ANTHROPIC_MEDIA, ours: [] },
  (body, shapes, caps) => {
    decodeCountTokens({ ...body, ...anthropicStandIn(shapes, caps) }, caps);
    return asked(1, 1, 0);
  },
);

const SOURCE = { big: ["input", "messages"], media: { messages: "messages" } } as const;

/** `padding` is the upstream's own matter. */
function source<T extends object>(body: T, shapes: Shapes, caps: RequestCaps) {
  const input = promptStandIn(shapes.get("input"), caps.poolingInputs);
  return { ...body, padding: undefined, input, messages: messages(shapes, "messages", caps) };
}

/** A conversation makes one prompt. */
function inputs(shapes: Shapes): number {
  const input = shapes.get("input");
  return input?.kind === "array" && input.first !== "number" ? input.count : 1;
}

const embeddingsRule = rule(EmbeddingsBody, SOURCE, (body, shapes, caps) => {
  decodeEmbeddings(source(body, shapes, caps), caps);
  return asked(1, inputs(shapes), 0);
});

const classifyRule = rule(ClassifyBody, SOURCE, (body, shapes, caps) => {
  decodeClassify(source(body, shapes, caps), caps);
  return asked(1, inputs(shapes), 0);
});

/** Which tasks there are is the upstream's matter. */
const poolingRule = rule(PoolingBody, SOURCE, (body, shapes, caps) => {
  decodePooling({ ...source(body, shapes, caps), task: undefined }, caps);
  return asked(1, inputs(shapes), 0);
});

const cohereRule = rule(
  CohereEmbedBody,
  { big: ["texts", "images", "inputs"], ours: ["priority"], media: { images: "urls", inputs: "messages" } },
  (body, shapes, caps) => {
    const texts = standIn(shapes.get("texts"), "x", caps.poolingInputs);
    const images = standIn(shapes.get("images"), "x", caps.poolingInputs);
    const listed = messages(shapes, "inputs", { ...caps, messages: caps.poolingInputs }, 2, { content: [] });
    const given = [texts, images].filter((value) => value !== undefined && value !== null);
    const [only = texts] = given;
    // Two of them: as the decoder says it.
    const standing = given.length > 1 ? { texts, inputs: images } : { texts: only, inputs: listed };
    decodeCohere({ ...body, ...standing, images: undefined, input_type: undefined }, caps, new Map());
    return asked(1, Array.isArray(only) ? only.length : Array.isArray(listed) ? listed.length : 1, 0);
  },
);

const SIDES = ["queries", "documents", "items", "data_1", "data_2", "text_1", "text_2", "query"] as const;
const SIDES_MEDIA = Object.fromEntries(SIDES.map((name) => [name, "sides"] as const));

function sides(shapes: Shapes, caps: RequestCaps): { readonly [name in (typeof SIDES)[number]]?: unknown } {
  const standing = SIDES.filter((name) => shapes.has(name)).map((name) => {
    const shape = shapes.get(name);
    const widest = Math.max(shape?.widest[1] ?? 0, shape?.widest[2] ?? 0);
    if (widest > caps.contentParts)
      throw invalid(name, `an entry of ${name} has ${widest} parts; at most ${caps.contentParts} are taken.`);
    return [name, shape?.kind === "object" ? "x" : standIn(shape, "x", caps.poolingInputs)] as const;
  });
  return Object.fromEntries(standing);
}

const scoreRule = rule(ScoreBody, { big: SIDES, media: SIDES_MEDIA }, (body, shapes, caps) => {
  const { documents } = decodeScore({ ...body, ...sides(shapes, caps), padding: undefined }, caps);
  return asked(1, documents.length, 0);
});

const rerankRule = rule(RerankBody, { big: SIDES, media: SIDES_MEDIA }, (body, shapes, caps) => {
  const standing = { query: undefined, documents: undefined, ...sides(shapes, caps) };
  const { documents } = decodeRerank({ ...body, ...standing, padding: undefined }, caps);
  return asked(1, documents.length, 0);
});

const generativeScoringRule = rule(GenerativeScoringBody, { big: ["query", "items"] }, (body, shapes, caps) => {
  const items = promptStandIn(shapes.get("items"), caps.poolingInputs);
  const query = promptStandIn(shapes.get("query"), 1);
  const call = decodeGenerativeScoring({ ...body, query, items }, caps);
  return asked(1, call.items.length, 1);
});

const generateRule = rule(GenerateBody, { big: ["token_ids"], asksForUsage: true }, (body, shapes, caps) => {
  const { call } = decodeGenerate({ ...body, token_ids: promptStandIn(shapes.get("token_ids"), 1) }, caps);
  return asked(call.output.n, 1, call.sampling.maxTokens);
});

const tokenizeRule = rule(
  TokenizeBody,
  { big: ["prompt", "messages", "tools"], ours: [], media: { messages: "messages" } },
  (body, shapes, caps) => {
    judgeTools(shapes, caps);
    const prompt = shapes.get("prompt");
    if (prompt !== undefined && prompt.kind !== "string" && prompt.kind !== "null")
      throw invalid("prompt", "prompt must be a string.");
    const standing = { prompt: prompt?.kind === "string" ? "x" : undefined, tools: undefined };
    decodeTokenize({ ...body, ...standing, messages: messages(shapes, "messages", caps) }, caps);
    return asked(1, 1, 0);
  },
);

const detokenizeRule = rule(DetokenizeBody, { big: ["tokens"], ours: [] }, (_, shapes) => {
  const { kind } = shapes.get("tokens") ?? {};
  if (kind !== "array") throw invalid("tokens", "tokens must be a list of token ids.");
  return asked(1, 1, 0);
});

/** Render routes take what chat and completions take; they generate nothing. */
const chatRenderRule: RelayRule = { ...chatRule, asksForUsage: false };
const completionRenderRule: RelayRule = { ...completionRule, asksForUsage: false };

/**
 * POST routes with a JSON body that can be passed on, by path. Not among them: forms (audio.ts); derender (derender.ts);
 * /invocations, whose rule its body tells.
 */
export const RELAY_RULES = {
  "/v1/chat/completions": chatRule,
  "/v1/chat/completions/batch": chatBatchRule,
  "/v1/completions": completionRule,
  "/v1/responses": responsesRule,
  "/v1/messages": messagesRule,
  "/v1/messages/count_tokens": countTokensRule,
  "/v1/messages/render": messagesRule,
  "/v1/chat/completions/render": chatRenderRule,
  "/v1/completions/render": completionRenderRule,
  "/v1/embeddings": embeddingsRule,
  "/v2/embed": cohereRule,
  "/pooling": poolingRule,
  "/classify": classifyRule,
  "/score": scoreRule,
  "/v1/score": scoreRule,
  "/rerank": rerankRule,
  "/v1/rerank": rerankRule,
  "/v2/rerank": rerankRule,
  "/generative_scoring": generativeScoringRule,
  "/inference/v1/generate": generateRule,
  "/tokenize": tokenizeRule,
  "/detokenize": detokenizeRule,
} as const satisfies Readonly<Record<string, RelayRule>>;
