/**
 * What a principal may see and ask for, in every call of serving.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Fault } from "#core/fault.ts";
import { UNMETERED } from "#core/metering.ts";
import type { Principal, Reach, Scope } from "#core/principal.ts";
import { DEFAULT_CAPS } from "#core/request-caps.ts";
import { authorize } from "#policy/authorize.ts";
import { principalOf } from "#policy/roles.ts";
import { decodeCompletion } from "#wire/openai/completion-decode.ts";
import { CompletionBody } from "#wire/openai/completion-schema.ts";
import { collect, type Fixture, fixture, grant, says } from "./_fixture.ts";
import { complete } from "./complete.ts";
import type { Serving } from "./context.ts";
import { detokenize, tokenize } from "./tokenize.ts";

const who = (reach: Reach, more: Partial<Pick<Principal, "tenant" | "caps">> = {}): Principal =>
  principalOf({ id: "k", tenant: "t", role: "user", reach, ...more });
const may = <S extends Scope>(principal: Principal, scope: S) => authorize(principal, scope, UNMETERED);

function ask(serving: Serving, principal: Principal, body: Record<string, unknown> = {}) {
  const { call } = decodeCompletion(CompletionBody.parse({ prompt: "ab", max_tokens: 3, ...body }), DEFAULT_CAPS);
  return collect(complete(may(principal, "inference"), serving, call, new AbortController().signal));
}

async function refuses(work: Promise<unknown>, kind: string, text: RegExp): Promise<void> {
  await assert.rejects(work, (error) => error instanceof Fault && error.kind === kind && text.test(error.message));
}

async function withAdapter(): Promise<Fixture> {
  const setting = fixture({ reply: says("x") });
  await setting.adapters.load(grant("lora:write"), { name: "sql", path: "/a", inPlace: false });
  return setting;
}

test("a model that a principal may not use does not exist for it, by any name and in any call", async () => {
  const { serving } = await withAdapter();
  const nothing = who({ models: ["other*"], adapters: [] });
  const missing = /The model `demo` does not exist/;
  await refuses(ask(serving, nothing, { model: "demo" }), "model_not_found", missing);
  await refuses(ask(serving, nothing), "model_not_found", /does not exist/);
  const source = { kind: "prompt", prompt: "a", addSpecialTokens: false } as const;
  const request = { model: "demo", source, withSpellings: false };
  await refuses(tokenize(may(nothing, "tokenize"), serving, request), "model_not_found", missing);
  assert.throws(() => detokenize(may(nothing, "tokenize"), serving, { model: "demo", tokens: [1] }), missing);
  assert.deepEqual(serving.models.visibleTo(nothing), []);
  // The same words as for a name that nobody has.
  await refuses(ask(serving, who({}), { model: "nobody" }), "model_not_found", /The model `nobody` does not exist/);
});

test("a name at a time: an alias may be allowed where the first name is not; adapters have a list of their own", async () => {
  const { serving } = await withAdapter();
  const names = (principal: Principal) => serving.models.visibleTo(principal).map(({ names: seen }) => seen);
  assert.deepEqual(names(who({})), [["demo", "demo-alias"], ["sql"]]);
  assert.deepEqual(names(who({ models: ["*-alias"] })), [["demo-alias"], ["sql"]]);
  assert.deepEqual(names(who({ models: [], adapters: ["s*"] })), [["sql"]]);
  await ask(serving, who({ models: ["*-alias"] }), { model: "demo-alias" });
  await refuses(ask(serving, who({ models: ["*-alias"] }), { model: "demo" }), "model_not_found", /demo/);
  await ask(serving, who({ models: [], adapters: ["sql"] }), { model: "sql" });
  await refuses(ask(serving, who({ adapters: [] }), { model: "sql" }), "model_not_found", /sql/);
  // Without a name it is the first that may be used.
  const events = await ask(serving, who({ models: [] }));
  assert.equal(events[0]?.type === "start" && events[0].model, "sql");
});

test("a request is as urgent as its key allows", async () => {
  const { serving, backend } = fixture({ reply: says("x") });
  await refuses(ask(serving, who({}), { priority: 5 }), "invalid_request", /not enabled/);
  const enabled = { ...serving, priorities: true };
  await ask(enabled, who({}), { priority: 5 });
  await ask(enabled, who({ priority: -3 }), { priority: -3 });
  assert.deepEqual(
    backend.requests.map(({ priority }) => priority),
    [5, -3],
  );
  await refuses(ask(enabled, who({}), { priority: -1 }), "invalid_request", /may ask for 0/);
  await refuses(ask(enabled, who({ priority: 10 }), { priority: 9 }), "invalid_request", /may ask for 10/);
  await ask(enabled, who({ priority: 10 }));
  await ask(enabled, who({ priority: -3 }));
  assert.deepEqual(
    backend.requests.slice(2).map(({ priority }) => priority),
    [10, 0],
    "who says nothing waits as long as the key has to",
  );
});

test("what names a request or a prefix is the tenant's own, whatever the client writes", async () => {
  const { serving, backend } = fixture({ reply: says("x") });
  const call = (tenant: string) => {
    const { call: decoded } = decodeCompletion(CompletionBody.parse({ prompt: "ab", cache_salt: "s" }), DEFAULT_CAPS);
    const output = { ...decoded.output, callId: "cmpl-same" };
    const principal = who({}, { tenant });
    const answer = complete(may(principal, "inference"), serving, { ...decoded, output }, new AbortController().signal);
    return collect(answer);
  };
  await call("a");
  await call("b");
  const [first, second] = backend.requests;
  assert.notEqual(first?.callId, second?.callId);
  assert.notEqual(first?.cacheSalt, second?.cacheSalt);
  assert.match(first?.callId ?? "", /^a\0cmpl-same$/);
});

test("caps of a principal stand in the place of the server's", async () => {
  const { serving } = fixture({ reply: says("x") });
  const body = { bad_words: ["abcdef"] };
  await ask(serving, who({}), body);
  await refuses(ask(serving, who({}, { caps: { badWordTokens: 3 } }), body), "invalid_request", /bad_words/);
  // Not small enough to be compiled at once.
  const slow = (text: string) => ({ structured_outputs: { regex: `(${text}){900}`.repeat(9) } });
  await ask(serving, who({}), slow("ab"));
  const hasty = who({}, { caps: { grammarSeconds: 0 } });
  await refuses(ask(serving, hasty, slow("ba")), "invalid_request", /too much time/);
});
