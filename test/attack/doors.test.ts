/**
 * Without a key nothing answers but the open list: every route, method, spelling and target form that could make two
 * readers disagree, over a real socket.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { METHODS, spellings } from "#test/attack/spellings.ts";
import { AUTH, exchange, message, ROUTES, rig, statusOf } from "#test/http/harness.ts";

test("no spelling of any route is handled without a key; with a key only the literal path is", async (t) => {
  const { port, services } = await rig(t);
  const guarded = ROUTES.filter((route) => route.access.kind === "key");
  for (const { method, path } of guarded) {
    for (const target of [path, `${path}?x=/health`, `${path}?`, `${path}?/health`, ...spellings(path)]) {
      const status = statusOf(await exchange(port, message(`${method} ${target}`)));
      assert.ok([400, 401].includes(status), `${method} ${target}: ${status}`);
    }
  }
  assert.deepEqual(services.handled, []);
  for (const { method, path } of guarded) {
    for (const target of spellings(path)) {
      const answer = await exchange(port, message(`${method} ${target}`, [AUTH]));
      assert.ok([400, 404, 405].includes(statusOf(answer)), `${method} ${target}: ${statusOf(answer)}`);
    }
  }
  assert.deepEqual(services.handled, []);
});

test("without a key every method on every path is 401, but GET on the open path", async (t) => {
  const { port, services } = await rig(t);
  const paths = [
    ...new Set(ROUTES.map((route) => route.path)),
    "/",
    "/v1",
    "/docs",
    "/openapi.json",
    "/metrics",
    "/favicon.ico",
    "/.env",
    "/nowhere",
    "/ops/pause",
    "/server_info",
  ];
  for (const path of paths) {
    for (const method of METHODS) {
      const status = statusOf(await exchange(port, message(`${method} ${path}`)));
      const expected = method === "GET" && path === "/health" ? 200 : 401;
      assert.equal(status, expected, `${method} ${path}`);
    }
  }
  assert.deepEqual(services.handled, ["health"]);
});

test("headers that rewrite a request elsewhere do nothing here", async (t) => {
  const { port, services } = await rig(t);
  const tricks = [
    "X-Original-URL: /health",
    "X-Rewrite-URL: /health",
    "X-Forwarded-Host: localhost",
    "X-Forwarded-For: 127.0.0.1",
    "X-Real-IP: 127.0.0.1",
    "Forwarded: for=127.0.0.1",
    "X-HTTP-Method-Override: GET",
    "X-Method-Override: GET",
    "X-Forwarded-Prefix: /health",
    "Referer: http://x/health",
    "X-Accel-Redirect: /health",
    "X-Forwarded-User: admin",
    "X-Remote-User: admin",
    "Cookie: api_key=test-key",
    "Proxy-Authorization: Bearer test-key",
    "X-Authorization: Bearer test-key",
    "api-key: test-key",
    "Authorization: Basic dGVzdC1rZXk6",
    "Authorization: test-key",
    "Authorization: Bearer",
    "Authorization: Bearer test-key, Bearer test-key",
    "Authorization : Bearer test-key",
    "Authorization: Bearer test-key\r\nAuthorization: Bearer test-key",
    "authorization: Bearer x\r\nAuthorization: Bearer test-key",
    "Authorization: Bearer  test-key",
    "Authorization: Bearer test-key x",
    "Authorization: Bearer\ttest-key",
    "Authorization: Bearer\u00a0test-key",
    "Authorization:\r\n Bearer test-key",
    "X: y\r\n Authorization: Bearer test-key",
    "X: y\nAuthorization: Bearer x",
    "x-api-key: test-key",
  ];
  for (const trick of tricks) {
    for (const target of ["/v1/models", "/v1/models?key=test-key&api_key=test-key&access_token=test-key", "/nowhere"]) {
      const status = statusOf(await exchange(port, Buffer.from(message(`GET ${target}`, [trick]), "latin1")));
      assert.ok([400, 401].includes(status), `${trick} ${target}: ${status}`);
    }
  }
  const hosts = [
    "x/health?",
    "x/health#",
    "/health",
    "x/../health",
    "127.0.0.1:8000/health",
    "[::1]",
    "x@y",
    "a b",
    "",
  ];
  for (const host of hosts) {
    const status = statusOf(
      await exchange(port, `GET /v1/models HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`),
    );
    assert.ok([400, 401].includes(status), `Host ${host}: ${status}`);
  }
  assert.deepEqual(services.handled, []);
});

test("ambiguous framing is refused and hides no second request", async (t) => {
  const { port, services } = await rig(t);
  const hidden = `GET /v1/models HTTP/1.1\r\nHost: x\r\n${AUTH}\r\n\r\n`;
  const framings = [
    `Content-Length: 0\r\nContent-Length: ${hidden.length}`,
    `Content-Length: ${hidden.length}\r\nContent-Length: 0`,
    "Content-Length: 0\r\nContent-Length: 0",
    "Content-Length: 0, 0",
    "Content-Length: +0",
    "Content-Length: -1",
    "Content-Length: 0x0",
    "Content-Length: 0 0",
    "Content-Length: 00000000000000000000000000000000x",
    "Content-Length: 99999999999999999999",
    "Content-Length:",
    `Content-Length: ${hidden.length}\r\nTransfer-Encoding: chunked`,
    "Transfer-Encoding: chunked\r\nContent-Length: 0",
    "Transfer-Encoding: identity",
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: gzip, chunked, x",
    "Transfer-Encoding: x",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    "Content-Length: 0\rTransfer-Encoding: chunked",
    "Content-Length: 0\nX: y",
    "X\0: y",
    "X: \0",
    "X y: z",
    ": y",
  ];
  for (const framing of framings) {
    const answer = await exchange(
      port,
      `POST /v1/chat HTTP/1.1\r\nHost: x\r\n${AUTH}\r\nContent-Type: application/json\r\n${framing}\r\n\r\n${hidden}`,
    );
    assert.equal(statusOf(answer), 400, framing);
  }
  assert.deepEqual(services.handled, []);
});
