import assert from "node:assert/strict";
import { once } from "node:events";
import { test } from "node:test";
import { z } from "zod";
import { Fault } from "#core/fault.ts";
import type { RelaySource, RelayTarget } from "#core/relay.ts";
import {
  AUTH,
  closed,
  dial,
  exchange,
  KEY,
  message,
  plainDialect,
  type Rig,
  type RigOptions,
  ROUTES,
  rig,
  type Services,
  until,
} from "#test/http/harness.ts";
import { key } from "./access.ts";
import type { Relay, RelayAnswer, RelayRequest } from "./relay.ts";
import { json, relay as relayed } from "./reply.ts";
import { defineRoute } from "./route.ts";

const headers = { authorization: `Bearer ${KEY}`, "content-type": "application/json" };
const payload = '{ "messages": ["hi"],  "more": 1 }';

/** A source that gives what a test tells it to. */
class Script implements RelaySource {
  target: RelayTarget | undefined;
  resumes = 0;
  cancels = 0;
  readonly #begin: (target: RelayTarget) => void;

  constructor(begin: (target: RelayTarget) => void = () => {}) {
    this.#begin = begin;
  }

  pipe(target: RelayTarget): void {
    this.target = target;
    this.#begin(target);
  }

  resume(): void {
    this.resumes++;
  }

  cancel(): void {
    this.cancels++;
  }
}

/** One buffer for everything, which is overwritten as soon as `write` has returned. */
const shared = Buffer.alloc(1024);

function give(target: RelayTarget, text: string): boolean {
  const n = shared.write(text);
  const ready = target.write(shared.subarray(0, n));
  shared.fill("#");
  return ready;
}

function whole(text: string): Script {
  return new Script((target) => {
    give(target, text);
    target.end();
  });
}

const chat = ROUTES.filter(({ path }) => path === "/v1/chat");

interface Asked extends Rig {
  readonly asked: RelayRequest<Services>[];
}

async function relaying(
  t: Parameters<typeof rig>[0],
  answer: (request: RelayRequest<Services>) => RelayAnswer<Services> | Promise<RelayAnswer<Services>>,
  options: RigOptions & { wants?: Relay<Services>["wants"] } = {},
): Promise<Asked> {
  const asked: RelayRequest<Services>[] = [];
  const relay: Relay<Services> = {
    wants: options.wants ?? ((route) => chat.includes(route)),
    answer: (request) => {
      asked.push(request);
      return answer(request);
    },
  };
  return { ...(await rig(t, { ...options, relay })), asked };
}

const stream = (source: RelaySource) => relayed({ status: 200, headers: {}, source }, true);
const unary = (source: RelaySource, length: number, status = 200) =>
  relayed({ status, headers: { "content-type": "application/json", "content-length": String(length) }, source }, false);

const POST = message("POST /v1/chat", [AUTH], payload);

test("a relayed call: the bytes as they came, a grant, and the answer with our headers", async (t) => {
  const { http, asked, services, records } = await relaying(t, () => unary(whole('{"a":1}'), 7, 201));
  const answer = await http.inject("public", { method: "POST", url: "/v1/chat?x=1", headers, payload });
  assert.equal(answer.statusCode, 201);
  assert.equal(answer.payload, '{"a":1}');
  assert.equal(answer.headers["content-type"], "application/json");
  assert.equal(answer.headers["content-length"], "7");
  assert.equal(answer.headers["x-content-type-options"], "nosniff");
  assert.equal(answer.headers["cache-control"], "no-store");
  const [request] = asked;
  assert.equal(request?.body?.toString(), payload);
  assert.equal(request?.caller.principal.id, "key_1");
  assert.equal(request?.caller.scope, "inference");
  assert.equal(request?.query, "");
  assert.equal(request?.askedBy, undefined);
  assert.deepEqual(services.handled, []);
  assert.equal(records[0]?.responseBytes, 7);
  assert.equal(records[0]?.status, 201);
  assert.deepEqual(http.counters(), { sockets: 0, calls: 0, handlers: 0, timers: 0 });
});

