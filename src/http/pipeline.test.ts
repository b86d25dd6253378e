import assert from "node:assert/strict";
import { test } from "node:test";
import { Fault } from "#core/fault.ts";
import { AUTH, exchange, KEY, message, ROUTES, rig, statusOf } from "#test/http/harness.ts";
import { events, json, text } from "./reply.ts";

const headers = { authorization: `Bearer ${KEY}`, "content-type": "application/json" };
const good = JSON.stringify({ messages: ["hi"] });

/** A stream that fails before its first frame. */
async function* failing(error: Error): AsyncGenerator<string> {
  yield* [];
  throw error;
}

test("a call walks through: body decoded, reply printed, settled once", async (t) => {
  const { http, records, logged } = await rig(t);
  const answer = await http.inject("public", { method: "POST", url: "/v1/chat", headers, payload: good });
  assert.equal(answer.statusCode, 200);
  assert.deepEqual(answer.json(), { messages: ["hi"] });
  assert.equal(answer.headers["content-type"], "application/json");
  assert.equal(answer.headers["content-length"], String(answer.rawPayload.length));
  assert.equal(answer.headers["x-content-type-options"], "nosniff");
  assert.equal(answer.headers["cache-control"], "no-store");
  for (const name of ["server", "x-powered-by", "access-control-allow-origin", "x-request-id"])
    assert.equal(answer.headers[name], undefined, name);
  assert.equal(records.length, 1);
  const { milliseconds, requestId, ...record } = records[0] as (typeof records)[number];
  assert.deepEqual(record, {
    route: "/v1/chat",
    method: "POST",
    status: 200,
    fault: undefined,
    principal: "key_1",
    requestBytes: good.length,
    responseBytes: answer.rawPayload.length,
  });
  assert.ok(milliseconds > 0 && /^[0-9a-f]{32}$/.test(requestId));
  assert.equal(logged.filter(({ message: name }) => name === "call").length, 1);
  assert.deepEqual(http.counters(), { sockets: 0, calls: 0, handlers: 0, timers: 0 });
});

test("bodies that are not taken: 400 with the field, and the handler never runs", async (t) => {
  const { http, services } = await rig(t);
  const cases: [payload: string, kind: string, param: string | null, says: RegExp][] = [
    ["", "invalid_json", null, /no body/],
    ["{", "invalid_json", null, /at character 1/],
    ['{"messages":["a"],"messages":[]}', "invalid_json", "messages", /twice/],
    ['{"messages":[],"n":1e999}', "invalid_json", "n", /out of range/],
    ['{"messages":[],"n":NaN}', "invalid_json", "n", /not a JSON value/],
    ['{"messages":[],"__proto__":{"n":1}}', "invalid_json", "__proto__", /not allowed/],
    ['{"messages":["\\ud800"]}', "invalid_json", "messages.0", /surrogate/],
    ["[".repeat(99_000), "invalid_json", /^0(\.0)*…?$/ as never, /deeper than 64/],
    ["null", "invalid_request", null, /expected object/],
    ["{}", "invalid_request", "messages", /^messages: .*expected array/],
    [
      '{"messages":[{"role":"robot","content":"x"}]}',
      "invalid_request",
      "messages.0.role",
      /^messages\.0\.role: .*\(input: "robot"\)$/,
    ],
    ['{"messages":[{"role":"user","content":""}]}', "invalid_request", "messages.0.content", /content/],
    ['{"messages":[],"n":1.5}', "invalid_request", "n", /\(input: 1\.5\)/],
    ['{"messages":[],"n":9007199254740993}', "invalid_request", "n", /n/],
  ];
  for (const [payload, kind, param, says] of cases) {
    const answer = await http.inject("public", { method: "POST", url: "/v1/chat", headers, payload });
    const label = payload.slice(0, 60);
    assert.equal(answer.statusCode, 400, label);
    const { error } = answer.json() as { error: { kind: string; param: string | null; message: string } };
    assert.equal(error.kind, kind, label);
    if ((param as unknown) instanceof RegExp) assert.match(error.param ?? "", param as never);
    else assert.equal(error.param, param, label);
    assert.match(error.message, says, label);
    assert.ok(error.message.length <= 1100, label);
  }
  assert.deepEqual(services.handled, []);
});

