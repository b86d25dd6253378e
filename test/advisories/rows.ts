/**
 * vLLM's published advisories, a row each, and what shows that the fault is not here.
 *
 * `requests`: sent to a real server by requests.test.ts. `test`: a test elsewhere, by file and name. `cannot`: why the
 * fault has nothing to hold on to in this code. `later`: what it belongs to is not done here, and why that is; the row
 * becomes one of the others with it. Sources: the advisories of github.com/vllm-project/vllm and their mirrors.
 */

/** A request that must be refused: path, body, what the answer's field or message names. */
export type Refused = readonly [path: string, body: unknown, names: RegExp];

export type Proof =
  | { readonly requests: readonly Refused[] }
  | { readonly test: readonly [file: string, name: string] }
  | { readonly cannot: string }
  | { readonly later: "media" | "cluster"; readonly why: string };

export type Row = Proof & {
  /** Advisory ids; `#n` is an issue without one. */
  readonly ids: readonly string[];
  readonly fault: string;
};

const CHAT = "/v1/chat/completions";
const TEXT = "/v1/completions";
const MESSAGES = "/v1/messages";
const TOKENS = "/inference/v1/generate";
const user = [{ role: "user", content: "hi" }];
const chat = (more: object): unknown => ({ messages: user, max_tokens: 1, ...more });
const message = (more: object): unknown => ({ ...(chat({ model: "castellan-demo" }) as object), ...more });
const text = (more: object): unknown => ({ prompt: "hi", max_tokens: 1, ...more });
const row = (ids: string, fault: string, proof: Proof): Row => ({ ids: ids.split(" "), fault, ...proof });

const NO_CODE = "Models are GGUF files, read as data: no configuration file is read and no code of a model is run.";
const OTHERS_DECODE =
  "Nothing here decodes sound or video: containers are told by their first bytes and bounded in bytes, and what is in " +
  "them is decoded by the server behind a gateway, as its version does.";
const NO_CLUSTER =
  "Engines here are of one machine and talk over pipes. What the processes of a vLLM say to each other on several is " +
  "vLLM's: its addresses have to be private ones, and the firewall is the operator's.";
const media = (name: string): Proof => ({ test: ["test/advisories/media.test.ts", name] });
const NO_SOCKETS: Proof = {
  test: ["test/advisories/processes.test.ts", "nothing listens but the two doors, on the addresses that were named"],
};
const EMBEDS: Proof = {
  requests: [
    [TEXT, { prompt_embeds: "gAJjdG9yY2gKbG9hZApxAC4=", max_tokens: 1 }, /prompt_embeds/],
    [TEXT, text({ prompt_embeds: ["AAAA", "AAAA"] }), /prompt_embeds/],
  ],
};
const TRANSFER: Proof = {
  requests: [
    [CHAT, chat({ kv_transfer_params: { do_remote_decode: true } }), /kv_transfer_params/],
    [
      TEXT,
      text({ prompt: ["a", "b"], kv_transfer_params: { remote_host: "127.0.0.1", remote_port: 22, tp_size: 2 ** 40 } }),
      /kv_transfer_params/,
    ],
    [CHAT, chat({ ec_transfer_params: { transfer_id: "x" } }), /ec_transfer_params/],
    [MESSAGES, message({ kv_transfer_params: { remote_host: "127.0.0.1" } }), /kv_transfer_params/],
  ],
};
const UNKNOWN_TOKENS = [2 ** 20, -1, 2 ** 31, 2 ** 40, 1.5];
const hubTest = (name: string): Proof => ({ test: ["src/integrity/hub-model.test.ts", name] });