test("the memory of a body that is spent goes back, unless somebody has listened to it", async (t) => {
  const long = JSON.stringify({ messages: ["x".repeat(50_000)] });
  for (const content of [undefined, () => {}]) {
    const gate: RigOptions["gate"] = (inner) => ({
      ...inner,
      open: (call) => ({ ...inner.open(call), ...(content === undefined ? {} : { content }) }),
    });
    const { http, asked } = await relaying(t, () => unary(whole("{}"), 2), { gate });
    await http.inject("public", { method: "POST", url: "/v1/chat", headers, payload: long });
    assert.equal(asked[0]?.body?.length, long.length);
    asked[0]?.spent();
    assert.equal(asked[0]?.body?.length, content === undefined ? 0 : long.length);
  }
});

test("the walls in front hold, and the relay hears of nothing that they refuse", async (t) => {
  const { http, asked } = await relaying(t, () => unary(whole("{}"), 2));
  const ask = (more: object, body = payload) =>
    http.inject("public", { method: "POST", url: "/v1/chat", headers: { ...headers, ...more }, payload: body });
  assert.equal((await ask({ authorization: "Bearer wrong" })).statusCode, 401);
  assert.equal((await ask({ "content-type": "text/plain" })).statusCode, 400);
  assert.equal((await ask({ "content-encoding": "gzip" })).statusCode, 400);
  assert.equal((await ask({}, " ".repeat(100_001))).statusCode, 413);
  assert.equal((await ask({}, "")).statusCode, 400);
  assert.equal(asked.length, 0);
});

test("a key without the scope is told so, and the relay hears nothing", async (t) => {
  const { http, asked } = await relaying(t, () => unary(whole("{}"), 2), { role: "auditor" });
  assert.equal((await http.inject("public", { method: "POST", url: "/v1/chat", headers, payload })).statusCode, 403);
  assert.equal(asked.length, 0);
});

test("no answer of the relay: the body is held against the schema and the handler runs", async (t) => {
  const { http, services, asked } = await relaying(t, async () => undefined);
  const ask = (body: string) => http.inject("public", { method: "POST", url: "/v1/chat", headers, payload: body });
  assert.deepEqual((await ask('{"messages":["hi"]}')).json(), { messages: ["hi"] });
  assert.equal((await ask('{"messages":1}')).statusCode, 400);
  assert.deepEqual(services.handled, ["chat"]);
  assert.equal(asked.length, 2);
});

test("a failure of the relay is a failure of the call", async (t) => {
  const { http } = await relaying(t, () => {
    throw new Fault("engine_unavailable", "Not now.", { retryAfterMs: 2000 });
  });
  const answer = await http.inject("public", { method: "POST", url: "/v1/chat", headers, payload });
  assert.equal(answer.statusCode, 503);
  assert.equal(answer.headers["retry-after"], "2");
});

test("queries: what the schema has taken, encoded anew, and nothing else", async (t) => {
  const { http, asked } = await relaying(t, () => unary(whole("{}"), 2), {
    wants: ({ path, method }) => path === "/v1/models" && method === "GET",
  });
  const get = (url: string) => http.inject("public", { method: "GET", url, headers });
  assert.equal((await get("/v1/models?li%6dit=3&x=%0d%0a&y")).statusCode, 200);
  assert.equal(asked[0]?.query, "limit=3");
  assert.equal(asked[0]?.body, undefined);
  assert.equal((await get("/v1/models?limit=99")).statusCode, 400);
  assert.equal(asked.length, 1);
});

test("an open route is not passed on: no server starts with it", async (t) => {
  await assert.rejects(
    relaying(t, () => undefined, { wants: ({ path }) => path === "/health" }),
    /\/health is open/,
  );
});

/** A gate whose record is on its way until it is released. */
function slowRecord(order: string[]): { readonly gate: NonNullable<RigOptions["gate"]>; readonly release: () => void } {
  const { promise, resolve } = Promise.withResolvers<void>();
  return {
    release: resolve,
    gate: (gate) => ({
      ...gate,
      open: (call) => ({
        ...gate.open(call),
        record: ({ status }) => {
          order.push(`record ${status}`);
          return promise;
        },
      }),
    }),
  };
}

