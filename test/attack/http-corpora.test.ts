/**
 * Public collections of broken and hostile HTTP, byte by byte against a real listener: llhttp's own cases and the
 * Transfer-Encoding mutations of a request smuggler.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { AUTH, closed, dial, exchange, message, rig, statusesOf, statusOf, until } from "#test/http/harness.ts";
import { inBatches, isOtherHeader, llhttpCases, sentBy, smugglerMutations } from "../fixtures/http-corpora.ts";

/** Sends everything and half-closes; gives what came back once the server has closed. */
async function feed(port: number, bytes: Buffer): Promise<string> {
  const socket = dial(port);
  let answer = "";
  socket.setEncoding("latin1").on("data", (text: string) => {
    answer += text;
  });
  socket.end(bytes);
  await closed(socket);
  return answer;
}

test("llhttp's cases: what must be an error reaches no call; nothing is a 5xx", { timeout: 60_000 }, async (t) => {
  const cases = llhttpCases(t);
  if (cases === undefined) return;
  let strictErrors = 0;
  // One at a time, so that calls can be counted per case.
  const {
    http: server,
    port,
    records,
  } = await rig(t, {
    options: { lingerMs: 1, bodyTimeoutMs: 300, headersTimeoutMs: 400 },
  });
  for (const one of cases) {
    const { file, title, meta, log } = one;
    const label = `${file}: ${title}`;
    const before = records.length;
    const answer = await feed(port, Buffer.from(sentBy(one), "utf8"));
    // The client may be gone before the call has settled.
    await until(() => server.counters().calls === 0, `the end of ${label}`);
    assert.ok(
      statusesOf(answer).every((status) => status < 500),
      `${label}: ${answer}`,
    );
    const type = /"type"\s*:\s*"([^"]+)"/.exec(meta ?? "")?.[1];
    if (type !== "request" || /"pause"|"skipBody"/.test(meta ?? "") || log?.includes("error code=") !== true) continue;
    strictErrors++;
    const wholeHeads = log.split("headers complete").length - 1;
    const calls = records.length - before;
    assert.ok(calls <= wholeHeads, `${label}: ${calls} calls, ${wholeHeads} heads before the error`);
    for (const record of records.slice(before)) assert.ok(record.status >= 400, label);
    if (wholeHeads === 0 && answer !== "")
      assert.ok([400, 408, 413, 431].includes(statusOf(answer)), `${label}: ${answer}`);
  }
  assert.ok(strictErrors >= 50, `${strictErrors} cases that must be errors were found`);
  assert.equal(statusOf(await exchange(port, message("GET /health"))), 200);
});

test("smuggler's mutations: the hidden request is never handled", { timeout: 60_000 }, async (t) => {
  const mutations = smugglerMutations(t);
  if (mutations === undefined) return;
  const { port, services, records } = await rig(t, { options: { lingerMs: 1, bodyTimeoutMs: 2000 } });
  const hidden = `GET /v1/models HTTP/1.1\r\nHost: x\r\n${AUTH}\r\nConnection: close\r\n\r\n`;
  const chunk = `${hidden.length.toString(16)}\r\n`;
  const last = message("GET /health");
  const start = (header: string, length: string): Buffer =>
    Buffer.from(
      `POST /v1/chat HTTP/1.1\r\nHost: x\r\n${AUTH}\r\nContent-Type: application/json\r\n${length}${header}\r\n\r\n`,
      "latin1",
    );
  // The control: the same bytes behind a header that says nothing are two requests, and both are handled.
  await exchange(port, start("X: y", `Content-Length: ${chunk.length}\r\n`), `${chunk}${hidden}`);
  assert.deepEqual(services.handled.splice(0), ["models"]);
  const refused: number[] = [];
  await inBatches(mutations, async ({ header, name }) => {
    // Who reads the length sees one request, who reads chunks two.
    const byLength = await exchange(
      port,
      start(header, `Content-Length: ${5 + hidden.length}\r\n`),
      `0\r\n\r\n${hidden}`,
      last,
    );
    // The other way round; a header that is not Transfer-Encoding leaves two requests, by anybody's reading.
    if (!isOtherHeader(header))
      await exchange(
        port,
        start(header, `Content-Length: ${chunk.length}\r\n`),
        `${chunk}${hidden}\r\n0\r\n\r\n`,
        last,
      );
    // No length at all.
    await exchange(port, start(header, ""), `${chunk}${hidden}\r\n0\r\n\r\n`, last);
    assert.notEqual(statusOf(byLength), 200, name);
    if (statusOf(byLength) === 400) refused.push(1);
  });
  assert.ok(!services.handled.includes("models"), "the hidden request was handled");
  assert.ok(!services.handled.includes("chat"));
  assert.ok(refused.length > 1700, `${refused.length} of ${mutations.length} were answered with 400`);
  assert.ok(records.every((record) => record.status < 500));
});