/** Remote code execution, deserialisation, code from models. */
const CODE: readonly Row[] = [
  row("CVE-2024-9052 GHSA-pgr7-mhp5-fgjp", "distributed receive unpickles", NO_SOCKETS),
  row("CVE-2024-9053 GHSA-cj47-qj6g-x7r4", "RPC server unpickles what clients send", NO_SOCKETS),
  row("CVE-2024-11041 GHSA-5vqr-wprc-cpp7", "message queue unpickles from a TCP socket", NO_SOCKETS),
  row("CVE-2025-24357 GHSA-rh4j-5rhw-hr54", "model files are unpickled", {
    test: ["test/advisories/processes.test.ts", "a pickle, alone or in an archive, is no model"],
  }),
  row("GHSA-ggpf-24jw-3fcw", "the same past a flag of the loader", {
    test: ["test/advisories/processes.test.ts", "a pickle, alone or in an archive, is no model"],
  }),
  row("CVE-2025-29783 GHSA-x3m8-f7g5-qhm7", "KV transfer unpickles", { later: "cluster", why: NO_CLUSTER }),
  row("CVE-2025-32444 GHSA-hj4w-hm2g-p6w5", "KV transfer listens on all interfaces", NO_SOCKETS),
  row("CVE-2025-30165 GHSA-9pcc-gvx5-r5wm", "secondary nodes unpickle what the primary sends", {
    later: "cluster",
    why: NO_CLUSTER,
  }),
  row("CVE-2025-47277 GHSA-hjq4-87xh-g4fv", "a store for groups of processes on all interfaces", NO_SOCKETS),
  row("CVE-2025-62164 GHSA-mrw7-hf4f-83pf", "prompt_embeds: memory corruption by a sparse tensor", EMBEDS),
  row("CVE-2026-56340 GHSA-mcmc-2m55-j8jj", "prompt_embeds: other sparse paths", EMBEDS),
  row("GHSA-pr7f-p5mw-fc87", "prompt_embeds: the check is off for requests beside others", {
    test: ["test/advisories/requests.test.ts", "a hundred uploads of tensors at once are all refused"],
  }),
  row("CVE-2025-66448 GHSA-8fr4-5q9j-m8gm", "auto_map of a sub-configuration runs remote code", { cannot: NO_CODE }),
  row("CVE-2026-22807 GHSA-2pc9-4j83-qjmr", "auto_map is resolved while loading", { cannot: NO_CODE }),
  row("CVE-2026-27893 GHSA-7972-pg2x-xr59", "trust_remote_code is constant in two models", { cannot: NO_CODE }),
  row("CVE-2026-90553", "code of a processor runs with trust off", { cannot: NO_CODE }),
  row("GHSA-h3rc-6mm3-gc2m", "mm_processor_kwargs.code_revision chooses code", {
    requests: [
      [CHAT, chat({ mm_processor_kwargs: { code_revision: "main" } }), /mm_processor_kwargs/],
      ["/tokenize", { messages: user, mm_processor_kwargs: { code_revision: "main" } }, /mm_processor_kwargs/],
      ["/tokenize", { prompt: "a", media_io_kwargs: { image: {} } }, /media_io_kwargs/],
    ],
  }),
  row(
    "CVE-2026-47155 GHSA-3ww4-5jv9-j5gm",
    "the pinned revision is lost in nested downloads",
    hubTest("the commit is fixed once: every request after the first names it"),
  ),
  row(
    "GHSA-hhv2-872h-628q",
    "the same again",
    hubTest("a flipped byte in the cache is found and the file downloaded anew"),
  ),
  row("CVE-2025-9141 GHSA-79j6-g2m3-jgfw", "a tool parser evaluates the model's text", {
    test: ["src/prompt/tools/python.test.ts", "what is no literal is refused, and nothing is run"],
  }),
  row("CVE-2026-22778 GHSA-4r2x-xpjr-7cvv", "image errors leak an address; overflow in JPEG2000", {
    later: "media",
    why: `${OTHERS_DECODE} JPEG2000 alone is refused; in a video it is not seen, and a 4xx of that server is passed on as it is.`,
  }),
  row("GHSA-m52c-39rh-f3gp", "overflow in a container format", { later: "media", why: OTHERS_DECODE }),
  row("CVE-2026-54232 GHSA-jrf6-vqxq-pjv2", "dependency confusion in a build", {
    test: ["test/advisories/processes.test.ts", "every package is pinned by version and digest"],
  }),
  row("CVE-2026-41523 GHSA-q8gq-377p-jq3r", "an assert as a security check, gone when optimised", {
    cannot: "Checks are ordinary statements that throw; no build of TypeScript leaves them out.",
  }),
];

