/**
 * Limits of tokens at a gateway, which does not know how many tokens a text has until a server behind has said so: what
 * many at once come to where a text is as many tokens as it has bytes.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { Turn } from "../fixtures/fault-server.ts";
import { completion, keyFile, type RecordingUpstream, recordingUpstream } from "../fixtures/recording-upstream.ts";
import { makeKey, startServer, type TestServer, until } from "../harness.ts";

const LIMIT = 20_000;
const BYTES = 3000;
/** Of such a prompt and its answer: a third of its JSON's bytes, and those with what may stand around them. */
const LIKELY = Math.ceil((BYTES + 2) / 3) + 1;
const MOST = BYTES + 2 + 16 + 1;
const AT_ONCE = 40;

let upstream: RecordingUpstream;
let gateway: TestServer;

before(async () => {
  upstream = await recordingUpstream(() => {});
  gateway = await startServer({ args: ["--upstream", upstream.origin, "--upstream-key-file", keyFile()] });
});
after(async () => {
  await gateway.stop();
  await upstream.close();
});

async function keyWith(tenant: string, limits: object): Promise<string> {
  const key = await makeKey(gateway.stateDir, "service", { name: tenant, tenant, limits });
  await until("the key is known", async () => (await gateway.fetch("/v1/models", { key })).status === 200);
  return key;
}

const ask = async (key: string, bytes: number): Promise<number> => {
  const body = JSON.stringify({ model: "inside", prompt: "x".repeat(bytes), max_tokens: 1 });
  const answer = await gateway.fetch("/v1/completions", { method: "POST", body, key });
  await answer.text();
  return answer.status;
};

async function usedBy(tenant: string): Promise<number> {
  const response = await fetch(`${gateway.opsUrl}/admin/usage?by=tenant`, {
    headers: { authorization: `Bearer ${gateway.adminKey}` },
  });
  const { data } = (await response.json()) as {
    data: readonly { tenant: string; prompt_tokens: number; completion_tokens: number }[];
  };
  const row = data.find((each) => each.tenant === tenant);
  return (row?.prompt_tokens ?? 0) + (row?.completion_tokens ?? 0);
}

/** So that a window does not end under a test. */
const withinAMinute = (): Promise<void> => until("a minute has begun", () => Date.now() % 60_000 < 40_000);

/** All at once, each a token a byte. @returns how many were let in */
async function burst(key: string): Promise<number> {
  const turns: Turn[] = [];
  upstream.act((turn) => void turns.push(turn));
  let over = 0;
  const statuses = Array.from({ length: AT_ONCE }, async () => {
    const status = await ask(key, BYTES);
    over++;
    return status;
  });
  await until("each waits for its answer, or was refused", () => turns.length + over === AT_ONCE);
  for (const { socket } of turns) socket.write(completion({ prompt: BYTES, completion: 1 }));
  const all = await Promise.all(statuses);
  assert.ok(
    all.every((status) => [200, 429].includes(status)),
    all.join(),
  );
  return all.filter((status) => status === 200).length;
}

test("a day's limit is passed by no more than one call's doubt, whatever runs at once", async () => {
  const key = await keyWith("day", { tokensPerDay: LIMIT });
  const served = await burst(key);
  const used = await usedBy("day");
  assert.equal(used, served * (BYTES + 1));
  // All that fits with what it may come to, and one that has the rest.
  assert.equal(served, Math.floor(LIMIT / MOST) + 1);
  assert.ok(used > LIMIT && used <= LIMIT + MOST - LIKELY, `${used}`);
  assert.equal(await ask(key, 3), 429);
});

test("a minute's limit is passed by as much as the calls that run at once were guessed short", async () => {
  const key = await keyWith("minute", { tokensPerMinute: LIMIT });
  await withinAMinute();
  const served = await burst(key);
  assert.equal(served, Math.floor(LIMIT / LIKELY));
  assert.ok((await usedBy("minute")) <= LIMIT + served * (MOST - LIKELY));
  assert.equal(await ask(key, 3), 429);
});

test("a text that is likely to fit is taken, though its bytes are more than the limit", async () => {
  upstream.act(({ socket }) => void socket.write(completion({ prompt: 1000, completion: 1 })));
  await withinAMinute();
  for (const limits of [{ tokensPerMinute: 2000 }, { tokensPerDay: 2000 }]) {
    const tenant = Object.keys(limits)[0] ?? "";
    const key = await keyWith(tenant, limits);
    assert.equal(await ask(key, 4000), 200, tenant);
    assert.equal(await usedBy(tenant), 1001);
    // What was reserved beyond has gone back.
    assert.equal(await ask(key, 900), 200, tenant);
  }
});
