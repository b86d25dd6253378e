/**
 * Streams of speech through a gateway, to a server that transcribes as vLLM does: three programs, sockets between them.
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import { after, afterEach, before, test } from "node:test";
import { WebSocket as Client, type RawData } from "ws";
import { type FakeRealtime, fakeRealtime } from "../fixtures/fake-realtime.ts";
import { makeKey, startServer, TEST_KEY, type TestServer, until } from "../harness.ts";

let upstream: FakeRealtime;
let gateway: TestServer;

before(async () => {
  upstream = await fakeRealtime("org/voice");
  gateway = await startServer({
    args: [
      ...["--upstream", upstream.url, "--served-model-name", "voice", "--upstream-model", "org/voice"],
      ...["--max-audio-megabytes", "1", "--enable-request-id-headers"],
    ],
  });
});
const sessions = new Set<Client>();
afterEach(() => {
  // One that a failed test has left would keep the server from ending.
  for (const socket of sessions) socket.terminate();
  sessions.clear();
  upstream.answer = undefined;
  upstream.refuses = undefined;
  upstream.told.length = 0;
  upstream.heads.length = 0;
});
after(async () => {
  await gateway.stop();
  await upstream.close();
});

interface Said {
  readonly type: string;
  readonly [field: string]: unknown;
}

/** A client that keeps what it hears. */
class Session {
  readonly socket: Client;
  readonly heard: Said[] = [];
  closed: number | undefined;

  constructor(key: string = TEST_KEY, headers: Readonly<Record<string, string>> = {}) {
    const url = `${gateway.url.replace("http", "ws")}/v1/realtime`;
    this.socket = new Client(url, { headers: { authorization: `Bearer ${key}`, ...headers } });
    this.socket.on("message", (data: RawData) => this.heard.push(JSON.parse(String(data)) as Said));
    this.socket.on("close", (code: number) => {
      this.closed = code;
    });
    this.socket.on("error", () => {});
    sessions.add(this.socket);
  }

  say(event: object | string): void {
    this.socket.send(typeof event === "string" ? event : JSON.stringify(event));
  }

  speak(bytes: number): void {
    this.say({ type: "input_audio_buffer.append", audio: Buffer.alloc(bytes).toString("base64") });
  }

  commit(final?: boolean): void {
    this.say({ type: "input_audio_buffer.commit", ...(final === undefined ? {} : { final }) });
  }

  async hears(type: string, count = 1): Promise<Said> {
    await until(`${count} ${type}`, async () => this.#of(type).length >= count || this.closed !== undefined);
    const found = this.#of(type)[count - 1];
    assert.ok(found !== undefined, JSON.stringify(this.heard));
    return found;
  }

  async ends(): Promise<number> {
    await until("the end", async () => this.closed !== undefined);
    return this.closed ?? 0;
  }

  #of(type: string): readonly Said[] {
    return this.heard.filter((said) => said.type === type);
  }
}

async function open(key?: string): Promise<Session> {
  const session = new Session(key);
  await once(session.socket, "open");
  await session.hears("session.created");
  return session;
}

async function withModel(key?: string): Promise<Session> {
  const session = await open(key);
  session.say({ type: "session.update", model: "voice" });
  return session;
}

test("speech is transcribed: the upstream hears its own name, the client the session that it has here", async () => {
  const session = await withModel();
  session.commit();
  session.speak(3200);
  session.speak(640);
  session.commit(true);
  const done = await session.hears("transcription.done");
  assert.deepEqual(
    session.heard.filter(({ type }) => type === "transcription.delta").map(({ delta }) => delta),
    ["3200 ", "640 "],
  );
  assert.equal(done.text, "2 pieces");
  const [created] = session.heard;
  assert.match(String(created?.id), /^sess-(?!theirs)/);
  assert.ok(Number.isSafeInteger(created?.created));
  assert.equal(upstream.told[0], '{"type":"session.update","model":"org/voice"}');
  assert.equal(upstream.told[1], '{"type":"input_audio_buffer.commit","final":false}');
  // Another one, in the same session.
  session.commit();
  session.speak(2);
  session.commit(true);
  assert.equal((await session.hears("transcription.done", 2)).text, "1 pieces");
  session.socket.close();
  assert.equal(await session.ends(), 1005);
  await until("the upstream's side ends", async () => upstream.sockets.size === 0);
});