/** Authentication, access, server-side requests, leaks. */
const ACCESS: readonly Row[] = [
  row("CVE-2026-48746 GHSA-94f4-hr76-p5j6", "the key check looks at a URL made from Host", {
    test: [
      "test/attack/matrix.test.ts",
      "no spelling of any route is handled, by nobody and by no key; nor is a method that it has not",
    ],
  }),
  row("CVE-2025-59425 GHSA-wr9h-g72x-mwhm", "keys are compared by ==", {
    test: ["src/policy/_key-table.test.ts", "a digest that differs in one bit is not found"],
  }),
  row("#58144", "/invocations wants no key", {
    test: [
      "test/attack/matrix.test.ts",
      "without a key, and with a wrong one, every method on every path is 401, but for the open list",
    ],
  }),
  row("CVE-2025-6242 GHSA-3f6c-7fw2-ppm4", "media URLs reach inside", {
    test: ["test/attack/egress-bed.test.ts", "nothing inside is reached, nor even connected to, whatever it is called"],
  }),
  row("CVE-2026-24779 GHSA-qh4c-xf7m-gxfc", "two URL parsers disagree on a backslash", {
    test: [
      "src/egress/guarded-url.test.ts",
      "everything that two readers may read differently is refused, even where its host is named",
    ],
  }),
  row("#57157", "a redirect leads to a host that is not allowed", {
    test: [
      "src/egress/media/fetcher.test.ts",
      "redirects are followed where they are switched on, each judged, and counted",
    ],
  }),
  row("CVE-2026-34753 GHSA-pf3h-qjgv-vcpr", "file_url of a batch has no allowlist", {
    test: ["test/process/run-batch.test.ts", "every line has its row, in order, and none ends the run"],
  }),
  row("CVE-2026-73560 GHSA-4hhp-h66f-j5j7", "a processor opens URLs and files itself", {
    test: ["scripts/layers.test.ts", "fenced modules and words stay where they belong"],
  }),
  row("CVE-2025-30202 GHSA-9f8f-2vmf-885j", "a socket between processes on all interfaces", NO_SOCKETS),
  row("CVE-2026-54236 GHSA-hgg8-fqqc-vfmw", "errors of one protocol leak addresses", {
    test: [
      "test/wire/anthropic-client.test.ts",
      "nothing of a failure's cause leaves in Anthropic's shape, before or in a stream",
    ],
  }),
  row("CVE-2026-73555 GHSA-hwrm-c4cx-rf4j", "paths and user names in errors", {
    test: ["test/advisories/requests.test.ts", "no answer tells a path, a user or an address of this machine"],
  }),
  row("CVE-2026-53923 GHSA-5jv2-g5wq-cmr4", "a GGUF loader shows memory that was never written", {
    test: ["test/attack/gguf.test.ts", "every file is judged: a reason, or facts that a server can be sized by"],
  }),
  row("CVE-2026-93436", "a refused request leaves state", {
    test: ["test/attack/aborts.test.ts", " aborted requests leave every counter at zero"],
  }),
];

