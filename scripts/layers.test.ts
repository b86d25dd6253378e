import assert from "node:assert/strict";
import { test } from "node:test";
import { checkLayers } from "./layers.ts";

const header = "/** What it is. */\n";
const breaches = (path: string, text: string): string[] =>
  checkLayers([{ path, text: header + text }]).map(({ message }) => message);

test("a check that saw no files fails", () => {
  assert.equal(checkLayers([]).length, 1);
});

test("imports go down only, by #area, and private files stay private", () => {
  assert.deepEqual(
    breaches("serving/chat.ts", 'import { a } from "#core/model.ts";\nimport { b } from "./merge.ts";'),
    [],
  );
  assert.match(breaches("core/a.ts", 'import { x } from "#http/route.ts";')[0] ?? "", /go down only/);
  assert.match(breaches("engine/a.ts", 'import { x } from "#wire/openai/caps.ts";')[0] ?? "", /blind/);
  assert.match(breaches("http/a.ts", 'import { x } from "#serving/chat.ts";')[0] ?? "", /arrive as values/);
  assert.match(breaches("serving/a.ts", 'import { x } from "#config/settings.ts";')[0] ?? "", /settings/);
  assert.match(breaches("app/a.ts", 'import { x } from "#http/_body.ts";')[0] ?? "", /private/);
  assert.match(breaches("app/a.ts", 'import { x } from "../http/route.ts";')[0] ?? "", /not used/);
});

test("fenced modules and words stay where they belong", () => {
  assert.match(breaches("serving/a.ts", 'import net from "node:net";')[0] ?? "", /sockets/);
  assert.match(breaches("policy/a.ts", 'import pg from "pg";')[0] ?? "", /databases/);
  assert.match(breaches("app/a.ts", 'import { spawn } from "node:child_process";')[0] ?? "", /launchers/);
  assert.match(breaches("serving/a.ts", "const x = JSON.parse(text);")[0] ?? "", /one JSON reader/);
  assert.match(breaches("app/a.ts", "const x = process.env;")[0] ?? "", /environment/);
  assert.match(breaches("http/a.ts", "return value as Grant<S>;")[0] ?? "", /authorize/);
  assert.deepEqual(breaches("serving/a.ts", "// JSON.parse( is for base\nconst a = 1;"), []);
});

test("nobody but the guard opens a connection or asks for a name", () => {
  for (const [path, line] of [
    ["serving/a.ts", 'import { lookup } from "node:dns/promises";'],
    ["serving/a.ts", 'const net = await import("node:net");'],
    ["serving/a.ts", 'const http = require("http"); import x from "http";'],
    ["app/a.ts", 'import { Agent } from "undici";'],
    ["app/a.ts", 'import WebSocket from "ws";'],
    ["app/a.ts", "const socket = new WebSocket(url);"],
    ["app/a.ts", "const answer = await fetch(url);"],
    ["policy/a.ts", "const keys = createRemoteJWKSet(url);"],
    ["integrity/a.ts", 'import { listFiles } from "@huggingface/hub";'],
    ["http/a.ts", 'import { request } from "node:http";'],
    ["http/a.ts", 'import { createServer, get } from "node:https";'],
    ["http/a.ts", 'import net from "node:net";'],
    ["http/a.ts", 'import * as tls from "node:tls";'],
    ["egress/hub.ts", 'import { connect } from "node:tls";'],
    ["egress/media/a.ts", 'import { resolve4 } from "node:dns/promises";'],
  ] as const)
    assert.ok(breaches(path, line).length > 0, `${path}: ${line}`);
  for (const [path, line] of [
    ["http/a.ts", 'import type { Agent, Server } from "node:http";'],
    ["http/a.ts", 'import { createServer, type Agent } from "node:http";'],
    ["egress/_dial.ts", 'import { connect } from "node:net";'],
    ["egress/fetch.ts", 'import { Agent } from "undici";'],
    ["egress/addresses.ts", 'import { isIP } from "node:net";'],
    ["app/a.ts", 'import { request } from "./a.ts";'],
  ] as const)
    assert.deepEqual(breaches(path, line), [], `${path}: ${line}`);
});

test("no text becomes code", () => {
  for (const line of [
    "const x = eval(text);",
    "const x = Function(text)();",
    "const x = new Function(text);",
    'import { runInNewContext } from "node:vm";',
    'const vm = require("vm");',
    "const x = await import(name);",
  ])
    assert.match(breaches("serving/a.ts", line)[0] ?? "", /becomes code/, line);
  for (const line of ['const x = await import("./a.ts");', "type F = Function;", "evaluate(x);", "this.eval(x);"])
    assert.deepEqual(breaches("serving/a.ts", line), [], line);
});

test("a file has a header and a name of its own", () => {
  assert.match(checkLayers([{ path: "core/a.ts", text: "export const a = 1;" }])[0]?.message ?? "", /opens with/);
  assert.match(breaches("core/utils.ts", "")[0] ?? "", /named after/);
});