test("problems: at most ten, each cut, input echoed at most 200 characters", async (t) => {
  const { http } = await rig(t);
  const many = JSON.stringify({
    messages: Array.from({ length: 50 }, () => ({ role: "r".repeat(600), content: "x" })),
  });
  const answer = await http.inject("public", { method: "POST", url: "/v1/chat", headers, payload: many });
  const lines = (answer.json() as { error: { message: string } }).error.message.split("; ");
  assert.equal(lines.length, 11);
  assert.equal(lines[10], "and 40 more");
  assert.ok(lines.every((line) => line.length <= 1000));
  assert.ok(!(lines[0] ?? "").includes("r".repeat(201)));
});

test("content types and encodings", async (t) => {
  const { http } = await rig(t);
  const post = async (type: string | undefined, more: Record<string, string> = {}): Promise<number> => {
    const { "content-type": _, ...rest } = headers;
    const answer = await http.inject("public", {
      method: "POST",
      url: "/v1/chat",
      headers: { ...rest, ...(type === undefined ? {} : { "content-type": type }), ...more },
      payload: Buffer.from(good),
    });
    return answer.statusCode;
  };
  for (const type of [
    "application/json",
    "application/json; charset=utf-8",
    "Application/JSON;charset=UTF-8",
    "application/json ;x",
  ])
    assert.equal(await post(type), 200, type);
  for (const type of [
    undefined,
    "",
    "text/plain",
    "application/jsonx",
    "text/json",
    "application/json, text/plain",
    "multipart/form-data",
    "application/x-www-form-urlencoded",
    "*/*",
  ]) {
    assert.equal(await post(type), 400, String(type));
  }
  assert.equal(await post("application/json", { "content-encoding": "identity" }), 200);
  for (const coding of ["gzip", "br", "identity, gzip", ""])
    assert.equal(await post("application/json", { "content-encoding": coding }), 400, coding);
});

test("queries: decoded by the schema, duplicates and bad values refused, none wanted: ignored", async (t) => {
  const { http } = await rig(t);
  const get = (url: string) => http.inject("public", { method: "GET", url, headers });
  assert.deepEqual((await get("/v1/models?limit=3")).json(), { limit: 3 });
  assert.deepEqual((await get("/v1/models")).json(), {});
  assert.equal((await get("/v1/models?limit=99")).statusCode, 400);
  assert.equal((await get("/v1/models?limit=1&limit=2")).statusCode, 400);
  assert.equal((await get("/v1/models?__proto__=1&%=%&x=%ff")).statusCode, 200);
  assert.equal((await get("/health?x=1&x=2")).statusCode, 200);
});

test("keys: 401 with WWW-Authenticate, 403 without the scope, x-api-key on anthropic routes only", async (t) => {
  const { http, services } = await rig(t, { role: "auditor" });
  const nobody = await http.inject("public", { method: "GET", url: "/v1/models" });
  assert.equal(nobody.statusCode, 401);
  assert.equal(nobody.headers["www-authenticate"], "Bearer");
  assert.equal((await http.inject("public", { method: "GET", url: "/v1/models", headers })).statusCode, 200);
  assert.equal(
    (await http.inject("public", { method: "POST", url: "/v1/chat", headers, payload: good })).statusCode,
    403,
  );
  const bare = { "x-api-key": KEY, "content-type": "application/json" };
  assert.equal(
    (await http.inject("public", { method: "POST", url: "/v1/chat", headers: bare, payload: good })).statusCode,
    401,
  );
  assert.equal(
    (await http.inject("public", { method: "POST", url: "/v1/messages", headers: bare, payload: "{}" })).statusCode,
    403,
  );
  assert.deepEqual(services.handled, ["models"]);
});

