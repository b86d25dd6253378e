/**
 * A gateway whose one upstream has one place, before which a tenant stands with many calls, and another with one.
 */
import assert from "node:assert/strict";
import type { ServerResponse } from "node:http";
import { test } from "node:test";
import { fakeVllm, json } from "../fixtures/fake-vllm.ts";
import { makeKey, startServer, until } from "../harness.ts";

test("another tenant's call is next but one, however many of the first wait", { timeout: 120_000 }, async (t) => {
  const upstream = await fakeVllm("m");
  t.after(() => upstream.close());
  const order: string[] = [];
  const held: ServerResponse[] = [];
  upstream.answers.set("/v1/completions", ({ body }, response) => {
    order.push((JSON.parse(String(body)) as { prompt: string }).prompt);
    held.push(response);
  });
  const gateway = await startServer({
    args: ["--upstream", upstream.url, "--served-model-name", "m", "--upstream-max-requests", "1"],
  });
  t.after(() => gateway.stop());
  const keyOf = async (tenant: string): Promise<string> => {
    const key = await makeKey(gateway.stateDir, "user", { name: tenant, tenant });
    await until("the key is known", async () => (await gateway.fetch("/v1/models", { key })).status === 200);
    return key;
  };
  const [flood, other] = [await keyOf("flood"), await keyOf("other")];
  const ask = async (prompt: string, key: string): Promise<number> => {
    const body = JSON.stringify({ model: "m", prompt, max_tokens: 10 });
    const answer = await gateway.fetch("/v1/completions", { method: "POST", body, key });
    await answer.text();
    return answer.status;
  };
  const waiting = (count: number): Promise<void> =>
    until(`${count} wait`, async () => {
      const headers = { authorization: `Bearer ${gateway.adminKey}` };
      const text = await (await fetch(`${gateway.opsUrl}/metrics`, { headers })).text();
      return text.includes(`castellan:upstream_waiting{model_name="m"} ${count}\n`);
    });
  const calls = [ask("first", flood)];
  await until("the place is taken", () => held.length === 1);
  for (let at = 0; at < 6; at++) {
    calls.push(ask(`flood ${at}`, flood));
    await waiting(at + 1);
  }
  calls.push(ask("other", other));
  await waiting(7);
  for (let at = 0; at < 8; at++) {
    await until("the next is there", () => held.length === at + 1);
    const response = held[at];
    assert.ok(response !== undefined);
    json(response, { id: "c", object: "text_completion", model: "m", choices: [], usage: { prompt_tokens: 1 } });
  }
  assert.deepEqual(
    await Promise.all(calls),
    Array.from({ length: 8 }, () => 200),
  );
  assert.deepEqual(order.slice(0, 4), ["first", "flood 0", "other", "flood 1"]);
});
