/**
 * How much one request may ask for: the one table. Settings derive from it (`n` is --max-n), keys may differ from it,
 * decode enforces it before any work.
 *
 * Invariant: every list, map and text of a request that is not bounded by the body's size alone has its row here.
 */

export interface CapRow {
  /** The safe value. */
  readonly fallback: number;
  readonly bounds: readonly [min: number, max: number];
  readonly unit?: "bytes" | "seconds";
  readonly doc: string;
  /** vLLM's variables for it. */
  readonly variables?: readonly string[];
  /** What a larger value costs, where that is more than one request's own time. */
  readonly loosens?: string;
}

const KIB = 1024;
const MIB = 1024 * KIB;
const WORK = "work a single request can cause";

export const CAP_ROWS = {
  bodyBytes: {
    fallback: 8 * MIB,
    bounds: [KIB, 8 * MIB],
    unit: "bytes",
    doc: "Body of a request; routes have limits of their own, which this lowers.",
  },
  uploadBytes: {
    fallback: 64 * MIB,
    bounds: [KIB, 512 * MIB],
    unit: "bytes",
    doc: "A file that is uploaded (/v1/files).",
    loosens: "room that one request can take",
  },
  audioMegabytes: {
    fallback: 25,
    bounds: [1, 512],
    doc: "Mebibytes of a file of speech (/v1/audio).",
    variables: ["VLLM_MAX_AUDIO_CLIP_FILESIZE_MB"],
    loosens: "room that one request can take",
  },
  n: {
    fallback: 16,
    bounds: [1, 16_384],
    doc: "The request field n.",
    variables: ["VLLM_MAX_N_SEQUENCES"],
    loosens: WORK,
  },
  completionPrompts: {
    fallback: 64,
    bounds: [1, 16_384],
    doc: "Prompts in one completion request.",
    variables: ["VLLM_MAX_COMPLETION_PROMPTS"],
    loosens: WORK,
  },
  choices: { fallback: 128, bounds: [1, 65_536], doc: "Prompts times n of one request.", loosens: WORK },
  poolingInputs: {
    fallback: 1024,
    bounds: [1, 16_384],
    doc: "Inputs, texts, documents or items of one embedding, classification, scoring or reranking request.",
    variables: ["VLLM_MAX_COMPLETION_PROMPTS"],
    loosens: WORK,
  },
  poolingTokens: {
    fallback: 262_144,
    bounds: [1, 1 << 30],
    doc: "Tokens of all inputs of such a request together; of pairs, each pair's.",
    loosens: WORK,
  },
  poolingNumbers: {
    fallback: 4_194_304,
    bounds: [1, 1 << 24],
    doc: "Numbers in the answer to such a request: vectors times their size.",
    loosens: "size of an answer",
  },
  scoringSequences: {
    fallback: 64,
    bounds: [1, 16_384],
    doc: "Items of one /generative_scoring request that the engine has at a time; the others wait for these.",
    loosens: "how long one request can hold up the others' start",
  },
  derenderTokens: {
    fallback: 262_144,
    bounds: [1, 1 << 24],
    doc: "Token ids of all choices of one derender request together.",
    loosens: WORK,
  },
  conversations: { fallback: 64, bounds: [1, 16_384], doc: "Conversations in one batch of chats.", loosens: WORK },
  messages: { fallback: 4096, bounds: [1, 1_000_000], doc: "Messages in one chat." },
  contentParts: { fallback: 1000, bounds: [1, 1_000_000], doc: "Content parts of one message." },
  stopStrings: {
    fallback: 4,
    bounds: [0, 1024],
    doc: "Stop strings of a request.",
    variables: ["VLLM_MAX_STOP_STRINGS"],
  },
  stopLength: { fallback: 1024, bounds: [1, 65_536], doc: "Characters of a stop string." },
  stopTokenIds: { fallback: 1024, bounds: [0, 262_144], doc: "Entries of stop_token_ids." },
  badWords: {
    fallback: 128,
    bounds: [0, 10_000],
    doc: "Entries of bad_words.",
    variables: ["VLLM_MAX_NUM_BAD_WORDS"],
  },
  badWordTokens: {
    fallback: 1024,
    bounds: [0, 100_000],
    doc: "Tokens of all bad_words together.",
    variables: ["VLLM_MAX_BAD_WORDS_TOTAL_TOKENS"],
  },
  logitBias: { fallback: 1024, bounds: [0, 262_144], doc: "Entries of logit_bias." },
  allowedTokenIds: { fallback: 262_144, bounds: [1, 1_048_576], doc: "Entries of allowed_token_ids." },
  logprobTokenIds: { fallback: 128, bounds: [1, 262_144], doc: "Entries of logprob_token_ids." },
  logprobs: {
    fallback: 20,
    bounds: [-1, 1_000_000],
    doc: "Logprobs a position (top_logprobs, logprobs, prompt_logprobs); -1 lifts the cap.",
    loosens: "size of an answer",
  },
  tools: { fallback: 128, bounds: [0, 10_000], doc: "Tools in one request." },
  toolCharacters: { fallback: 512 * KIB, bounds: [2, 8 * MIB], doc: "Characters of all tools' JSON text together." },
  toolDepth: { fallback: 32, bounds: [1, 128], doc: "Nesting of the tools' JSON text." },
  templateCharacters: {
    fallback: MIB,
    bounds: [2, 8 * MIB],
    doc: "Characters of chat_template_kwargs and of documents, as JSON text, each.",
  },
  grammarCharacters: {
    fallback: 512 * KIB,
    bounds: [2, 8 * MIB],
    doc: "Characters of a schema, regular expression, grammar or structural tag.",
  },
  grammarDepth: { fallback: 128, bounds: [1, 128], doc: "Nesting of a schema's JSON text." },
  grammarChoices: { fallback: 4096, bounds: [1, 65_536], doc: "Entries of structured_outputs.choice." },
  grammarSeconds: {
    fallback: 2,
    bounds: [0.001, 60],
    unit: "seconds",
    doc: "Time that compiling a schema, regular expression or grammar may take.",
    variables: ["VLLM_REGEX_COMPILATION_TIMEOUT_S"],
    loosens: "how long one request can hold up the others' start",
  },
} as const satisfies Readonly<Record<string, CapRow>>;

export type CapName = keyof typeof CAP_ROWS;

/** Sizes in bytes, times in seconds, everything else a count. */
export type RequestCaps = { readonly [N in CapName]: number };

export const DEFAULT_CAPS: RequestCaps = capsOf(({ fallback }) => fallback);

/** One value a row. */
export function capsOf(value: (row: CapRow, name: CapName) => number): RequestCaps {
  return Object.fromEntries(
    Object.entries<CapRow>(CAP_ROWS).map(([name, row]) => [name, value(row, name as CapName)]),
  ) as RequestCaps;
}

const joined = new WeakMap<Partial<RequestCaps>, { readonly server: RequestCaps; readonly caps: RequestCaps }>();

/** The server's caps with a principal's own in their place: the same object for the same two, call after call. */
export function capsFor(server: RequestCaps, own: Partial<RequestCaps>): RequestCaps {
  for (const _ in own) {
    const known = joined.get(own);
    if (known?.server === server) return known.caps;
    const caps = { ...server, ...own };
    joined.set(own, { server, caps });
    return caps;
  }
  return server;
}