test("the record comes before the first byte, and what came meanwhile is not lost", async (t) => {
  const order: string[] = [];
  const { gate, release } = slowRecord(order);
  const source = new Script((target) => {
    order.push(`first ${give(target, "data: 1\n\n")}`);
  });
  const { port } = await relaying(t, () => stream(source), { gate });
  const socket = dial(port);
  let answer = "";
  socket.on("data", (bytes) => {
    answer += bytes;
  });
  socket.write(POST);
  await until(() => order.length === 2, "the record");
  assert.deepEqual(order, ["record 200", "first false"]);
  assert.equal(answer, "");
  release();
  await until(() => answer.includes("data: 1\n\n"), "the first frame");
  assert.equal(source.resumes, 1);
  source.target?.end();
  await closed(socket);
  assert.match(answer, /^HTTP\/1\.1 200 OK\r\n/);
  assert.ok(answer.endsWith("\r\ndata: 1\n\n\r\n0\r\n\r\n"), answer);
});

test("the record may begin before the first bytes are given, and is made once", async (t) => {
  const order: string[] = [];
  const { gate, release } = slowRecord(order);
  const source = new Script((target) => target.soon?.());
  const { port } = await relaying(t, () => unary(source, 7), { gate });
  const socket = dial(port);
  let answer = "";
  socket.on("data", (bytes) => {
    answer += bytes;
  });
  socket.write(POST);
  await until(() => order.length === 1, "the record");
  const { target } = source;
  assert.ok(target !== undefined);
  target.soon?.();
  assert.equal(give(target, '{"a"'), false, "the record is on its way");
  release();
  await until(() => source.resumes === 1, "the record is there");
  assert.equal(give(target, ":1}"), true);
  target.end();
  await closed(socket);
  assert.match(answer, /^HTTP\/1\.1 200 OK\r\n/);
  assert.ok(answer.endsWith('\r\n\r\n{"a":1}'), answer);
  assert.deepEqual(order, ["record 200"]);
});

test("a record that cannot be kept: the call is refused and the source hears of it", async (t) => {
  const source = new Script((target) => void give(target, "data: 1\n\n"));
  const { port } = await relaying(t, () => stream(source), {
    gate: (gate) => ({
      ...gate,
      open: (call) => ({
        ...gate.open(call),
        record: () => Promise.reject(new Fault("policy_unavailable", "No record, no answer.")),
      }),
    }),
  });
  assert.match(await exchange(port, POST), /^HTTP\/1\.1 503 /);
  assert.equal(source.cancels, 1);
});

test("a stream passes in whole frames, however the upstream's network cut it", async (t) => {
  const source = new Script((target) => {
    for (const piece of ["data: 1\n\nda", "ta: 2", "\n\n", "data: 3\n\n"]) give(target, piece);
    target.end();
  });
  const { port } = await relaying(t, () => stream(source));
  const answer = await exchange(port, POST);
  const [head = "", body = ""] = answer.split(/\r\n\r\n(.*)/s);
  assert.match(head, /content-type: text\/event-stream; charset=utf-8\r\n/);
  assert.match(head, /Transfer-Encoding: chunked/i);
  const chunks = [...body.matchAll(/([0-9a-f]+)\r\n(.*?\n\n)\r\n/gs)].map((match) => match[2]);
  assert.deepEqual(chunks, ["data: 1\n\n", "data: 2\n\n", "data: 3\n\n"]);
  assert.ok(body.endsWith("0\r\n\r\n"));
  assert.equal(source.cancels, 0);
});

test("a failure before the first byte has its real status", async (t) => {
  const { port } = await relaying(t, () =>
    stream(new Script((target) => target.fail(new Fault("engine_failed", "The upstream broke off.")))),
  );
  assert.match(await exchange(port, POST), /^HTTP\/1\.1 500 [\s\S]*The upstream broke off\./);
});

