/**
 * A gateway before upstreams that misbehave as they are told to: what its client sees of each fault, how often the
 * upstream was asked, and that every book is right to the token afterwards.
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, test } from "node:test";
import {
  type Act,
  answer,
  chunk,
  close,
  LAST_CHUNK,
  nothing,
  reset,
  STREAM_HEAD,
  type Turn,
  whole,
} from "../fixtures/fault-server.ts";
import { completion, keyFile, type RecordingUpstream, recordingUpstream } from "../fixtures/recording-upstream.ts";
import { makeKey, startServer, TEST_KEY, type TestServer, until } from "../harness.ts";

const LIMIT = 1_000_000;
const TIMEOUTS = ["--upstream-first-byte-timeout", "1.5", "--upstream-idle-timeout", "1.5"];
/** Of all calls so far, by what upstreams said or what can be told. */
let booked = 0;
let key: string;
let one: RecordingUpstream;
/** Two that hold the same model under the same name. */
let pair: readonly [RecordingUpstream, RecordingUpstream];
let gateway: TestServer;
let paired: TestServer;

before(async () => {
  const stateDir = join(mkdtempSync(join(tmpdir(), "castellan-gateway-")), "state");
  const limits = { tokensPerDay: LIMIT, concurrentRequests: 1 };
  key = await makeKey(stateDir, "service", { name: "counted", tenant: "acme", limits });
  one = await recordingUpstream(nothing);
  pair = [await recordingUpstream(nothing), await recordingUpstream(nothing)];
  const to = (origin: string) => ["--upstream", origin];
  const shared = ["--upstream-key-file", keyFile(), ...TIMEOUTS];
  [gateway, paired] = await Promise.all([
    startServer({
      stateDir,
      args: [...to(one.origin), ...shared, "--served-model-name", "outside", "--upstream-model", "inside"],
    }),
    startServer({ args: [...pair.flatMap(({ origin }) => to(origin)), ...shared, "--upstream-health-interval", "0"] }),
  ]);
});
after(async () => {
  await Promise.all([gateway.stop(), paired.stop()]);
  await Promise.all([one.close(), ...pair.map((each) => each.close())]);
});
afterEach(async () => {
  await settled();
  one.calls.length = 0;
});

const ask = (body: object, path = "/v1/completions", signal?: AbortSignal) =>
  gateway.fetch(path, {
    method: "POST",
    body: JSON.stringify({ model: "outside", ...body }),
    key,
    ...(signal === undefined ? {} : { signal }),
  });
const operator = async (path: string): Promise<string> => {
  const { opsUrl, adminKey } = gateway;
  return (await fetch(opsUrl + path, { headers: { authorization: `Bearer ${adminKey}` } })).text();
};

/** Nothing is on its way and nothing reserved, and both books say what was used. The key has one place: it is free. */
async function settled(): Promise<void> {
  let seen = "";
  // For the look itself what it may come to: the prompt's bytes, what stands around them, and one of the answer.
  await until(
    "the ledger is right",
    async () => {
      one.act(answer(completion({ prompt: 1, completion: 0 })));
      const response = await ask({ prompt: "Hi", max_tokens: 1 });
      seen = `${response.status} ${response.headers.get("x-ratelimit-remaining-tokens")}`;
      await response.text();
      if (response.status !== 200) return false;
      booked += 1;
      return seen === `200 ${LIMIT - (booked - 1) - (4 + 16 + 1)}`;
    },
    3000,
  ).catch(() => assert.fail(`a look says ${seen} where ${booked} were used`));
  const { data } = JSON.parse(await operator("/admin/usage?by=tenant")) as {
    data: readonly { tenant: string; prompt_tokens: number; completion_tokens: number }[];
  };
  const used = data.find(({ tenant }) => tenant === "acme");
  assert.equal((used?.prompt_tokens ?? 0) + (used?.completion_tokens ?? 0), booked);
  const metrics = await operator("/metrics");
  for (const name of ["in_flight", "outstanding_tokens"])
    assert.match(metrics, new RegExp(`^castellan:upstream_${name}\\{[^}]*\\} 0$`, "m"));
}

const piece = (text: string, model = "inside"): string =>
  `data: {"id":"c","object":"text_completion","model":"${model}","choices":[{"index":0,"text":"${text}"}]}\n\n`;
const usage = (prompt: number, made: number): string =>
  `data: {"id":"c","object":"text_completion","model":"inside","choices":[],"usage":{"prompt_tokens":${prompt},"completion_tokens":${made}}}\n\n`;
