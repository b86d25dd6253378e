/**
 * Forms at the corridor: what is taken, and that every bound holds, whatever is sent and however it is cut.
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import { connect } from "node:net";
import { type TestContext, test } from "node:test";
import { key } from "#http/access.ts";
import type { HttpOptions } from "#http/options.ts";
import { json } from "#http/reply.ts";
import { defineRoute } from "#http/route.ts";
import { createHttp } from "#http/server.ts";
import { plainGate } from "#policy/gate.ts";
import { principalOf } from "#policy/roles.ts";
import { AUTH, exchange, plainDialect, statusOf } from "./harness.ts";

const FILE = 1000;
const dialect = plainDialect("openai");

interface Seen {
  readonly services: { files: { field: string; name: string; text: string }[] };
}

async function server(t: TestContext, options: Partial<HttpOptions> = {}) {
  const services: Seen["services"] = { files: [] };
  const upload = defineRoute<Seen["services"]>()({
    method: "POST",
    path: "/upload",
    dialect,
    access: key("batch"),
    plane: "public",
    limits: { bodyBytes: FILE, timeoutMs: 5000 },
    form: { fields: 2, fieldBytes: 10 },
    reply: [{ status: 200, contentType: "application/json", doc: "" }],
    audit: "none",
    doc: "",
    handler: async ({ form, services: { files } }) => {
      const fields = await form(async ({ field, name, content }) => {
        const pieces: Uint8Array[] = [];
        for await (const piece of content) pieces.push(piece);
        files.push({ field, name, text: Buffer.concat(pieces).toString() });
      });
      return json({ fields: Object.fromEntries(fields) });
    },
  });
  const identify = () => principalOf({ id: "k", tenant: "t", role: "user" });
  const http = await createHttp({ routes: [upload], services, gate: plainGate(identify), dialect, options });
  t.after(() => http.close(0));
  const address = await http.listen("public", { host: "127.0.0.1", port: 0 });
  const port = "port" in address ? address.port : 0;
  const send = (body: string, headers: readonly string[] = ['Content-Type: multipart/form-data; boundary="b"']) => {
    const head = ["POST /upload HTTP/1.1", "Host: a", AUTH, "Connection: close", ...headers];
    return exchange(port, `${[...head, `Content-Length: ${Buffer.byteLength(body)}`].join("\r\n")}\r\n\r\n${body}`);
  };
  return { http, services, send };
}

const part = (head: string, content: string): string =>
  `--b\r\nContent-Disposition: form-data; ${head}\r\n\r\n${content}\r\n`;
const field = (name: string, value: string): string => part(`name="${name}"`, value);
const file = (content: string, name = "a.jsonl"): string => part(`name="file"; filename="${name}"`, content);
const END = "--b--\r\n";

test("fields and a file, in any order; a file of just the size that is taken", async (t) => {
  const { services, send } = await server(t);
  const whole = "x".repeat(FILE);
  for (const body of [file(whole) + field("p", "batch"), field("p", "batch") + file(whole, "../../etc/a\\b")]) {
    const answer = await send(body + END);
    assert.equal(statusOf(answer), 200, answer);
    assert.ok(answer.endsWith('{"fields":{"p":"batch"}}'), answer);
  }
  assert.deepEqual(
    services.files.map(({ field: name, name: called, text }) => [name, called, text.length]),
    [
      ["file", "a.jsonl", FILE],
      ["file", "b", FILE],
    ],
  );
  assert.equal(statusOf(await send(field("p", "1") + END)), 200, "a form without a file");
});

test("a body in many pieces leaves nothing behind for each of them", async (t) => {
  const { http } = await server(t);
  const address = await http.listen("public", { host: "127.0.0.1", port: 0 });
  // One that waits for the whole form at each piece is kept until the form has ended.
  const races = t.mock.method(Promise, "race");
  const body = Buffer.from(file("x".repeat(60)) + END);
  const socket = connect("port" in address ? address.port : 0, "127.0.0.1").setNoDelay();
  const head = ["POST /upload HTTP/1.1", "Host: a", AUTH, "Connection: close"];
  head.push('Content-Type: multipart/form-data; boundary="b"', `Content-Length: ${body.length}`);
  socket.write(`${head.join("\r\n")}\r\n\r\n`);
  for (const byte of body) {
    socket.write(Buffer.of(byte));
    await new Promise((done) => setTimeout(done, 1));
  }
  const [answer] = (await once(socket, "data")) as [Buffer];
  assert.equal(statusOf(answer.toString()), 200);
  assert.ok(races.mock.callCount() < 10, `${races.mock.callCount()} races`);
});

test("a part that does not say what it is, or not in so many bytes, is no field", async (t) => {
  const { send } = await server(t);
  for (const head of ["", "X: y\r\n", `X: ${"y".repeat(10_000)}\r\nContent-Disposition: form-data; name="a"\r\n`]) {
    const answer = await send(`--b\r\n${head}\r\nx\r\n${END}`);
    assert.ok(answer.endsWith('{"fields":{}}'), answer);
  }
});

const REFUSED: readonly (readonly [string, number, string])[] = [
  ["a larger file", 413, file("x".repeat(FILE + 1)) + END],
  ["two files", 400, file("a") + file("b") + END],
  ["too many fields", 400, field("a", "1") + field("b", "1") + field("c", "1") + END],
  ["a field twice", 400, field("a", "1") + field("a", "2") + END],
  ["a long field", 400, field("a", "x".repeat(11)) + END],
  ["a long name", 400, field("a".repeat(101), "1") + END],
  ["no name", 400, part("nothing", "1") + END],
  ["a form that does not end", 400, file("a")],
  ["a file that does not end", 400, '--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nabc'],
  ["no form at all", 400, "hello"],
  ["many small parts", 400, "--b\r\n\r\n\r\n".repeat(2000) + END],
  ["a longer body than any form has", 413, "x".repeat(200_000)],
];
for (const [what, status, body] of REFUSED)
  test(`refused: ${what}`, async (t) => {
    const { http, send } = await server(t);
    const answer = await send(body);
    assert.equal(statusOf(answer), status, answer);
    const { handlers, calls, timers } = http.counters();
    assert.deepEqual({ handlers, calls, timers }, { handlers: 0, calls: 0, timers: 0 });
  });

for (const type of [
  "application/json",
  "multipart/form-data",
  "multipart/mixed; boundary=b",
  "multipart/form-data; boundary=",
  `multipart/form-data; boundary=${"b".repeat(71)}`,
  "multipart/form-data; boundary=b; boundary=c",
])
  test(`refused: the type ${type.slice(0, 60)}`, async (t) => {
    const { send } = await server(t);
    assert.equal(statusOf(await send(file("a") + END, [`Content-Type: ${type}`])), 400);
  });

test("a form in a body with an encoding, and none at all, are refused; the server goes on", async (t) => {
  const { send } = await server(t);
  const type = "Content-Type: multipart/form-data; boundary=b";
  assert.equal(statusOf(await send(file("a") + END, [type, "Content-Encoding: gzip"])), 400);
  assert.equal(statusOf(await send("", [type])), 400);
  assert.equal(statusOf(await send(file("a") + END, [type])), 200);
});

test("the operator's bound lowers the route's", async (t) => {
  const { send } = await server(t, { maxUploadBytes: 100 });
  assert.equal(statusOf(await send(file("x".repeat(101)) + END)), 413);
  assert.equal(statusOf(await send(file("x".repeat(100)) + END)), 200);
});
