/**
 * The fields of the routes that answer with numbers.
 */
import { absent, type Fields, honoured, ignored, refused, type Surface } from "./field.ts";

const LONG = { input: "abcdefgh" };
const CHAT_FORM = {
  input: null,
  messages: [
    { role: "user", content: "a" },
    { role: "assistant", content: "b" },
  ],
};

const BASIC: Fields = {
  model: absent("other"),
  user: ignored("u"),
  request_id: honoured("mine"),
  priority: honoured(5),
  use_activation: honoured(false),
  cache_salt: ignored("salt"),
  padding: refused("max_length"),
  mm_processor_kwargs: refused({ a: 1 }),
  chat_template: refused("{{ 1 }}"),
  normalize: refused(true),
  activation: refused(true),
  softmax: refused(true),
};

/** Both forms: texts, and a conversation. */
const SOURCE: Fields = {
  ...BASIC,
  input: honoured(["a", "bc"]),
  messages: honoured([{ role: "user", content: "a" }], { input: null }),
  truncate_prompt_tokens: honoured(3, LONG),
  truncation_side: honoured("left", { ...LONG, truncate_prompt_tokens: 3 }),
  add_special_tokens: honoured(false),
  add_generation_prompt: honoured(true, CHAT_FORM),
  continue_final_message: honoured(true, CHAT_FORM),
  chat_template_kwargs: honoured({ tone: "dry" }, CHAT_FORM),
  media_io_kwargs: refused({ a: 1 }),
};

const VECTORS: Fields = {
  ...SOURCE,
  encoding_format: honoured("base64"),
  embed_dtype: honoured("float16", { encoding_format: "base64" }),
  endianness: honoured("big", { encoding_format: "base64" }),
  dimensions: honoured(3),
};

const SCORING: Fields = {
  ...BASIC,
  chat_template_kwargs: ignored({ tone: "dry" }),
  truncate_prompt_tokens: honoured(5),
  truncation_side: honoured("left", { truncate_prompt_tokens: 5 }),
  max_tokens_per_query: honoured(1),
  max_tokens_per_doc: honoured(1),
};

const SIDES = { queries: null, documents: null };
const SCORE: Fields = {
  ...SCORING,
  queries: honoured("other"),
  documents: honoured(["a", "b"]),
  items: honoured(["other"], { documents: null }),
  data_1: honoured("other", { ...SIDES, data_2: "b" }),
  data_2: honoured("other", { ...SIDES, data_1: "b" }),
  text_1: honoured("other", { ...SIDES, text_2: "b" }),
  text_2: honoured("other", { ...SIDES, text_1: "b" }),
};

const RERANK: Fields = {
  ...SCORING,
  query: honoured("other"),
  documents: honoured(["b", "other"]),
  top_n: honoured(1),
};

const COHERE: Fields = {
  model: absent("other"),
  input_type: honoured("search_query"),
  texts: honoured(["other"]),
  images: refused(["data:image/png;base64,AA=="]),
  inputs: honoured([{ content: [{ type: "text", text: "other" }] }], { texts: null }),
  output_dimension: honoured(3),
  embedding_types: honoured(["base64"]),
  truncate: honoured("START", { max_tokens: 3, texts: ["abcdefgh"] }),
  max_tokens: honoured(3, { texts: ["abcdefgh"] }),
  priority: honoured(5),
};

const LABELS: Fields = {
  model: absent("other"),
  query: honoured("other"),
  items: honoured(["a", "b"]),
  label_token_ids: honoured([7, 8]),
  apply_softmax: honoured(false),
  item_first: honoured(true),
  add_special_tokens: honoured(false),
  cache_salt: honoured("salt"),
  priority: honoured(5),
  request_id: honoured("mine"),
};

const surface = (model: Surface["model"], path: string, body: Surface["body"], fields: Fields): Surface => ({
  route: `POST ${path}`,
  model,
  body,
  fields,
  unknown: "ignored",
});

const PAIR = { queries: "abc", documents: ["defg"] };
const QUERY = { query: "abc", documents: ["defg", "hi"] };

export const POOLING: readonly Surface[] = [
  surface("vectors", "/v1/embeddings", { input: "hi" }, VECTORS),
  surface(
    "vectors",
    "/pooling",
    { input: "hi" },
    {
      ...VECTORS,
      task: honoured("token_embed"),
      data: refused({ a: 1 }),
    },
  ),
  surface("classes", "/classify", { input: "hi" }, SOURCE),
  surface("classes", "/score", PAIR, SCORE),
  surface("classes", "/v1/score", PAIR, SCORE),
  surface("classes", "/rerank", QUERY, RERANK),
  surface("classes", "/v1/rerank", QUERY, RERANK),
  surface("classes", "/v2/rerank", QUERY, RERANK),
  surface("vectors", "/v2/embed", { texts: ["hi"] }, COHERE),
  {
    route: "POST /generative_scoring",
    model: "text",
    body: { query: "q", items: ["a"], label_token_ids: [5, 6] },
    fields: LABELS,
    unknown: "ignored",
  },
];