test("a failure in the middle of a stream is an event of the dialect, outside of any frame, and the end", async (t) => {
  const source = new Script((target) => {
    give(target, "data: 1\n\ndata: {half");
    target.fail(new Fault("engine_failed", "The upstream broke off."));
  });
  const { port, records } = await relaying(t, () => stream(source));
  const answer = await exchange(port, POST);
  assert.match(answer, /^HTTP\/1\.1 200 OK/);
  assert.ok(!answer.includes("half"));
  assert.match(answer, /data: \{"error":\{"kind":"engine_failed".*\}\n\ndata: \[DONE\]\n\n\r\n0\r\n\r\n$/);
  assert.equal(records[0]?.fault, "engine_failed");
});

test("a failure inside of a frame that was too long to be held cuts the connection", async (t) => {
  const source = new Script((target) => {
    target.write(Buffer.alloc(70_000, "x"));
    target.fail(new Fault("engine_failed", "The upstream broke off."));
  });
  const { port } = await relaying(t, () => stream(source));
  const answer = await exchange(port, POST);
  assert.ok(!answer.includes("error") && !answer.endsWith("0\r\n\r\n"));
});

/** In pieces, a turn apart, and then the end or, where there is a fault, the failure. */
function apart(texts: readonly string[], fault?: Fault): Script {
  return new Script(async (target) => {
    for (const text of texts) {
      give(target, text);
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    if (fault === undefined) target.end();
    else target.fail(fault);
  });
}

const cases: [name: string, script: Script, body: string][] = [
  ["too short", apart(["1234"]), "1234"],
  ["too long", apart(["1234", "567890"]), "1234"],
  ["broken", apart(["1234"], new Fault("engine_failed", "No.")), "1234"],
];
for (const [name, script, body] of cases)
  test(`an answer with a length that is ${name}: the connection is cut, and nothing is invented`, async (t) => {
    const { port, records } = await relaying(t, () => unary(script, 8));
    const answer = await exchange(port, message("POST /v1/chat", [AUTH], payload).replace("Connection: close\r\n", ""));
    assert.match(answer, /^HTTP\/1\.1 200 OK/);
    assert.ok(answer.endsWith(`\r\n\r\n${body}`), answer);
    await until(() => records.length === 1, "the end of the call");
    assert.equal(records[0]?.fault, "engine_failed");
  });

test("an answer in pieces with a length arrives whole, and the connection goes on", async (t) => {
  const { port } = await relaying(t, () => unary(apart(["12", "34"]), 4));
  const answer = await exchange(port, POST.replace("Connection: close\r\n", ""), POST);
  assert.equal(answer.match(/\r\n\r\n1234/g)?.length, 2);
});

test("an answer without a body has none, whatever the upstream sends", async (t) => {
  const { port } = await relaying(t, () =>
    relayed({ status: 204, headers: { "content-length": "5" }, source: whole("12345") }, false),
  );
  const answer = await exchange(port, POST);
  assert.match(answer, /^HTTP\/1\.1 204 /);
  assert.ok(answer.endsWith("\r\n\r\n") && !/content-length/i.test(answer), answer);
});

test("heads that would break the framing are a bug, not an answer", async (t) => {
  for (const [status, name, value] of [
    [200, "transfer-encoding", "chunked"],
    [200, "connection", "upgrade"],
    [200, "content-length", "-1"],
    [200, "x-evil", "a\r\nb: c"],
    [101, "x", "y"],
  ] as const) {
    const source = whole("12345");
    const { port, logged } = await relaying(t, () => relayed({ status, headers: { [name]: value }, source }, false));
    const answer = await exchange(port, POST);
    assert.match(answer, /^HTTP\/1\.1 500 /, name);
    assert.ok(!answer.includes("12345") && logged.some(({ message: says }) => says === "a bug ended a call"));
  }
});

test("a client that does not keep up stops the source, and resumes it when it reads on", async (t) => {
  const block = Buffer.alloc(64 * 1024, "x");
  let sent = 0;
  const pump = (target: RelayTarget): void => {
    while (sent < 400) {
      sent++;
      if (!target.write(block)) return;
    }
    target.end();
  };
  const source = new Script(pump);
  source.resume = () => {
    source.resumes++;
    if (source.target !== undefined) pump(source.target);
  };
  const { port } = await relaying(t, () =>
    relayed({ status: 200, headers: { "content-length": String(400 * block.length) }, source }, false),
  );
  const socket = dial(port);
  socket.pause();
  socket.write(POST);
  await until(() => sent > 0, "the first block");
  await new Promise((resolve) => setTimeout(resolve, 100));
  assert.ok(sent < 400, "the source was not stopped");
  let bytes = 0;
  socket.on("data", (data) => {
    bytes += data.length;
  });
  socket.resume();
  await closed(socket);
  assert.ok(bytes > 400 * block.length);
  assert.ok(source.resumes > 0);
  assert.equal(source.cancels, 0);
});

test("a client that takes nothing is cut, and the source hears of it", async (t) => {
  const frame = Buffer.from(`data: ${"x".repeat(60_000)}\n\n`);
  const source = new Script((target) => {
    while (target.write(frame));
  });
  source.resume = () => {
    while (source.target?.write(frame) === true);
  };
  const { port, http } = await relaying(t, () => stream(source), { options: { stallTimeoutMs: 100 } });
  const socket = dial(port);
  socket.pause();
  socket.write(POST);
  await until(() => source.cancels === 1, "the cancellation");
  socket.destroy();
  await until(() => http.counters().sockets === 0, "the end of the connection");
  assert.deepEqual(http.counters(), { sockets: 0, calls: 0, handlers: 0, timers: 0 });
});

test("a client that leaves: the source hears of it, also when the answer has not begun", async (t) => {
  for (const first of ["data: 1\n\n", ""]) {
    const source = new Script((target) => void (first === "" || give(target, first)));
    const { port, http, records } = await relaying(t, () => stream(source));
    const socket = dial(port);
    socket.write(POST);
    if (first !== "") await once(socket, "data");
    await until(() => source.target !== undefined, "the source");
    socket.destroy();
    await until(() => source.cancels === 1, "the cancellation");
    await until(() => records.length === 1, "the end of the call");
    assert.equal(records[0]?.fault, "cancelled");
    assert.deepEqual(http.counters(), { sockets: 0, calls: 0, handlers: 0, timers: 0 });
  }
});

test("a client that leaves while the relay decides: it is told, and a late answer is cancelled", async (t) => {
  const source = new Script();
  let reason: string | undefined;
  let decide: (answer: RelayAnswer<Services>) => void = () => {};
  const { port, asked } = await relaying(t, (request) => {
    request.onAbort(({ kind }) => {
      reason = kind;
    });
    return new Promise((resolve) => {
      decide = resolve;
    });
  });
  const socket = dial(port);
  socket.write(POST);
  await until(() => asked.length === 1, "the question");
  socket.destroy();
  await until(() => reason !== undefined, "the reason");
  assert.equal(reason, "cancelled");
  assert.ok(asked[0]?.signal.aborted);
  decide(stream(source));
  await until(() => source.cancels === 1, "the cancellation");
  assert.equal(source.target, undefined);
});

test("the route's time ends a relayed answer, too", async (t) => {
  const source = new Script((target) => void give(target, "data: 1\n\n"));
  const { port } = await relaying(t, () => stream(source), { options: { maxTimeoutMs: 100 } });
  assert.match(await exchange(port, POST), /data: 1\n\n[\s\S]*"request_timeout"[\s\S]*\r\n0\r\n\r\n$/);
  assert.equal(source.cancels, 1);
});

test("the server's end ends streams with an event", async (t) => {
  const source = new Script((target) => void give(target, "data: 1\n\n"));
  const { port, http } = await relaying(t, () => stream(source));
  const answer = exchange(port, POST);
  await until(() => source.target !== undefined, "the source");
  await http.close(0);
  assert.match(await answer, /data: 1\n\n[\s\S]*"draining"/);
  assert.equal(source.cancels, 1);
});

test("a silent stream gets comments, and none inside of a frame", async (t) => {
  const source = new Script((target) => void give(target, "data: 1\n\n"));
  const { port } = await relaying(t, () => stream(source), { options: { sseKeepAliveMs: 10 } });
  const socket = dial(port);
  let answer = "";
  socket.on("data", (bytes) => {
    answer += bytes;
  });
  socket.write(POST);
  await until(() => answer.includes(": keep-alive\n\n"), "a comment");
  // Too long to be held: from here on the stream is inside of a frame.
  source.target?.write(Buffer.alloc(70_000, "x"));
  const counted = (): number => answer.split(": keep-alive").length;
  await until(() => answer.length > 70_000, "the piece");
  const before = counted();
  await new Promise((resolve) => setTimeout(resolve, 60));
  assert.equal(counted(), before);
  if (source.target !== undefined) give(source.target, "\n\n");
  await until(() => counted() > before, "another comment");
  socket.destroy();
});

test("what is said is tapped", async (t) => {
  const said: string[] = [];
  const { port } = await relaying(t, () => stream(whole("data: 1\n\n")), {
    gate: (gate) => ({
      ...gate,
      open: (call) => ({
        ...gate.open(call),
        content: (part, piece) => void said.push(`${part} ${Buffer.from(piece).toString()}`),
      }),
    }),
  });
  await exchange(port, POST);
  assert.deepEqual(said, [`request ${payload}`, "answer data: 1\n\n"]);
});

const openai = plainDialect("openai");
const terms = {
  method: "POST",
  dialect: openai,
  plane: "public",
  limits: { bodyBytes: 1000, timeoutMs: 1000 },
  body: z.looseObject({ n: z.number() }),
  reply: [],
  audit: "none",
  doc: "",
} as const;
const define = defineRoute<Services>();
const embed = define({ ...terms, path: "/embed", access: key("embeddings"), handler: () => json({ by: "embed" }) });
const secret = define({ ...terms, path: "/secret", access: key("ops"), handler: () => json({ by: "secret" }) });
const invoke = define({
  ...terms,
  path: "/invoke",
  access: key("inference"),
  body: z.looseObject({}),
  forwardsTo: [embed, secret],
  handler: () => json({ by: "invoke" }),
});
const routes = [embed, secret, invoke];

test("a route that leads to others: the target's declaration decides, and the record names both", async (t) => {
  const outcomes: (string | undefined)[] = [];
  const gate: RigOptions["gate"] = (inner) => ({
    ...inner,
    open: (call) => ({ ...inner.open(call), close: ({ target }) => void outcomes.push(target) }),
  });
  const answer = (request: RelayRequest<Services>): RelayAnswer<Services> =>
    request.route !== invoke
      ? unary(whole(`{"scope":"${request.caller.scope}","by":"${request.askedBy}"}`), 37)
      : { kind: "forward", to: request.body?.includes("secret") === true ? secret : embed };
  const { http } = await relaying(t, answer, { routes, role: "user", gate, wants: () => true });
  const ask = (body: string) => http.inject("public", { method: "POST", url: "/invoke", headers, payload: body });
  const embedded = await ask("{}");
  assert.deepEqual(embedded.json(), { scope: "embeddings", by: "/invoke" });
  assert.equal((await ask('{"secret":1}')).statusCode, 403);
  assert.deepEqual(outcomes, ["/embed", "/secret"]);
});

test("a target that this server answers itself holds the body against its schema", async (t) => {
  const { http } = await relaying(t, () => ({ kind: "forward", to: embed }), {
    routes,
    wants: (one) => one === invoke,
  });
  const ask = (body: string) => http.inject("public", { method: "POST", url: "/invoke", headers, payload: body });
  assert.deepEqual((await ask('{"n":1}')).json(), { by: "embed" });
  assert.equal((await ask('{"n":"1"}')).statusCode, 400);
});

test("a target that was not declared is a bug", async (t) => {
  const { http, logged } = await relaying(t, () => ({ kind: "forward", to: invoke }), { routes, wants: () => true });
  const answer = await http.inject("public", { method: "POST", url: "/invoke", headers, payload: "{}" });
  assert.equal(answer.statusCode, 500);
  assert.match(String(logged[0]?.fields.stack), /may not forward/);
});

const { body: _, ...bare } = terms;
const upload = define({
  ...bare,
  path: "/upload",
  access: key("audio"),
  form: { fields: 2, fieldBytes: 100 },
  handler: async ({ form }) => {
    let size = 0;
    const fields = await form(async ({ content }) => {
      for await (const piece of content) size += piece.length;
    });
    return json({ model: fields.get("model"), size });
  },
});
const form = ["--b", 'Content-Disposition: form-data; name="model"', "", "m", "--b"];
const file = [...form, 'Content-Disposition: form-data; name="file"; filename="a"', "", "12345", "--b--", ""].join(
  "\r\n",
);

test("a form is passed on as its bytes, within the bounds of its parts together; or read by our handler", async (t) => {
  let own = false;
  const { http, asked } = await relaying(t, () => (own ? undefined : unary(whole("{}"), 2)), {
    routes: [upload],
    wants: () => true,
  });
  const type = "multipart/form-data; boundary=b";
  const ask = (body: string, contentType = type) =>
    http.inject("public", {
      method: "POST",
      url: "/upload",
      headers: { ...headers, "content-type": contentType },
      payload: body,
    });
  assert.equal((await ask(file)).statusCode, 200);
  assert.equal(asked[0]?.body?.toString(), file);
  assert.equal(asked[0]?.contentType, type);
  assert.equal((await ask(file, "application/json")).statusCode, 400);
  assert.equal((await ask("x".repeat(100_000))).statusCode, 413);
  assert.equal(asked.length, 1);
  own = true;
  assert.deepEqual((await ask(file)).json(), { model: "m", size: 5 });
});