/** Leaks between tenants, faults of caches. */
const TENANTS: readonly Row[] = [
  row("CVE-2025-25183 GHSA-rm76-4mrf-v9r8", "block hashes can be computed", {
    test: ["src/engine/prefix/hash.test.ts", ": every part of a block counts, and the root is a secret without a seed"],
  }),
  row("CVE-2025-46570 GHSA-4qjh-9fv9-r85r", "times tell what another has sent", {
    test: [
      "src/engine/prefix/prefix.test.ts",
      "shares nothing between salts: neither counters nor steps tell of another tenant's prompts",
    ],
  }),
  row(
    "CVE-2025-46722 GHSA-c65p-x677-fgj6",
    "the hash of an image leaves its shape out",
    media("images of equal pixels and other sides are told apart"),
  ),
  row("CVE-2026-105755 GHSA-2phq-3phc-84px", "a cache is keyed by the client's X-Request-Id", {
    test: [
      "src/serving/reach.test.ts",
      "what names a request or a prefix is the tenant's own, whatever the client writes",
    ],
  }),
  row("CVE-2026-105752 GHSA-935w-9g4m-p28p", "a continued turn drops the salt", {
    test: ["test/wire/responses-client.test.ts", "a continued turn has its request's salt, under its tenant's"],
  }),
  row("CVE-2026-105754 GHSA-ph72-cqr5-qpp7", "forged media features", {
    requests: [
      [TOKENS, { token_ids: [5], features: { mm_hashes: { image: ["others'"] } } }, /features/],
      [TOKENS, { token_ids: [5], content_parts: [{ type: "image_url" }] }, /content_parts/],
    ],
  }),
  row("CVE-2026-105753 GHSA-ph3r-5jfg-f84f", "the media cache gets out of step", {
    test: [
      "test/attack/gateway.test.ts",
      "a medium's uuid, which would name an entry of everybody's cache, arrives as null",
    ],
  }),
  row("CVE-2026-73558 GHSA-7m6h-x95x-82q5", "an integer overflow reads others' data", {
    requests: UNKNOWN_TOKENS.flatMap((id) => [
      [TEXT, text({ prompt: [id] }), /prompt/] as const,
      [TOKENS, { token_ids: [id] }, /token_ids/] as const,
    ]),
  }),
  row("CVE-2026-93840", "allowed_token_ids of another width change another's request", {
    requests: UNKNOWN_TOKENS.map((id) => [CHAT, chat({ allowed_token_ids: [5, id] }), /allowed_token_ids/] as const),
  }),
  row("GHSA-6cxc-2vcg-w5qc", "a mask of allowed tokens outlives its request", {
    test: ["test/advisories/requests.test.ts", "what one request allows does not hold for the next in its place"],
  }),
  row("CVE-2026-12491 GHSA-8jr5-v98p-w75m", "images are seen otherwise than filters see them", {
    later: "media",
    why: "Pixels are made by the server behind a gateway; here headers are read, and no image is turned or flattened.",
  }),
  row("CVE-2026-34760 GHSA-6c4r-fmh3-7rh8", "audio is mixed otherwise than filters hear it", {
    later: "media",
    why: OTHERS_DECODE,
  }),
  row("CVE-2026-44222 GHSA-hpv8-x276-m59f", "special tokens in a user's text", {
    test: ["src/prompt/encode.test.ts", "Wall: no client string makes a special token, wherever it stands"],
  }),
];

