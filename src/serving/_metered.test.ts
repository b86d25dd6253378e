import assert from "node:assert/strict";
import { test } from "node:test";
import type { Usage } from "#core/calls.ts";
import { Fault } from "#core/fault.ts";
import type { Meter, Work } from "#core/metering.ts";
import { DEFAULT_CAPS } from "#core/request-caps.ts";
import { authorize } from "#policy/authorize.ts";
import { principalOf } from "#policy/roles.ts";
import { decodeCompletion } from "#wire/openai/completion-decode.ts";
import { CompletionBody } from "#wire/openai/completion-schema.ts";
import { collect, fixture, says } from "./_fixture.ts";
import type { Script } from "./_scripted-backend.ts";
import { complete } from "./complete.ts";

const principal = principalOf({ id: "k", tenant: "t", role: "user" });

function book(refusal?: Fault) {
  const reserved: Work[] = [];
  const settled: Usage[] = [];
  const meter: Meter = {
    reserve: async (work) => {
      if (refusal !== undefined) throw refusal;
      reserved.push(work);
      let open = true;
      return {
        settle: async (used) => {
          if (open) settled.push(used);
          open = false;
        },
      };
    },
  };
  return { meter, reserved, settled };
}

function run(meter: Meter, script: Script, body: Record<string, unknown> = {}, signal = new AbortController().signal) {
  const { serving, backend } = fixture(script);
  const { call } = decodeCompletion(CompletionBody.parse({ prompt: "ab", max_tokens: 7, ...body }), DEFAULT_CAPS);
  return { events: complete(authorize(principal, "inference", meter), serving, call, signal), backend };
}

test("work is reserved at its most and settled by what was used, before the last event comes", async () => {
  const { meter, reserved, settled } = book();
  const { events } = run(meter, { reply: says("xyz") }, { prompt: ["ab", "c"], n: 2, temperature: 1 });
  let last = 0;
  for await (const event of events) {
    if (event.type === "usage" && event.final) last = settled.length;
  }
  // A BOS token a prompt; three letters and the end of turn a choice.
  assert.deepEqual(reserved, [{ model: "demo", promptTokens: 5, completionTokens: 4 * 7, sequences: 4 }]);
  assert.equal(last, 1);
  assert.deepEqual(
    settled.map(({ promptTokens, completionTokens }) => [promptTokens, completionTokens]),
    [[5, 16]],
  );
});

test("an adapter that a tenant named counts as the model that it changes: the name has no limits and no price", async () => {
  const { meter, reserved } = book();
  const { serving, adapters } = fixture({ reply: says("x") });
  const trainer = principalOf({ id: "k", tenant: "t", role: "trainer" });
  await adapters.load(authorize(trainer, "lora:write", meter), { name: "free", path: "/a", inPlace: false });
  const { call } = decodeCompletion(CompletionBody.parse({ prompt: "ab", model: "free" }), DEFAULT_CAPS);
  await collect(complete(authorize(trainer, "inference", meter), serving, call, new AbortController().signal));
  assert.deepEqual(
    reserved.map(({ model }) => model),
    ["demo"],
  );
});

test("what may not be reserved is not begun", async () => {
  const { meter } = book(new Fault("rate_limited", "enough"));
  const { events, backend } = run(meter, { reply: says("xyz") });
  await assert.rejects(collect(events), /enough/);
  assert.equal(backend.requests.length, 0);
});

test("a client that leaves pays for what was done, a fault of the server costs nothing", async () => {
  const left = book();
  const { events } = run(left.meter, { reply: says("xyz") });
  for await (const event of events) if (event.type === "text") break;
  assert.equal(left.settled.length, 1);
  assert.equal(left.settled[0]?.promptTokens, 3);
  assert.ok((left.settled[0]?.completionTokens ?? 0) >= 1);

  const lost = book();
  const failing = run(lost.meter, { reply: says("xyz"), failAfter: 1 });
  await assert.rejects(collect(failing.events));
  assert.deepEqual(
    lost.settled.map(({ promptTokens, completionTokens }) => [promptTokens, completionTokens]),
    [[0, 0]],
  );
});

test("a beam search is as many sequences as it has beams, and who leaves it pays for its steps", async () => {
  const stop = new AbortController();
  const { meter, reserved, settled } = book();
  const script: Script = { reply: says("xyz") };
  const { events, backend } = run(meter, script, { use_beam_search: true, n: 2, temperature: 0 }, stop.signal);
  const reading = collect(events);
  const timer = setInterval(() => backend.requests.length >= 3 && stop.abort(), 0);
  await reading.catch(() => {});
  clearInterval(timer);
  assert.equal(reserved[0]?.sequences, 2);
  assert.equal(settled.length, 1);
  assert.equal(settled[0]?.promptTokens, 3);
  assert.ok((settled[0]?.completionTokens ?? 0) >= 1);
});
