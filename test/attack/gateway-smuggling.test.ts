/**
 * One request in, at most one request out: public collections of broken and hostile HTTP at a gateway's own socket, with
 * a server behind it that keeps every byte.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { closed, dial, exchange, message, statusOf } from "#test/http/harness.ts";
import {
  inBatches,
  isOtherHeader,
  type LlhttpCase,
  llhttpCases,
  sentBy,
  smugglerMutations,
} from "../fixtures/http-corpora.ts";
import {
  completion,
  gatewayBefore,
  type RecordingUpstream,
  recordingUpstream,
  UPSTREAM_KEY,
} from "../fixtures/recording-upstream.ts";
import { TEST_KEY, type TestServer } from "../harness.ts";

const AUTH = `Authorization: Bearer ${TEST_KEY}`;
let upstream: RecordingUpstream;
let gateway: TestServer;

before(async () => {
  upstream = await recordingUpstream(({ socket }) => socket.write(completion()));
  gateway = await gatewayBefore(upstream);
});
after(async () => {
  await gateway.stop();
  await upstream.close();
});

const bodyOf = (prompt: string): string => `{"model":"outside","prompt":"${prompt}"}`;

/** @param prompt tells calls apart @param header a line of its own */
function post(prompt: string, header = "X: y", length = `Content-Length: ${bodyOf(prompt).length}\r\n`): string {
  return `${start(header, length)}${bodyOf(prompt)}`;
}

function start(header: string, length: string): string {
  return `POST /v1/completions HTTP/1.1\r\nHost: x\r\n${AUTH}\r\nContent-Type: application/json\r\n${length}${header}\r\n\r\n`;
}

/** The prompts that arrived since the last look, after checking every byte of what did. */
function arrived(): string[] {
  const prompts = upstream.calls.splice(0).map(({ head, body }) => {
    const shape = new RegExp(
      `^POST /v1/completions HTTP/1\\.1\r\nhost: 127\\.0\\.0\\.1:${upstream.port}\r\nconnection: keep-alive\r\n` +
        `accept-encoding: identity\r\ncontent-type: application/json\r\nx-request-id: ([0-9a-f]{32})\r\n` +
        `authorization: Bearer ${UPSTREAM_KEY}\r\ncontent-length: ${body.length}\r\n\r\n$`,
    );
    const id = shape.exec(head)?.[1] ?? assert.fail(head);
    const salt = /^\{"cache_salt":"([A-Za-z0-9_-]{43})"/.exec(body.toString())?.[1] ?? assert.fail(body.toString());
    const prompt = /"prompt":"([^"]*)"\}$/.exec(body.toString())?.[1] ?? assert.fail(body.toString());
    assert.equal(
      body.toString(),
      `{"cache_salt":"${salt}","request_id":"${id}","model":"inside","prompt":"${prompt}"}`,
    );
    return prompt;
  });
  for (const socket of upstream.sockets) {
    const whole = upstream.requests.filter((turn) => turn.socket === socket);
    const bytes = whole.reduce((sum, { head, body }) => sum + head.length + body.length, 0);
    assert.equal(socket.bytesRead, bytes, "bytes that are no request arrived");
  }
  return prompts.sort();
}

const LAST = message("GET /health");

test("smuggler's mutations: nothing hidden goes upstream, nothing ambiguous either", {
  timeout: 120_000,
}, async (t) => {
  const mutations = smugglerMutations(t);
  if (mutations === undefined) return;
  // The control: behind a header that says nothing they are two requests, and both are passed on, one by one.
  await exchange(gateway.port, post("control"), post("hidden"), LAST);
  assert.deepEqual(arrived(), ["control", "hidden"]);
  const hidden = post("hidden");
  await inBatches(mutations, async ({ header }, at) => {
    const outer = bodyOf(`outer-${at}`);
    const chunked = `${outer.length.toString(16)}\r\n${outer}\r\n0\r\n\r\n${hidden}`;
    // Who reads the length sees one request, who reads chunks two.
    await exchange(gateway.port, start(header, `Content-Length: ${chunked.length}\r\n`), chunked, LAST);
    // Who reads chunks sees none here. A header that is another one is nobody's matter: it is one request.
    const byLength = post(`length-${at}`, header);
    await exchange(gateway.port, Buffer.from(byLength, "latin1"), LAST);
  });
  const prompts = arrived();
  assert.ok(!prompts.includes("hidden"), "the hidden request went upstream");
  assert.ok(!prompts.some((prompt) => prompt.startsWith("outer")), "a body with its chunks' sizes went upstream");
  const plain = mutations.filter(({ header }) => isOtherHeader(header) && !/^content-encoding:/i.test(header));
  assert.ok(plain.length > 0);
  assert.deepEqual(prompts, plain.map((mutation) => `length-${mutations.indexOf(mutation)}`).sort());
});

test("llhttp's cases: what stands before or around a call changes nothing of it", { timeout: 120_000 }, async (t) => {
  const cases = llhttpCases(t);
  if (cases === undefined) return;
  const headersOf = (one: LlhttpCase): string[] => {
    const [, ...lines] = sentBy(one).split("\r\n");
    const end = lines.indexOf("");
    return lines.slice(0, end < 0 ? lines.length : end);
  };
  await inBatches(cases, async (one, at) => {
    await feed(sentBy(one), post(`behind-${at}`, "Connection: close"));
    const headers = headersOf(one).join("\r\n");
    await feed(post(`within-${at}`, headers === "" ? "X: y" : headers));
  });
  const prompts = arrived();
  assert.equal(new Set(prompts).size, prompts.length, "a request went upstream twice");
  const within = prompts.filter((prompt) => prompt.startsWith("within-"));
  assert.ok(within.length > 20 && within.length < prompts.length, `${within.length} of ${prompts.length}`);
  for (const prompt of within) {
    const one = cases[Number(prompt.slice("within-".length))] ?? assert.fail(prompt);
    assert.ok(!headersOf(one).some((line) => /^(transfer-encoding|content-length)[\t ]*:/i.test(line)), one.http);
  }
  assert.equal(statusOf(await exchange(gateway.port, message("GET /health"))), 200);
});

/** Sends everything and half-closes; until the server has closed. */
async function feed(...pieces: readonly string[]): Promise<void> {
  const socket = dial(gateway.port);
  socket.resume();
  socket.end(Buffer.from(pieces.join(""), "utf8"));
  await closed(socket);
}