/** Denial of service by fields of a request. */
const SERVICE: readonly Row[] = [
  row("CVE-2024-8768 GHSA-w2r7-9579-27hf", "an empty prompt ends the server", {
    requests: [
      [TEXT, { prompt: "", max_tokens: 1 }, /prompt/],
      [TEXT, { prompt: [], max_tokens: 1 }, /prompt/],
      [TEXT, { prompt: [[]], max_tokens: 1 }, /prompt/],
    ],
  }),
  row("CVE-2024-8939", "best_of without bound", {
    test: ["test/advisories/requests.test.ts", "best_of draws nothing more"],
  }),
  row("CVE-2026-34756 GHSA-3mwp-wvh9-7528", "n without bound", {
    requests: [
      [CHAT, chat({ n: 17, temperature: 1 }), /\bn\b/],
      [CHAT, chat({ n: 2 ** 31, temperature: 1 }), /\bn\b/],
    ],
  }),
  row("CVE-2026-73559 GHSA-87x5-vmc3-756j", "lists of prompts without bound", {
    requests: [
      [`${CHAT}/batch`, chat({ messages: Array.from({ length: 65 }, () => user) }), /messages/],
      [TEXT, text({ prompt: Array.from({ length: 65 }, () => "a") }), /prompt/],
      [TEXT, text({ prompt: Array.from({ length: 64 }, () => "a"), n: 16, temperature: 1 }), /choices|\bn\b/],
    ],
  }),
  row("CVE-2025-48956 GHSA-rxc4-3w6r-4v47", "headers and URLs without bound", {
    test: ["test/attack/bad-input.test.ts", "floods of headers and URLs are cut off"],
  }),
  row("CVE-2025-48942 GHSA-6qc9-v4r8-22xg", "a bad schema ends the engine", {
    requests: [
      [CHAT, chat({ structured_outputs: { json: { type: 5 } } }), /structured_outputs/],
      [CHAT, chat({ structured_outputs: { json: "{" } }), /structured_outputs/],
      [
        CHAT,
        chat({ response_format: { type: "json_schema", json_schema: { schema: { $ref: "#/x" } } } }),
        /response_format/,
      ],
    ],
  }),
  row("CVE-2025-48943 GHSA-9hcf-v7m4-6m2j", "a bad regular expression ends the engine", {
    requests: [
      [CHAT, chat({ structured_outputs: { regex: "(" } }), /structured_outputs/],
      [CHAT, chat({ structured_outputs: { regex: "[a" } }), /structured_outputs/],
      [CHAT, chat({ structured_outputs: { regex: "(a)\\1" } }), /structured_outputs/],
    ],
  }),
  row("CVE-2025-48944 GHSA-vrq3-r879-7m65", "a bad pattern or type in a tool ends the engine", {
    requests: [
      [
        CHAT,
        chat({
          tools: [{ type: "function", function: { name: "f", parameters: { properties: { a: { pattern: "(" } } } } }],
          tool_choice: "required",
        }),
        /tools/,
      ],
      [
        CHAT,
        chat({
          tools: [{ type: "function", function: { name: "f", parameters: { properties: { a: { type: "nope" } } } } }],
          tool_choice: "required",
        }),
        /tools/,
      ],
      [
        MESSAGES,
        message({
          tools: [{ name: "f", input_schema: { type: "object", properties: { a: { pattern: "(" } } } }],
          tool_choice: { type: "any" },
        }),
        /tools/,
      ],
    ],
  }),
  row("CVE-2025-48887 GHSA-w6q7-j642-7c25", "a tool parser takes for ever", {
    test: ["src/prompt/tools/families.test.ts", "work grows as the text does, in pieces and at once"],
  }),
  row("GHSA-j828-28rj-hfhp", "regular expressions over names and chats take for ever", {
    test: ["src/core/name-patterns.test.ts", "agrees with the regular expression of the same meaning"],
  }),
  row("CVE-2026-55574 GHSA-rwxx-mrjm-wc2m", "structured_outputs.regex takes for ever", {
    test: ["test/model/ambiguity.test.ts", "no regular expression that compiles ends the engine"],
  }),
  row("CVE-2026-73556 GHSA-48jh-3gj7-fg8v", "the same by another library", {
    test: ["test/model/ambiguity.test.ts", "no regular expression that compiles ends the engine"],
  }),
  row("CVE-2026-105757 GHSA-85xf-c7hm-whqw", "a failing grammar ends the engine", {
    test: [
      "test/wire/structured.test.ts",
      "a grammar that shows only while it runs that it is too much fails its call; the engine lives on",
    ],
  }),
  row("CVE-2025-29770 GHSA-mgrm-fgjv-mhv8", "grammars fill the disk", {
    cannot: "Compiled grammars are kept in memory only, bounded in number and bytes.",
  }),
  row("GHSA-hf3c-wxg2-49q9", "grammars fill the memory", {
    test: ["src/engine/grammar/grammar.test.ts", "grammars that nobody asks for any more are forgotten"],
  }),
  row("CVE-2025-61620 GHSA-6fvq-23cw-5628", "templates in requests", {
    requests: [
      [CHAT, chat({ chat_template: "{% for i in range(10**9) %}{% endfor %}" }), /chat_template/],
      [CHAT, chat({ chat_template_kwargs: { chat_template: "x" } }), /chat_template/],
      ["/tokenize", { messages: user, chat_template: "x" }, /chat_template/],
      [MESSAGES, message({ chat_template_kwargs: { chat_template: "x" } }), /chat_template/],
    ],
  }),
  row("CVE-2025-62426 GHSA-69j4-grxj-j64p", "chat_template_kwargs replaces what the server sets", {
    requests: ["tokenize", "messages", "tools", "bos_token", "add_generation_prompt"].flatMap((name) => {
      const more = { chat_template_kwargs: { [name]: true } };
      return [
        [CHAT, chat(more), /chat_template_kwargs/] as const,
        [MESSAGES, message(more), /chat_template_kwargs/] as const,
        [`${MESSAGES}/count_tokens`, message(more), /chat_template_kwargs/] as const,
      ];
    }),
  }),
  row("CVE-2025-46560 GHSA-vc6m-hm49-g9qg", "placeholders are replaced in quadratic time", {
    test: [
      "src/prompt/encode.test.ts",
      "Wall: NUL, private-use characters and a megabyte of partial literals are text, in linear time",
    ],
  }),
  row("CVE-2025-62372 GHSA-pmqf-x6x8-p7qw", "embeddings of a wrong shape", EMBEDS),
  row(
    "CVE-2026-22773 GHSA-grg2-63fw-f2qr",
    "an image of one pixel",
    media("images of one pixel pass; those of extreme sides, sizes or frames reach no decoder"),
  ),
  row(
    "CVE-2026-34755 GHSA-pq5c-rjhq-qp7p CVE-2026-5497 GHSA-wcwg-c5fc-9vrc",
    "frames of a video without bound",
    media("a video as a list of JPEG frames is no video"),
  ),
  row("CVE-2026-9540", "failed and aborted requests leave something behind", {
    test: ["test/attack/real-aborts.test.ts", " aborted requests leave no sequence, socket or memory behind"],
  }),
  row("CVE-2026-44223 GHSA-83vm-p52w-f9pw", "penalties fail under one kind of speculation", {
    test: ["test/process/speculation.test.ts", "guesses by lookup and by a draft model change no answer"],
  }),
  row("CVE-2026-54233 GHSA-6pr9-rp53-2pmc", "audio that grows when it is unpacked", {
    later: "media",
    why: OTHERS_DECODE,
  }),
  row("CVE-2026-55646 GHSA-v82g-2437-67m2", "an upload is read whole before its size is looked at", {
    test: ["src/http/listener.test.ts", "413 comes while reading: of 100 MB in chunks about the limit is taken"],
  }),
  row("GHSA-99f2-hwrc-gvq8", "decoding speech takes time and memory without bound", {
    later: "media",
    why: "Routes of speech answer 501 and are not passed on; a file is bounded in bytes while it is read.",
  }),
  row("GHSA-jcq2-4gch-5qhf", "audio in chats is not measured", {
    later: "media",
    why: "audio_url is measured; input_audio.data is passed on within the body's bound of 8 MiB, below what a file may have, and is not looked into.",
  }),
  row("GHSA-p6g9-7v3x-m8mv", "media are made before limits are looked at", {
    test: [
      "src/egress/media/fetcher.test.ts",
      "the media of one request are counted before any is fetched, and weighed as they come",
    ],
  }),
  row("CVE-2026-54234 GHSA-8wr5-jm2h-8r4f", "an invalid token of the sampler is used again", {
    test: ["src/engine/sampler/sampler.test.ts", "fails clearly on rows that cannot be sampled"],
  }),
  row("CVE-2026-54235 GHSA-7h4p-rffg-7823", "a temperature that is no number", {
    requests: [
      [CHAT, `{"messages":[{"role":"user","content":"hi"}],"temperature":1e999}`, /number|JSON/i],
      [CHAT, `{"messages":[{"role":"user","content":"hi"}],"temperature":NaN}`, /JSON/i],
      [CHAT, chat({ temperature: -1 }), /temperature/],
      [CHAT, chat({ temperature: "1" }), /temperature/],
      [MESSAGES, `{"model":"castellan-demo","max_tokens":1,"messages":[],"temperature":1e999}`, /number|JSON/i],
    ],
  }),
  row("CVE-2026-55514 GHSA-33cg-gxv8-3p8g", "prompt_embeds on a model of another position scheme", EMBEDS),
  row("GHSA-qff2-492f-9fm4", "stop_token_ids out of the vocabulary", {
    requests: UNKNOWN_TOKENS.map((id) => [CHAT, chat({ stop_token_ids: [id] }), /stop_token_ids/] as const),
  }),
  row("GHSA-v5gm-qgmv-gc6c", "the same with min_tokens", {
    requests: UNKNOWN_TOKENS.map(
      (id) => [CHAT, chat({ stop_token_ids: [id], min_tokens: 1, max_tokens: 2 }), /stop_token_ids/] as const,
    ),
  }),
  row("CVE-2026-71486 GHSA-8737-qx52-hjff", "derender without bound", {
    requests: [
      [
        `${CHAT}/derender`,
        {
          chat_request: chat({}),
          generate_response: { choices: [{ token_ids: Array.from({ length: 262_145 }, () => 5) }] },
        },
        /token_ids/,
      ],
      [
        `${TEXT}/derender`,
        {
          completion_request: text({}),
          generate_response: { choices: Array.from({ length: 129 }, () => ({ token_ids: [] })) },
        },
        /choices/,
      ],
      [
        `${CHAT}/derender`,
        {
          chat_request: chat({}),
          generate_chunk: { choices: [{ index: 0, token_ids: Array.from({ length: 262_145 }, () => 5) }] },
          stream: true,
        },
        /token_ids/,
      ],
    ],
  }),
  row("CVE-2026-93592 GHSA-25q3-v2hm-8vpf", "a negative token id in an embedding request", {
    test: ["src/engine/pooling/process.test.ts", "bad requests are refused at once, naming the field"],
  }),
  row("CVE-2026-93841", "counts of prompt tokens are written out of bounds", {
    requests: UNKNOWN_TOKENS.map((id) => [TEXT, text({ prompt: [5, id], repetition_penalty: 1.5 }), /prompt/] as const),
  }),
  row("CVE-2026-100647 GHSA-wpww-v874-ph2p", "cache_salt without bound", {
    requests: [[CHAT, chat({ cache_salt: "a".repeat(129) }), /cache_salt/]],
  }),
  row("CVE-2026-105756 GHSA-2823-qmq8-rwvj", "characters of cache_salt end the engine", {
    requests: ["a@b", "a/b", "a\\b", "a\0b", ""].map(
      (salt) => [CHAT, chat({ cache_salt: salt }), /cache_salt/] as const,
    ),
  }),
  row("GHSA-j682-9xp5-rrf3", "slots are not given back on each failure", {
    test: [
      "test/model/faults.test.ts",
      "a slot that cannot even be cleared ends the engine: its process is started again",
    ],
  }),
  row("GHSA-3mqx-f33v-vgp9", "the length of a prompt of tokens is not looked at", {
    requests: [
      [TEXT, text({ prompt: Array.from({ length: 5000 }, () => 5) }), /prompt|context/],
      [TEXT, text({ prompt: [5, 6], max_tokens: 1_000_000 }), /max_tokens/],
      [TOKENS, { token_ids: Array.from({ length: 5000 }, () => 5) }, /token_ids|context/],
    ],
  }),
  row("CVE-2026-94622 CVE-2026-94623", "kv_transfer_params without its fields, or with several prompts", TRANSFER),
  row("CVE-2026-94624", "hosts and ports from kv_transfer_params", TRANSFER),
  row("CVE-2026-94626", "tp_size of kv_transfer_params without bound", TRANSFER),
  row("CVE-2026-94627", "transfer ids leave blocks that nobody owns", TRANSFER),
  row("CVE-2026-105758 GHSA-x6mc-67gf-chw4 CVE-2026-105760 GHSA-58v5-2m8f-94pr", "sampling of videos by the request", {
    requests: [
      [CHAT, chat({ mm_processor_kwargs: { fps: 1e9, max_frames: 2 ** 31 } }), /mm_processor_kwargs/],
      [CHAT, chat({ media_io_kwargs: { video: { fps: 1e9, num_frames: 2 ** 31 } } }), /media_io_kwargs/],
      ["/tokenize", { messages: user, media_io_kwargs: { video: { num_frames: -1 } } }, /media_io_kwargs/],
    ],
  }),
  row("CVE-2026-105759 GHSA-5fj9-pfhr-6j48", "the HTTP method as a label of metrics", {
    test: ["test/pins/metrics.test.ts", "HTTP series have closed labels"],
  }),
  row("GHSA-823j-m4cj-hmjf", "/tokenize grows a cache", {
    test: ["test/advisories/requests.test.ts", "/tokenize refuses what would choose a processor, and keeps nothing"],
  }),
  row("GHSA-p92p-rxj5-7p2x", "the client's uuid of a medium ends the engine", {
    requests: [
      [
        CHAT,
        chat({
          messages: [{ role: "user", content: [{ type: "image_url", image_url: { url: "data:,x" }, uuid: "x" }] }],
        }),
        /messages/,
      ],
    ],
  }),
  row("GHSA-4xqp-c3mv-qff7", "a huge min_tokens hangs the engine and /health does not show it", {
    requests: [
      [CHAT, chat({ min_tokens: 2 ** 31 }), /min_tokens/],
      [TEXT, text({ min_tokens: 10, max_tokens: 5 }), /min_tokens/],
    ],
  }),
  row("GHSA-x9pq-jx6q-p3qv", "prompt_embeds with penalties", EMBEDS),
];

export const ROWS: readonly Row[] = [...CODE, ...ACCESS, ...TENANTS, ...SERVICE];
