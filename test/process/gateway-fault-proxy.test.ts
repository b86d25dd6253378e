/**
 * A gateway before a real server with an engine, reached through proxies that harm its answers in every way there is:
 * each request has one answer, that of its own prompt, or one error in its dialect; the engine is asked no more than
 * retries allow; and the books say what the answers say.
 */
import assert from "node:assert/strict";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { FAULTS, type FaultProxy, faultProxy, type Passage } from "../fixtures/fault-proxy.ts";
import { randomOf } from "../fixtures/grammar-walk.ts";
import { keyFile } from "../fixtures/recording-upstream.ts";
import { makeKey, startServer, type TestServer, until } from "../harness.ts";

const UPSTREAM_KEY = "key-of-the-upstream";
const SEED = 20_261_129;
const REQUESTS = 180;
const AT_ONCE = 8;
const LIMIT = 10_000_000;
const TENANTS = ["acme", "blue", "cyan"] as const;
const RETRIES_PER_SECOND = 3;
const RETRY_SHARE = 0.2;

let engine: TestServer;
let proxies: readonly FaultProxy[];
let gateway: TestServer;
let keys: ReadonlyMap<string, string>;

before(async () => {
  engine = await startServer({ apiKey: UPSTREAM_KEY, args: ["--served-model-name", "inside"] });
  const proxy = (seed: number) => faultProxy({ port: engine.port, seed, harmless: 1 });
  proxies = [await proxy(SEED), await proxy(SEED + 1)];
  const stateDir = join(mkdtempSync(join(tmpdir(), "castellan-gateway-")), "state");
  const limits = { tokensPerDay: LIMIT, concurrentRequests: AT_ONCE };
  const made = TENANTS.map(async (tenant) => {
    return [tenant, await makeKey(stateDir, "service", { name: tenant, tenant, limits })] as const;
  });
  keys = new Map(await Promise.all(made));
  // One name that has to be changed in every answer, and one that passes through.
  const upstreams = `upstreams: [${proxies.map(({ origin }) => origin).join(", ")}], key_file: ${keyFile()}`;
  const config = join(mkdtempSync(join(tmpdir(), "castellan-test-")), "castellan.yaml");
  writeFileSync(
    config,
    `models:\n  - { name: outside, upstream_model: inside, ${upstreams} }\n  - { name: inside, ${upstreams} }\n`,
  );
  gateway = await startServer({
    stateDir,
    args: [
      ...["--config", config, "--upstream-first-byte-timeout", "4", "--upstream-idle-timeout", "4"],
      ...["--upstream-retry-percent", String(RETRY_SHARE * 100)],
      ...["--upstream-retries-per-second", String(RETRIES_PER_SECOND)],
    ],
  });
});
after(async () => {
  await gateway.stop();
  await Promise.all(proxies.map((proxy) => proxy.close()));
  await engine.stop();
});

interface Usage {
  readonly prompt: number;
  readonly completion: number;
}

interface Told extends Usage {
  readonly text: string;
}

interface Dialect {
  readonly path: string;
  /** @param marker stands in the prompt, and the answer begins with it */
  readonly body: (marker: string) => object;
  /** Of a whole answer. */
  readonly read: (answer: string) => Told;
  /** Of a stream's events, its last one or an error among them. */
  readonly readEvents: (stream: string) => { readonly text: string; readonly usage?: Usage };
  /** The last bytes of a stream that is whole. */
  readonly end: string;
  readonly error: RegExp;
  /** The last event of one that is not. */
  readonly errorEvent: RegExp;
}

interface OpenAiAnswer {
  readonly choices: readonly { text?: string; message?: { content: string }; delta?: { content?: string } }[];
  readonly usage?: { prompt_tokens: number; completion_tokens: number } | null;
}

const usageOf = ({ usage }: OpenAiAnswer): Usage | undefined =>
  usage ? { prompt: usage.prompt_tokens, completion: usage.completion_tokens } : undefined;