test("of the handshake nothing goes on but an id of ours; of events only what is known", async () => {
  const session = new Session(TEST_KEY, { "x-evil": "1", cookie: "a=b", "x-request-id": "mine" });
  const [response] = (await once(session.socket, "upgrade")) as [{ headers: Record<string, string> }];
  assert.equal(response.headers["x-request-id"], "mine");
  session.say({ type: "session.update", model: "voice", session: { tools: ["evil"] }, cache_salt: "evil" });
  session.say({ type: "input_audio_buffer.commit", final: false, priority: -1 });
  session.say({ type: "input_audio_buffer.append", audio: "AAAA".repeat(2), uuid: "evil" });
  session.commit(true);
  await session.hears("transcription.done");
  const [head] = upstream.heads;
  assert.match(String(head?.headers["x-request-id"]), /^(?!mine)[0-9A-Za-z_-]+$/);
  const { "sec-websocket-key": _, ...headers } = head?.headers ?? {};
  assert.deepEqual(Object.keys(headers).sort(), [
    "connection",
    "host",
    "sec-websocket-version",
    "upgrade",
    "x-request-id",
  ]);
  assert.doesNotMatch(JSON.stringify(upstream.told), /evil|priority/);
  session.socket.close();
});

test("what is no event is told as vLLM tells it, and the session goes on", async () => {
  const session = await open();
  const wrong: readonly (readonly [object | string, string])[] = [
    ["{", "invalid_json"],
    ['{"type":"a","type":"b"}', "invalid_json"],
    ["[]", "invalid_event"],
    ["{}", "invalid_event"],
    [{ type: "session.update" }, "invalid_event"],
    [{ type: "response.create" }, "unknown_event"],
    [{ type: "session.update", model: "nobody" }, "model_not_found"],
    [{ type: "input_audio_buffer.append", audio: "AAAA" }, "invalid_audio"],
    [{ type: "input_audio_buffer.append", audio: "AAA=" }, "model_not_validated"],
    [{ type: "input_audio_buffer.append", audio: "AA A" }, "invalid_audio"],
    [{ type: "input_audio_buffer.append", audio: 5 }, "invalid_audio"],
    [{ type: "input_audio_buffer.commit" }, "model_not_validated"],
    [{ type: "input_audio_buffer.commit", final: "yes" }, "invalid_event"],
  ];
  for (const [at, [event, code]] of wrong.entries()) {
    session.say(event);
    const error = await session.hears("error", at + 1);
    assert.equal(error.code, code, JSON.stringify(event));
    assert.equal(typeof error.error, "string");
  }
  assert.equal(upstream.heads.length, 0);
  session.say({ type: "session.update", model: "voice" });
  session.commit();
  session.speak(6);
  session.commit(true);
  await session.hears("transcription.done");
  session.socket.close();
});

test("who has no key, or one without the scope, gets no upgrade", async () => {
  const mute = await makeKey(gateway.stateDir, "auditor");
  for (const [key, status] of [
    ["", 401],
    ["nobody", 401],
    [mute, 403],
  ] as const) {
    await until(String(status), async () => {
      const session = new Session(key);
      const [, response] = (await once(session.socket, "unexpected-response")) as [unknown, { statusCode: number }];
      session.socket.terminate();
      return response.statusCode === status;
    });
  }
  assert.equal(upstream.heads.length, 0);
});

test("what was used is booked to the key before the end is told", async () => {
  const key = await makeKey(gateway.stateDir, "user", { name: "speaker" });
  const used = async (): Promise<string> => {
    const { data } = (await (await admin("/admin/usage?by=key")).json()) as {
      data: readonly Record<string, unknown>[];
    };
    return JSON.stringify(data.filter((row) => row.prompt_tokens === 30));
  };
  const session = await opened(key);
  session.commit();
  for (let i = 0; i < 3; i++) session.speak(320);
  session.commit(true);
  await session.hears("transcription.done");
  assert.match(await used(), /"completion_tokens":3/);
  session.socket.close();
});

test("an upstream that breaks off, makes no sense or has no such channel ends the session with an error", async () => {
  for (const [answer, code] of [
    [(socket) => socket.terminate(), 1011],
    [(socket) => socket.send("no json"), 1011],
    [(socket) => socket.send(Buffer.from([1, 2])), 1011],
  ] as const satisfies readonly (readonly [(socket: Client) => void, number])[]) {
    const session = await withModel();
    upstream.answer = (socket, { type }) => {
      if (type !== "input_audio_buffer.append") return false;
      answer(socket);
      return true;
    };
    session.commit();
    session.speak(2);
    assert.equal((await session.hears("error")).code, "processing_error");
    assert.equal(await session.ends(), code);
    upstream.answer = undefined;
  }
  for (const [status, code] of [
    [403, "not_supported"],
    [404, "not_supported"],
    [500, "processing_error"],
  ] as const) {
    upstream.refuses = status;
    const session = await withModel();
    assert.equal((await session.hears("error")).code, code);
    await session.ends();
  }
});

