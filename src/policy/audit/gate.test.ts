/**
 * What is recorded of calls, when, and what becomes of them when it cannot be.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Usage } from "#core/calls.ts";
import { Fault } from "#core/fault.ts";
import { UNMETERED } from "#core/metering.ts";
import { type Admission, type Gate, type PolicyCall, plainGate } from "#policy/gate.ts";
import { principalOf } from "#policy/roles.ts";
import { type Bench, bench } from "./_fixture.ts";
import { DISK } from "./_writer.ts";
import { type AuditGateOptions, auditedGate } from "./gate.ts";

const alice = principalOf({ id: "key_1", tenant: "acme", role: "user" });
const CALL: PolicyCall = {
  requestId: "r1",
  at: Date.parse("2026-11-25T12:00:00Z"),
  method: "POST",
  route: "/v1/chat/completions",
  scope: "inference",
  plane: "public",
  dialect: "openai",
  audit: "metadata",
  principal: alice,
  peer: { address: "192.0.2.7" },
};
const OK = { status: 200, fault: undefined };
const WORK = { model: "demo", promptTokens: 5, completionTokens: 10, sequences: 1 };
const used = (completionTokens: number): Usage => ({
  promptTokens: 5,
  completionTokens,
  cachedTokens: 2,
  reasoningTokens: 0,
});
const inner: Gate = plainGate(() => alice);

function around(it: Bench, options: Partial<AuditGateOptions> = {}, log = it.open()) {
  const gate = auditedGate(inner, log, { onFailure: "refuse", ...options });
  return { log, gate, open: (call: Partial<PolicyCall> = {}): Admission => gate.open({ ...CALL, ...call }) };
}

const ofCalls = (it: Bench) => it.records().filter(({ kind }) => ["call", "end", "anonymous"].includes(kind));

test("a call's record is there when its answer may leave", async (t) => {
  const it = bench(t);
  const { open } = around(it);
  const call = open();
  await call.record(OK);
  assert.deepEqual(ofCalls(it)[0]?.fields, {
    request: "r1",
    principal: { id: "key_1", kind: "key", tenant: "acme" },
    scope: "inference",
    plane: "public",
    method: "POST",
    route: "/v1/chat/completions",
    peer: "192.0.2.7",
    status: 200,
    fault: null,
    decision: "allow",
  });
});

test("what is kept of which route", async (t) => {
  const it = bench(t);
  const { open, log } = around(it);
  const cases: [Partial<PolicyCall>, { status: number; fault: Fault["kind"] | undefined }][] = [
    [{ requestId: "probe", audit: "none", principal: undefined, scope: undefined }, OK],
    [
      { requestId: "draining probe", audit: "none", principal: undefined },
      { status: 503, fault: undefined },
    ],
    [{ requestId: "list", audit: "none" }, OK],
    [
      { requestId: "refused list", audit: "none" },
      { status: 403, fault: "forbidden" },
    ],
    [
      { requestId: "no key", audit: "none", principal: undefined },
      { status: 401, fault: "unauthenticated" },
    ],
    [
      { requestId: "unknown", route: undefined, method: "other" },
      { status: 404, fault: "route_not_found" },
    ],
    [{ requestId: "bad body" }, { status: 400, fault: "invalid_request" }],
  ];
  for (const [call, outcome] of cases) {
    const admission = open(call);
    await admission.record(outcome);
    admission.close(outcome);
  }
  await log.close();
  assert.deepEqual(
    ofCalls(it).map(({ fields }) => [fields["request"], fields["decision"]]),
    [
      ["refused list", "deny"],
      ["no key", "deny"],
      ["unknown", "deny"],
      ["bad body", "allow"],
    ],
  );
});

test("usage that is known stands in the call's record; what comes later follows at its end", async (t) => {
  const it = bench(t);
  const { open, log } = around(it);
  const whole = open({ requestId: "whole" });
  const first = await whole.meter.reserve(WORK);
  await first.settle(used(7));
  await first.settle(used(99));
  await whole.record(OK);
  whole.close(OK);

  const stream = open({ requestId: "stream" });
  const second = await stream.meter.reserve(WORK);
  await stream.record(OK);
  stream.close({ status: 200, fault: "cancelled" });
  await second.settle(used(3));
  await log.close();
  const [call, head, end, ...rest] = ofCalls(it);
  assert.deepEqual([call?.fields["model"], call?.fields["usage"]], ["demo", { prompt: 5, cached: 2, completion: 7 }]);
  assert.equal(head?.fields["request"], "stream");
  assert.deepEqual(
    [end?.kind, end?.fields["call"], end?.fields["fault"], end?.fields["usage"]],
    ["end", head?.seq, "cancelled", { prompt: 5, cached: 2, completion: 3 }],
  );
  assert.deepEqual(rest, []);
});

test("a client that went away before any answer has left a record, too", async (t) => {
  const it = bench(t);
  const { open, log } = around(it);
  open().close({ status: 499, fault: "cancelled" });
  await log.close();
  assert.deepEqual(
    ofCalls(it).map(({ fields }) => fields["status"]),
    [499],
  );
});

test("what cannot be recorded is refused, or goes on and is counted", async (t) => {
  const it = bench(t);
  const { open, log } = around(it);
  await open().record(OK);
  it.write = async () => {
    throw Object.assign(new Error("full"), { code: "ENOSPC" });
  };
  await assert.rejects(
    async () => open().record(OK),
    (error) => error instanceof Fault && error.kind === "policy_unavailable" && !error.message.includes("/"),
  );
  assert.deepEqual([log.stats().unrecorded, log.healthy], [0, false]);
  const lax = around(it, { onFailure: "allow" }, log);
  await lax.open().record(OK);
  assert.equal(log.stats().unrecorded, 1);
  it.write = undefined;
  await open().record(OK);
  const gap = it.records().find(({ kind }) => kind === "gap");
  assert.deepEqual([gap?.fields["refused"], gap?.fields["unrecorded"]], [1, 1]);
});

test("a flood of nobody's calls is counted, not written one by one", async (t) => {
  const it = bench(t);
  let writes = 0;
  it.write = (fd, bytes) => {
    writes++;
    return DISK.write(fd, bytes);
  };
  const { open, log, gate } = around(it);
  const outcome = { status: 401, fault: "unauthenticated" } as const;
  for (let i = 0; i < 5000; i++) {
    const call = open({ principal: undefined, peer: { address: `192.0.2.${i % 40}` } });
    await call.record(outcome);
    call.close(outcome);
  }
  const known = open();
  await known.record(OK);
  gate.close();
  await log.close();
  const records = ofCalls(it);
  const single = records.filter(({ kind }) => kind === "call").length;
  assert.ok(single >= 101 && single <= 200, `${single} records`);
  assert.ok(writes < 300, `${writes} writes`);
  const counted = records.filter(({ kind }) => kind === "anonymous");
  const sum = counted.reduce((total, { fields }) => total + Number(fields["count"]), 0);
  assert.equal(sum + single - 1, 5000, "none is lost");
  assert.equal(Object.keys(counted[0]?.fields["peers"] as object).length, 16);
  assert.ok(Number(counted[0]?.fields["otherPeers"]) > 0);
});

test("of the operations listener no content is kept, whatever the operator asked for: new keys stand in it", async (t) => {
  const it = bench(t);
  const { open, log } = around(it, { content: (text) => text });
  const call = open({ plane: "ops", route: "/admin/keys/create" });
  assert.equal(call.content, undefined, "nobody even looks");
  await call.record(OK);
  call.close(OK);
  await log.close();
  assert.deepEqual(
    ofCalls(it).map(({ kind, fields }) => [kind, "content" in fields]),
    [["call", false]],
  );
});

test("content is kept only when asked for, bounded, with secrets taken out", async (t) => {
  const it = bench(t);
  const plain = around(it).open();
  assert.equal(plain.content, undefined, "nobody even looks");
  const clean = (text: string): string => text.replaceAll("hunter2", "[secret]");
  const { open, log } = around(it, { content: clean });
  const call = open();
  call.content?.("request", Buffer.from('{"messages":"hunter2 ä"}'));
  await call.record(OK);
  for (let i = 0; i < 30_000; i++) call.content?.("answer", "data");
  call.close(OK);
  await log.close();
  const [record, end] = ofCalls(it);
  assert.deepEqual(record?.fields["request"], "r1");
  assert.deepEqual(record?.fields["content"], { text: '{"messages":"[secret] ä"}', cut: false });
  assert.deepEqual(end?.fields["content"], { text: "data".repeat(4096), cut: true });
});

test("the gate inside is asked and told as ever", async (t) => {
  const it = bench(t);
  const told: string[] = [];
  const own: Admission = {
    meter: UNMETERED,
    admit: () => void told.push("admit"),
    headers: () => ({ "x-left": "3" }),
    record: () => void told.push("record"),
    close: () => void told.push("close"),
  };
  const gate = auditedGate({ ...inner, open: () => own }, it.open(), { onFailure: "refuse" });
  const call = gate.open(CALL);
  await call.admit();
  await call.record(OK);
  call.close(OK);
  assert.deepEqual(told, ["admit", "record", "close"]);
  assert.deepEqual(call.headers(), { "x-left": "3" });
});