test("405 with Allow and 404 come after the key; the other plane's paths are not there", async (t) => {
  const { http } = await rig(t);
  const ask = (
    plane: "public" | "ops",
    method: "GET" | "PUT" | "POST" | "DELETE" | "HEAD" | "OPTIONS",
    url: string,
    key = true,
  ) => http.inject(plane, { method, url, headers: key ? headers : {} });
  for (const method of ["PUT", "POST", "HEAD", "OPTIONS", "DELETE"] as const) {
    assert.equal((await ask("public", method, "/v1/models", false)).statusCode, 401, method);
    const answer = await ask("public", method, "/v1/models");
    assert.equal(answer.statusCode, 405, method);
    assert.equal(answer.headers.allow, "GET");
  }
  assert.equal((await ask("ops", "PUT", "/v1/models")).headers.allow, "GET, DELETE");
  assert.equal((await ask("public", "HEAD", "/health", false)).statusCode, 401);
  assert.equal((await ask("public", "GET", "/nowhere", false)).statusCode, 401);
  assert.equal((await ask("public", "GET", "/nowhere")).statusCode, 404);
  assert.equal((await ask("public", "POST", "/ops/pause")).statusCode, 404);
  assert.equal((await ask("ops", "POST", "/ops/pause")).statusCode, 200);
  assert.equal((await ask("ops", "POST", "/v1/chat")).statusCode, 404);
  const gone = await ask("ops", "DELETE", "/v1/models");
  assert.equal(gone.statusCode, 204);
  assert.equal(gone.headers["content-length"], undefined);
});

test("a bug is a 500 with the request id and nothing else; the log has the stack", async (t) => {
  const throws = [
    () => {
      throw new Error("secret-detail /root/x");
    },
    async () => {
      throw new TypeError("secret-detail");
    },
    () => json({ big: 1n }),
    () => events(failing(new Error("secret-detail"))),
    () => Promise.reject(undefined),
  ];
  for (const chat of throws) {
    const { http, logged, records } = await rig(t, { chat: chat as never });
    const answer = await http.inject("public", { method: "POST", url: "/v1/chat", headers, payload: good });
    assert.equal(answer.statusCode, 500);
    assert.ok(!answer.payload.includes("secret-detail"));
    assert.ok(answer.payload.includes(records[0]?.requestId ?? "?"));
    assert.ok(
      logged.some(({ message: name, fields }) => name === "a bug ended a call" && typeof fields.stack === "string"),
    );
    assert.equal(records[0]?.fault, "internal");
  }
});

test("a Fault keeps its kind, its param and its retry time; its detail stays in the log", async (t) => {
  const chat = () => {
    throw new Fault("rate_limited", "Slow down.", { param: "n", retryAfterMs: 1200, detail: "hidden" });
  };
  const { http, logged } = await rig(t, { chat });
  const answer = await http.inject("public", { method: "POST", url: "/v1/chat", headers, payload: good });
  assert.equal(answer.statusCode, 429);
  assert.equal(answer.headers["retry-after"], "2");
  assert.deepEqual(answer.json(), { error: { kind: "rate_limited", message: "Slow down.", param: "n" } });
  assert.ok(!answer.payload.includes("hidden"));
  assert.ok(logged.some(({ fields }) => fields.detail === "hidden"));
});

test("replies: text, events, and the handler's own headers", async (t) => {
  const post = async (chat: () => ReturnType<typeof json>) => {
    const { http } = await rig(t, { chat });
    return http.inject("public", { method: "POST", url: "/v1/chat", headers, payload: good });
  };
  const plain = await post(() => text("hello"));
  assert.deepEqual([plain.payload, plain.headers["content-type"]], ["hello", "text/plain; charset=utf-8"]);
  const stream = await post(() =>
    events(
      (async function* () {
        yield "data: 1\n\n";
        yield "data: 2\n\n";
      })(),
    ),
  );
  assert.equal(stream.payload, "data: 1\n\ndata: 2\n\n");
  assert.deepEqual(
    ["content-type", "cache-control", "x-accel-buffering"].map((name) => stream.headers[name]),
    ["text/event-stream; charset=utf-8", "no-store", "no"],
  );
  const nothing = await post(() => events((async function* () {})()));
  assert.deepEqual([nothing.statusCode, nothing.payload], [200, ""]);
  const own = await post(() => ({ kind: "json", body: {}, status: 202, headers: { "x-own": "1" } }));
  assert.deepEqual([own.statusCode, own.headers["x-own"]], [202, "1"]);
});