const dataOf = <T>(stream: string): readonly T[] =>
  [...stream.matchAll(/^data: (\{.*)$/gm)].map(([, data = ""]) => JSON.parse(data) as T);

function openAi(path: string, prompt: (text: string) => object): Dialect {
  const textOf = ({ choices }: OpenAiAnswer): string =>
    choices.map(({ text, message, delta }) => text ?? message?.content ?? delta?.content ?? "").join("");
  return {
    path,
    body: (marker) => ({
      ...prompt(`Say ${marker}`),
      max_tokens: 30,
      temperature: 0,
      structured_outputs: { regex: `${marker}( [a-z]{1,7}){12}` },
      stream_options: { include_usage: true },
    }),
    read: (answer) => {
      const given = JSON.parse(answer) as OpenAiAnswer;
      return { text: textOf(given), ...(usageOf(given) ?? assert.fail(answer)) };
    },
    readEvents: (stream) => {
      const events = dataOf<OpenAiAnswer>(stream).filter(({ choices }) => choices !== undefined);
      const usage = events.map(usageOf).findLast((each) => each !== undefined);
      return { text: events.map(textOf).join(""), ...(usage === undefined ? {} : { usage }) };
    },
    end: "data: [DONE]\n\n",
    error: /^\{"error":\{"message":"The model's server[^"]+","type":"[A-Za-z ]+","param":null,"code":50[234]\}\}$/,
    errorEvent:
      /(?:^|\n\n)data: \{"error":\{"message":"The model's server [^"]+","type":"[A-Za-z ]+","param":null,"code":50[24]\}\}\n\ndata: \[DONE\]\n\n$/,
  };
}

interface MessageEvent {
  readonly type: string;
  readonly delta?: { readonly text?: string };
  readonly message?: { readonly usage: { readonly input_tokens: number } };
  readonly usage?: { readonly output_tokens: number };
}

const MESSAGES: Dialect = {
  path: "/v1/messages",
  body: (marker) => ({
    messages: [{ role: "user", content: `Say ${marker}` }],
    max_tokens: 30,
    temperature: 0,
    output_config: { format: { type: "json_schema", schema: { enum: [`${marker} ${"and so on ".repeat(4)}`] } } },
  }),
  read: (answer) => {
    const { content, usage } = JSON.parse(answer) as {
      content: readonly { text: string }[];
      usage: { input_tokens: number; output_tokens: number };
    };
    const text = content.map((block) => block.text).join("");
    return { text, prompt: usage.input_tokens, completion: usage.output_tokens };
  },
  readEvents: (stream) => {
    const events = dataOf<MessageEvent>(stream);
    const text = events.map(({ delta }) => delta?.text ?? "").join("");
    const prompt = events.find(({ message }) => message !== undefined)?.message?.usage.input_tokens;
    const completion = events.find(({ type }) => type === "message_delta")?.usage?.output_tokens;
    return prompt === undefined || completion === undefined ? { text } : { text, usage: { prompt, completion } };
  },
  end: 'event: message_stop\ndata: {"type":"message_stop"}\n\n',
  error:
    /^\{"type":"error","error":\{"type":"(api|timeout|overloaded)_error","message":"The model's server[^"]+"\},"request_id":"[^"]+"\}$/,
  errorEvent:
    /event: error\ndata: \{"type":"error","error":\{"type":"(api|timeout)_error","message":"The model's server [^"]+"\},"request_id":"[^"]+"\}\n\n$/,
};

const DIALECTS = [
  openAi("/v1/completions", (prompt) => ({ prompt })),
  openAi("/v1/chat/completions", (content) => ({ messages: [{ role: "user", content }] })),
  MESSAGES,
];

interface Asked {
  readonly marker: string;
  readonly dialect: Dialect;
  readonly tenant: string;
  readonly stream: boolean;
  readonly model: "outside" | "inside";
}

/** Status 0: the connection was cut within the answer. */
interface Outcome {
  readonly status: number;
  readonly text: string;
}

const bodyOf = ({ marker, dialect, stream, model }: Asked): string => {
  const { stream_options, ...body } = dialect.body(marker) as { stream_options?: object };
  return JSON.stringify({
    model,
    ...body,
    ...(stream ? { stream, ...(stream_options ? { stream_options } : {}) } : {}),
  });
};

async function ask(asked: Asked): Promise<Outcome> {
  const { dialect, tenant } = asked;
  const response = await gateway.fetch(dialect.path, {
    method: "POST",
    body: bodyOf(asked),
    key: keys.get(tenant) ?? assert.fail(),
  });
  return response.text().then(
    (text) => ({ status: response.status, text }),
    (error) => {
      assert.ok(error instanceof TypeError, String(error));
      return { status: 0, text: "" };
    },
  );
}

/** What the engine says to each without anything in between. */
async function told(asked: Asked): Promise<Told> {
  const body = bodyOf({ ...asked, model: "inside", stream: false });
  const answer = await engine.fetch(asked.dialect.path, { method: "POST", body, key: UPSTREAM_KEY });
  assert.equal(answer.status, 200);
  return asked.dialect.read(await answer.text());
}

/** Of a call: the tries at either proxy, in order. */
function triesOf(marker: string): readonly Passage[] {
  return proxies
    .flatMap(({ passages }) => passages)
    .filter(({ body }) => body.includes(`Say ${marker}"`))
    .toSorted((a, b) => a.number - b.number);
}

/** Holds the outcome against what its last try met. @returns whether it is whole */
function check(asked: Asked, { status, text }: Outcome, expected: Told, tries: readonly Passage[]): boolean {
  const { dialect, stream, model, marker } = asked;
  const what = `${marker} ${dialect.path} ${stream} ${model} ${tries.map(({ fault }) => fault)}: ${status} ${text}`;
  // The last event of a stream has passed before its length is missed.
  const whole = tries.some(
    ({ kind, fault }) => kind === "harmless" || (stream && fault === "a length that is too long"),
  );
  const began = tries.some(({ answered }) => answered);
  if (whole && stream) {
    assert.equal(status, 200, what);
    assert.ok(text.endsWith(dialect.end) && text.indexOf(dialect.end) === text.length - dialect.end.length, what);
    const { text: said, usage } = dialect.readEvents(text);
    assert.equal(said, expected.text, what);
    assert.deepEqual(usage, { prompt: expected.prompt, completion: expected.completion }, what);
  } else if (whole) {
    assert.equal(status, 200, what);
    assert.deepEqual(dialect.read(text), expected, what);
  } else if (stream && status === 200) {
    assert.ok(began, what);
    assert.match(text, dialect.errorEvent, what);
    assert.ok(expected.text.startsWith(dialect.readEvents(text).text), what);
  } else if (status === 0) assert.ok(began && model === "inside", what);
  else {
    assert.ok([502, 503, 504].includes(status), what);
    assert.match(text, dialect.error, what);
  }
  return whole;
}

/** Never doubled, but where nothing had come back. */
function checkTries(tries: readonly Passage[], what: string): void {
  const ids = new Set(tries.map(({ head }) => /\r\nx-request-id: (\S+)\r\n/.exec(head)?.[1]));
  assert.equal(ids.size, 1, what);
  const begun = tries.filter(({ asked, fault }) => asked || !["429", "503"].includes(fault));
  assert.ok(tries.length <= 3 && begun.length <= 2, `${what}: ${tries.map(({ fault }) => fault)}`);
  assert.ok(tries.filter(({ answered }) => answered).length <= 1, what);
  assert.ok(tries.filter(({ kind }) => kind === "harmless").length <= 1, what);
}

const operator = async (server: TestServer, path: string): Promise<string> => {
  const { opsUrl, adminKey } = server;
  return (await fetch(opsUrl + path, { headers: { authorization: `Bearer ${adminKey}` } })).text();
};
const sumOf = (metrics: string, name: RegExp): number =>
  [...metrics.matchAll(new RegExp(`^${name.source} (\\S+)$`, "gm"))].reduce((sum, [, value]) => sum + Number(value), 0);

test("through every fault: one answer or one error each, and the books are right", { timeout: 300_000 }, async () => {
  const random = randomOf(SEED);
  const pick = <T>(from: readonly T[]): T => from[Math.floor(random() * from.length)] ?? assert.fail();
  const requests = Array.from(
    { length: REQUESTS },
    (_, at): Asked => ({
      marker: `m${at}x`,
      dialect: DIALECTS[at % DIALECTS.length] ?? assert.fail(),
      tenant: pick(TENANTS),
      stream: random() < 0.6,
      model: pick(["outside", "inside"]),
    }),
  );
  const expected = new Map<string, Told>();
  for (const asked of requests) expected.set(asked.marker, await told(asked));
  for (const [marker, { text }] of expected) assert.ok(text.includes(marker), text);
  const startedAt = performance.now();
  const outcomes = new Map<string, Outcome>();
  const waiting = [...requests];
  const worker = async (): Promise<void> => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift())
      outcomes.set(next.marker, await ask(next));
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  const seconds = (performance.now() - startedAt) / 1000;

  const books = new Map<string, Usage>(TENANTS.map((tenant) => [tenant, { prompt: 0, completion: 0 }]));
  let wholes = 0;
  let tried = 0;
  for (const asked of requests) {
    const tries = triesOf(asked.marker);
    tried += tries.length;
    const { prompt, completion, ...rest } = expected.get(asked.marker) ?? assert.fail();
    checkTries(tries, asked.marker);
    if (!check(asked, outcomes.get(asked.marker) ?? assert.fail(), { prompt, completion, ...rest }, tries)) continue;
    wholes++;
    const book = books.get(asked.tenant) ?? assert.fail();
    books.set(asked.tenant, { prompt: book.prompt + prompt, completion: book.completion + completion });
  }
  console.log(`# ${REQUESTS} requests, ${tried} tries, ${wholes} whole, ${Math.round(seconds)} s`);
  assert.ok(wholes > REQUESTS / 4 && wholes < REQUESTS, `${wholes} were whole`);
  const met = new Set(proxies.flatMap(({ passages }) => passages.map(({ fault }) => fault)));
  assert.deepEqual(
    [...FAULTS.keys()].filter((fault) => !met.has(fault)),
    [],
  );
  await checkRetries(tried - REQUESTS, seconds);
  await checkEngine(requests.length);
  await checkBooks(books);
});

/** There are two pools, one a model. */
async function checkRetries(retries: number, seconds: number): Promise<void> {
  const most = RETRY_SHARE * REQUESTS + 2 * RETRIES_PER_SECOND * (1 + seconds);
  assert.ok(retries > 0 && retries <= most, `${retries} of ${most}`);
  assert.equal(sumOf(await operator(gateway, "/metrics"), /castellan:upstream_retries_total\{[^}]*\}/), retries);
}

/** @param direct that did not come through the gateway */
async function checkEngine(direct: number): Promise<void> {
  const passed = proxies.flatMap(({ passages }) => passages).filter(({ asked }) => asked).length;
  const counted = /http_requests_total\{handler="\/v1\/(?:chat\/completions|completions|messages)",[^}]*\}/;
  await until("the engine has been asked no more than was passed on", async () => {
    const metrics = await operator(engine, "/metrics");
    assert.ok(sumOf(metrics, counted) <= direct + passed);
    const running = sumOf(metrics, /vllm:num_requests_(?:running|waiting)\{[^}]*\}/);
    return running === 0 && sumOf(metrics, counted) === direct + passed;
  });
}

/** What the answers said, and nothing reserved any more. */
async function checkBooks(books: ReadonlyMap<string, Usage>): Promise<void> {
  const { data } = JSON.parse(await operator(gateway, "/admin/usage?by=tenant")) as {
    data: readonly { tenant: string; prompt_tokens: number; completion_tokens: number }[];
  };
  for (const [tenant, { prompt, completion }] of books) {
    const row = data.find((each) => each.tenant === tenant);
    assert.deepEqual([row?.prompt_tokens, row?.completion_tokens], [prompt, completion], tenant);
    // What a look reserves for itself is known: one token of the prompt, one of the answer.
    let left: number | undefined;
    await until("a look is answered", async () => {
      left = await look(tenant);
      return left !== undefined;
    });
    assert.equal(left, LIMIT - prompt - completion - 2, tenant);
    // As many as may run at once do: no place is held.
    await Promise.all(Array.from({ length: AT_ONCE }, () => look(tenant)));
  }
  const metrics = await operator(gateway, "/metrics");
  for (const name of ["in_flight", "outstanding_tokens"])
    assert.equal(sumOf(metrics, new RegExp(`castellan:upstream_${name}\\{[^}]*\\}`)), 0, name);
}

/** @returns the tokens that are left; undefined: it met a fault */
async function look(tenant: string): Promise<number | undefined> {
  const body = JSON.stringify({ model: "inside", prompt: [5], max_tokens: 1 });
  const answer = await gateway.fetch("/v1/completions", { method: "POST", body, key: keys.get(tenant) ?? null });
  assert.notEqual(answer.status, 429);
  await answer.text().catch(() => {});
  return answer.status === 200 ? Number(answer.headers.get("x-ratelimit-remaining-tokens")) : undefined;
}