test("speech that nobody has heard yet is bounded; so is a message", async () => {
  const session = await withModel();
  for (let i = 0; i < 20; i++) session.speak(64_000);
  assert.equal((await session.hears("error")).code, "invalid_audio");
  assert.equal(await session.ends(), 1008);
  const heard = upstream.told.filter((text) => text.includes("append")).length;
  assert.ok(heard <= 16, `${heard} pieces of a mebibyte`);
  const large = await withModel();
  large.say(JSON.stringify({ type: "x".repeat(5 * 1024 * 1024) }));
  assert.equal(await large.ends(), 1009);
  const binary = await withModel();
  binary.socket.send(Buffer.from("{}"));
  assert.equal(await binary.ends(), 1003);
});

test("a server that ends lets its sessions end", async () => {
  const own = await startServer({ args: ["--upstream", upstream.url, "--served-model-name", "voice"] });
  const socket = new Client(`${own.url.replace("http", "ws")}/v1/realtime`, {
    headers: { authorization: `Bearer ${TEST_KEY}` },
  });
  await once(socket, "open");
  const closed = once(socket, "close") as Promise<[number]>;
  await own.stop();
  const [code] = await closed;
  assert.ok([1001, 1006].includes(code), String(code));
});

/** The first session of a key that was made a moment ago. */
async function opened(key: string): Promise<Session> {
  const found: Session[] = [];
  await until("the key is known", async () => {
    const session = new Session(key);
    const open = once(session.socket, "open").then(() => true);
    const refused = once(session.socket, "unexpected-response").then(() => false);
    if (await Promise.race([open, refused])) return found.push(session) > 0;
    session.socket.terminate();
    return false;
  });
  const session = found[0] ?? assert.fail();
  session.say({ type: "session.update", model: "voice" });
  return session;
}

const admin = (path: string, body?: unknown) =>
  fetch(`${gateway.opsUrl}${path}`, {
    method: body === undefined ? "GET" : "POST",
    headers: { authorization: `Bearer ${gateway.adminKey}`, "content-type": "application/json" },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });

test("a limit ends the session before more speech goes on", async () => {
  // A slice of half a minute is 1,980.
  const key = await makeKey(gateway.stateDir, "user", { limits: { tokensPerMinute: 3000 } });
  const session = await opened(key);
  session.commit();
  session.speak(600_000);
  await session.hears("transcription.delta");
  const before = upstream.told.length;
  for (let i = 0; i < 3; i++) session.speak(200_000);
  const error = await session.hears("error");
  assert.equal(error.code, "rate_limit_exceeded");
  assert.equal(await session.ends(), 1008);
  assert.ok(upstream.told.length <= before + 2);
});

test("a key that has ended begins nothing more in the session that it has", async () => {
  const key = await makeKey(gateway.stateDir, "user", { name: "ends" });
  const session = await opened(key);
  session.commit();
  session.speak(2);
  session.commit(true);
  await session.hears("transcription.done");
  const keys = (await (await admin("/admin/keys")).json()) as { data: readonly { id: string; name: string }[] };
  const { id } = keys.data.find(({ name }) => name === "ends") ?? assert.fail();
  assert.equal((await admin("/admin/keys/disable", { id })).status, 200);
  const before = upstream.told.length;
  session.commit();
  await session.hears("error");
  assert.equal(await session.ends(), 1008);
  assert.equal(upstream.told.length, before);
});

test("a client that leaves in the middle pays for what was heard and said", async () => {
  const key = await makeKey(gateway.stateDir, "user", { name: "leaves" });
  const session = await opened(key);
  session.commit();
  session.speak(32_000);
  session.speak(32_000);
  await session.hears("transcription.delta", 2);
  session.socket.terminate();
  await until("the booking", async () => {
    const { data } = (await (await admin("/admin/usage?by=key")).json()) as {
      data: readonly Record<string, unknown>[];
    };
    return data.some((row) => row.prompt_tokens === 100 && row.completion_tokens === 2);
  });
});

test("sessions beside each other hear their own only, and each has its own connection behind", async () => {
  const all = await Promise.all(Array.from({ length: 8 }, () => withModel()));
  for (const [i, session] of all.entries()) {
    session.commit();
    for (let n = 0; n <= i; n++) session.speak(2 * (i + 1));
    session.commit(true);
  }
  for (const [i, session] of all.entries()) {
    assert.equal((await session.hears("transcription.done")).text, `${i + 1} pieces`);
    const deltas = session.heard.filter(({ type }) => type === "transcription.delta").map(({ delta }) => delta);
    assert.deepEqual(deltas, Array(i + 1).fill(`${2 * (i + 1)} `));
  }
  assert.equal(upstream.heads.length, 8);
});