test("a stream that fails before its first frame has its real status, later a frame of the dialect", async (t) => {
  const early = await rig(t, {
    chat: () => events(failing(new Fault("engine_unavailable", "Not yet.", { retryAfterMs: 1 }))),
  });
  const first = await early.http.inject("public", { method: "POST", url: "/v1/chat", headers, payload: good });
  assert.deepEqual([first.statusCode, first.headers["retry-after"]], [503, "1"]);
  const late = await rig(t, {
    chat: () =>
      events(
        (async function* () {
          yield "data: 1\n\n";
          throw new Fault("engine_failed", "It died.");
        })(),
      ),
  });
  const second = await late.http.inject("public", { method: "POST", url: "/v1/chat", headers, payload: good });
  assert.equal(second.statusCode, 200);
  assert.equal(
    second.payload,
    'data: 1\n\ndata: {"error":{"kind":"engine_failed","message":"It died.","param":null}}\n\ndata: [DONE]\n\n',
  );
  assert.equal(late.records[0]?.fault, "engine_failed");
});

test("the request id: server-made unless the option is on and the client's is sound", async (t) => {
  const off = await rig(t);
  assert.equal(
    (
      await off.http.inject("public", {
        method: "GET",
        url: "/v1/models",
        headers: { ...headers, "x-request-id": "mine" },
      })
    ).headers["x-request-id"],
    undefined,
  );
  assert.notEqual(off.records[0]?.requestId, "mine");
  const on = await rig(t, { options: { requestIdHeader: true } });
  const ask = async (id: string) =>
    (await on.http.inject("public", { method: "GET", url: "/v1/models", headers: { ...headers, "x-request-id": id } }))
      .headers["x-request-id"];
  assert.equal(await ask("mine"), "mine");
  assert.equal(await ask("x".repeat(128)), "x".repeat(128));
  for (const bad of ["", "a b", "x".repeat(129), "é"]) assert.match(String(await ask(bad)), /^[0-9a-f]{32}$/, bad);
});

test("the cap on calls in flight: overloaded beyond it, open routes pass, room comes back", async (t) => {
  let letGo = (): void => {};
  const gate = new Promise<void>((resolve) => {
    letGo = resolve;
  });
  const { http, port } = await rig(t, {
    options: { maxInFlight: 2 },
    chat: async ({ body }) => {
      await gate;
      return json(body);
    },
  });
  const held = [1, 2].map(() => exchange(port, message("POST /v1/chat", [AUTH], good)));
  for (let i = 0; i < 1000 && http.counters().handlers < 2; i++) await new Promise(setImmediate);
  const third = await exchange(port, message("POST /v1/chat", [AUTH], good));
  assert.equal(statusOf(third), 503);
  assert.match(third, /retry-after: 1\r\n/i);
  assert.equal(statusOf(await exchange(port, message("GET /health"))), 200);
  letGo();
  assert.deepEqual((await Promise.all(held)).map(statusOf), [200, 200]);
  assert.equal(statusOf(await exchange(port, message("POST /v1/chat", [AUTH], good))), 200);
});

test("time limits end a handler that listens, and answer for one that does not", async (t) => {
  const quick = ROUTES.map((route) => route);
  const chat = ROUTES[0];
  assert.ok(chat !== undefined);
  const { defineRoute } = await import("./route.ts");
  quick[0] = defineRoute<never>()({ ...chat, limits: { bodyBytes: 1000, timeoutMs: 30 } } as never) as never;
  const seen: unknown[] = [];
  const deaf = await rig(t, {
    routes: quick,
    chat: ({ signal }) => {
      signal.addEventListener("abort", () => seen.push(signal.reason));
      return new Promise(() => {});
    },
  });
  const answer = await exchange(deaf.port, message("POST /v1/chat", [AUTH], good));
  assert.equal(statusOf(answer), 408);
  assert.ok(seen[0] instanceof Fault && seen[0].kind === "request_timeout");
  assert.equal(deaf.http.counters().handlers, 1, "a deaf handler stays visible");
  assert.equal(deaf.http.counters().calls, 0);
  const stream = await rig(t, {
    routes: quick,
    chat: ({ signal }) =>
      events(
        (async function* () {
          yield "data: 1\n\n";
          await new Promise((_, reject) => signal.addEventListener("abort", () => reject(new Error("stop"))));
        })(),
      ),
  });
  const frames = await exchange(stream.port, message("POST /v1/chat", [AUTH], good));
  assert.match(frames, /data: 1\n\n[\s\S]*request_timeout[\s\S]*\[DONE\]/);
  assert.deepEqual({ ...stream.http.counters(), sockets: 0 }, { sockets: 0, calls: 0, handlers: 0, timers: 0 });
});