const DONE = "data: [DONE]\n\n";
const PIECES = ["a", "b", "c"];
const BEGUN = PIECES.map((text) => piece(text)).join("");
const SEEN = PIECES.map((text) => piece(text, "outside")).join("");

const START = `event: message_start\ndata: {"type":"message_start","message":{"id":"m","model":"inside","usage":{"input_tokens":5,"output_tokens":0}}}\n\n`;
const delta = (text: string): string =>
  `event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"${text}"}}\n\n`;
const BEGUN_MESSAGE = START + PIECES.map(delta).join("");

interface Dialect {
  readonly path: string;
  readonly body: object;
  readonly begun: string;
  readonly seen: string;
  readonly ends: RegExp;
}

const DIALECTS: readonly Dialect[] = [
  {
    path: "/v1/completions",
    body: { prompt: "Hi", max_tokens: 50 },
    begun: BEGUN,
    seen: SEEN,
    ends: /^data: \{"error":\{"message":"The model's server [^"]+","type":"[A-Za-z ]+","param":null,"code":50[24]\}\}\n\ndata: \[DONE\]\n\n$/,
  },
  {
    path: "/v1/messages",
    body: { messages: [{ role: "user", content: "Hi" }], max_tokens: 50 },
    begun: BEGUN_MESSAGE,
    seen: BEGUN_MESSAGE.replace("inside", "outside"),
    ends: /^event: error\ndata: \{"type":"error","error":\{"type":"(api|timeout)_error","message":"The model's server [^"]+"\},"request_id":"[^"]+"\}\n\n$/,
  },
];

const CLOSE_DELIMITED = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
/** After the first events. */
const BREAKS: Readonly<Record<string, (begun: string) => Act>> = {
  "a reset": (begun) => reset(STREAM_HEAD + chunk(begun)),
  "a close": (begun) => close(STREAM_HEAD + chunk(begun)),
  "a close within an event": (begun) => close(STREAM_HEAD + chunk(`${begun}data: {"id":"c","choi`)),
  "garbage for a chunk": (begun) => answer(`${STREAM_HEAD + chunk(begun)}ZZ\r\nwhat is this`),
  "a chunk longer than told": (begun) => answer(`${STREAM_HEAD + chunk(begun)}1\r\nabcdef\r\n${LAST_CHUNK}`),
  silence: (begun) => answer(STREAM_HEAD + chunk(begun)),
  "an orderly end without the last event": (begun) => answer(STREAM_HEAD + chunk(begun) + LAST_CHUNK),
};

for (const { path, body, begun, seen, ends } of DIALECTS)
  test(`${path}: a stream that breaks ends with the dialect's error, asked once, and nobody pays`, async () => {
    for (const [what, act] of Object.entries(BREAKS)) {
      one.calls.length = 0;
      one.act(act(begun));
      const response = await ask({ ...body, stream: true }, path);
      assert.equal(response.status, 200, what);
      const text = await response.text();
      assert.ok(text.startsWith(seen), `${what}: ${text}`);
      assert.match(text.slice(seen.length), ends, what);
      assert.equal(one.calls.length, 1, what);
      await settled();
    }
  });

test("an upstream that says in its stream that it failed is passed on, and nobody pays", async () => {
  const error = 'data: {"error":{"message":"no","type":"InternalServerError","code":500}}\n\n';
  one.act(answer(STREAM_HEAD + chunk(BEGUN + error + DONE) + LAST_CHUNK));
  assert.equal(await (await ask({ prompt: "Hi", stream: true })).text(), SEEN + error + DONE);
  await settled();
  const failed = 'event: error\ndata: {"type":"error","error":{"type":"api_error","message":"no"}}\n\n';
  one.act(answer(STREAM_HEAD + chunk(BEGUN_MESSAGE + failed) + LAST_CHUNK));
  const { body = {}, seen = "" } = DIALECTS[1] ?? {};
  assert.equal(await (await ask({ ...body, stream: true }, "/v1/messages")).text(), seen + failed);
});

test("before the head: one more try where the connection broke, none where an answer came", async () => {
  const good = completion({ prompt: 7, completion: 3 });
  const cases: readonly (readonly [what: string, first: Act, status: number, calls: number])[] = [
    ["reset", reset(), 200, 2],
    ["reset within the head", reset("HTTP/1.1 200 OK\r\ncontent-ty"), 200, 2],
    ["closed", close(), 200, 2],
    ["garbage", close("\x16\x03\x01garbage\r\n\r\n"), 502, 1],
    ["two lengths", answer("HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 5\r\n\r\nabcde"), 502, 1],
    ["silence", nothing, 504, 1],
    // Nobody could tell whether it is whole.
    ["a stream whose end only the connection tells", close(CLOSE_DELIMITED + BEGUN), 502, 1],
    ["500", answer(whole('{"error":"inner 10.0.0.1"}', "500 Internal Server Error")), 502, 1],
    ["our key is not taken", answer(whole("{}", "401 Unauthorized")), 502, 1],
    ["elsewhere", answer(whole("", "302 Found", ["location: http://169.254.169.254/"])), 502, 1],
  ];
  for (const [what, first, status, calls] of cases) {
    one.calls.length = 0;
    one.act((turn) => (turn.number === 0 ? first(turn) : void turn.socket.write(good)));
    const response = await ask({ prompt: "Hi", max_tokens: 50 });
    const text = await response.text();
    assert.equal(response.status, status, `${what}: ${text}`);
    assert.equal(one.calls.length, calls, what);
    assert.ok(!text.includes("10.0.0.1") && !text.includes("169.254"), text);
    if (status === 200) booked += 10;
    await settled();
  }
});

test("two resets are a 502: nobody is asked a third time", async () => {
  one.act(reset());
  assert.equal((await ask({ prompt: "Hi" })).status, 502);
  assert.equal(one.calls.length, 2);
});

const JSON_TEXT = completion().slice(completion().indexOf("\r\n\r\n") + 4);
const sized = (length: number): string =>
  `HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ${length}\r\n\r\n`;
const CHUNKED = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
/** A whole answer that is not whole. */
const HALVES: Readonly<Record<string, Act>> = {
  "a length that is too long": close(sized(JSON_TEXT.length + 50) + JSON_TEXT),
  "a reset": reset(sized(JSON_TEXT.length) + JSON_TEXT.slice(0, 40)),
  silence: answer(sized(JSON_TEXT.length) + JSON_TEXT.slice(0, 40)),
  "garbage for a chunk": answer(`${CHUNKED}${chunk(JSON_TEXT.slice(0, 40))}ZZ\r\n`),
  "a close between chunks": close(CHUNKED + chunk(JSON_TEXT.slice(0, 40))),
};

test("half an answer is an error or a cut connection, never a whole answer; asked once, and nobody pays", async () => {
  for (const [what, act] of Object.entries(HALVES)) {
    one.calls.length = 0;
    one.act(act);
    const response = await ask({ prompt: "Hi", max_tokens: 50 });
    assert.ok([502, 504].includes(response.status), `${what}: ${response.status}`);
    assert.match(await response.text(), /"message":"The model's server/);
    assert.equal(one.calls.length, 1, what);
    await settled();
    // Passed on as it comes, where no name has to be changed.
    for (const each of pair) each.act(act);
    const body = JSON.stringify({ model: "inside", prompt: "Hi", max_tokens: 50 });
    const cut = paired.fetch("/v1/completions", { method: "POST", body }).then(async (through) => {
      assert.equal(through.status, 200, what);
      await through.text();
    });
    await assert.rejects(cut, TypeError, what);
    const calls = pair.flatMap((each) => each.calls.splice(0));
    assert.equal(calls.length, 1, what);
  }
});

test("what comes behind an answer is nobody's answer", async () => {
  const ghost = completion({ text: "ghost", prompt: 1000, completion: 1000 });
  for (const behind of [ghost, "HTTP/1.1 200 OK\r\n\r\nghost", "ghost"]) {
    one.act(
      ({ socket, number }) =>
        void socket.write(number % 2 === 0 ? completion({ text: "first" }) + behind : completion({ text: "second" })),
    );
    one.calls.length = 0;
    for (const text of ["first", "second"]) {
      const response = await ask({ prompt: text });
      const { choices } = (await response.json()) as { choices: readonly { text: string }[] };
      assert.equal(choices[0]?.text, text);
      booked += 10;
    }
    await settled();
  }
  // A length that is too short leaves no answer, which nobody pays, and its rest belongs to nobody either.
  one.act(({ socket, number }) => void socket.write(number === 0 ? sized(40) + JSON_TEXT : completion()));
  one.calls.length = 0;
  const cut = await ask({ prompt: "Hi" });
  assert.equal(cut.status, 502);
  assert.match(await cut.text(), /"message":"The model's server gave no answer that can be read/);
  assert.equal((await ask({ prompt: "Hi" })).status, 200);
  booked += 10;
});

test("500 then 200: the other one answers, each is asked once", async () => {
  for (let round = 0; round < 3; round++) {
    const calls: Turn[] = [];
    for (const each of pair)
      each.act((turn) => {
        calls.push(turn);
        turn.socket.write(calls.length === 1 ? whole("{}", "500 Internal Server Error") : completion());
      });
    const body = JSON.stringify({ model: "inside", prompt: "Hi", max_tokens: 50 });
    const response = await paired.fetch("/v1/completions", { method: "POST", body });
    assert.equal(response.status, 200, await response.text());
    assert.deepEqual(
      pair.map((each) => each.calls.splice(0).length),
      [1, 1],
    );
    // The same call, to the byte: it is one request.
    assert.equal(calls[0]?.body.toString(), calls[1]?.body.toString());
  }
});

test("a stream that dribbles arrives whole, and costs what it says", async () => {
  const bytes = STREAM_HEAD + [BEGUN, usage(11, 3), DONE].map(chunk).join("") + LAST_CHUNK;
  one.act(async ({ socket }) => {
    for (let at = 0; at < bytes.length; at += 3) {
      socket.write(bytes.slice(at, at + 3));
      await new Promise((done) => setImmediate(done));
    }
  });
  assert.equal(await (await ask({ prompt: "Hi", stream: true })).text(), SEEN + DONE);
  booked += 14;
});

test("a client that leaves a stream pays for what passed, and ends the call at the upstream", async () => {
  const leave = async (path: string, body: object, begun: string, last: string): Promise<void> => {
    one.act(answer(STREAM_HEAD + chunk(begun)));
    one.calls.length = 0;
    const abort = new AbortController();
    const response = await ask({ ...body, stream: true }, path, abort.signal);
    const reader = response.body?.getReader() ?? assert.fail();
    for (let text = ""; !text.endsWith(last); ) text += Buffer.from((await reader.read()).value ?? assert.fail());
    const { socket } = one.calls[0] ?? assert.fail();
    const gone = once(socket, "close");
    abort.abort();
    await gone;
  };
  // The upstream has said nothing of its use: two tokens of four bytes, and one an event.
  await leave("/v1/completions", { prompt: "Hi" }, BEGUN, piece("c", "outside"));
  booked += 2 + 3;
  await settled();
  // It has said what the prompt has, and there were three events since.
  await leave("/v1/messages", DIALECTS[1]?.body ?? {}, BEGUN_MESSAGE, delta("c"));
  booked += 5 + 3;
});

test("a client that leaves before the head ends the call at the upstream", async () => {
  one.act(nothing);
  const abort = new AbortController();
  const asked = ask({ prompt: "Hi" }, undefined, abort.signal);
  await until("it is at the upstream", () => one.calls.length === 1);
  const gone = once(one.calls[0]?.socket ?? assert.fail(), "close");
  abort.abort();
  await assert.rejects(asked);
  await gone;
});

test("streams that run at once get their own events, whatever the order in which they come", async () => {
  const count = 24;
  const length = 40;
  const turns: Turn[] = [];
  one.act((turn) => void turns.push(turn));
  const texts = Array.from({ length: count }, async (_, at) => {
    const body = JSON.stringify({ model: "outside", prompt: `stream-${at}`, stream: true });
    const response = await gateway.fetch("/v1/completions", { method: "POST", body, key: TEST_KEY });
    return response.text();
  });
  await until("all have begun", () => turns.length === count);
  const nameOf = ({ body }: Turn): string => /"prompt":"(stream-\d+)"/.exec(body.toString())?.[1] ?? assert.fail();
  for (const { socket } of turns) socket.write(STREAM_HEAD);
  for (let event = 0; event < length; event++) {
    // Another order each time, and events cut in two.
    for (const turn of turns.toSorted((a, b) => ((a.number * 7 + event) % count) - ((b.number * 7 + event) % count))) {
      const text = piece(`${nameOf(turn)}/${event}`);
      turn.socket.write(chunk(text.slice(0, 20)));
      turn.socket.write(chunk(text.slice(20)));
    }
    await new Promise((done) => setImmediate(done));
  }
  for (const { socket } of turns) socket.write(chunk(usage(1, 1)) + chunk(DONE) + LAST_CHUNK);
  for (const [at, text] of (await Promise.all(texts)).entries()) {
    const own = Array.from({ length }, (_, event) => piece(`stream-${at}/${event}`, "outside"));
    assert.equal(text, own.join("") + DONE);
  }
});
