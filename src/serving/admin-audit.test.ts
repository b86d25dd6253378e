/**
 * The audit log through administration: whose records a caller sees, and that one verification runs at a time.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Fault, type FaultKind } from "#core/fault.ts";
import { type Bench, bench } from "#policy/audit/_fixture.ts";
import { newestRecords } from "#policy/audit/read.ts";
import { type Verification, verifyLog } from "#policy/audit/verify.ts";
import { caller, may } from "./_admin-fixture.ts";
import { AdminAudit, type AuditReader } from "./admin-audit.ts";

const NEVER = new AbortController().signal;
const operator = may(caller("default"), "audit:read");
const acme = may(caller("acme"), "audit:read");

function readerOf({ directory }: Bench): AuditReader {
  return {
    newest: async (count, filter, signal) => (await newestRecords(directory, count, filter, signal)).records,
    verify: (signal) => verifyLog(directory, { signal }),
    head: () => ({ head: undefined, publicKey: undefined }),
  };
}

const refused = (work: Promise<unknown>, kind: FaultKind, says: RegExp): Promise<void> =>
  assert.rejects(work, (error) => error instanceof Fault && error.kind === kind && says.test(error.message));

test("the newest records: the operator's of all, a tenant's of what it did itself", async (t) => {
  const it = bench(t);
  const log = it.open();
  for (const tenant of ["acme", "other", "default"]) {
    await log.event("key.create", { kind: "key", id: `key_of_${tenant}`, tenant }, undefined, { tenant });
    await log.append("call", { principal: { id: `key_of_${tenant}`, kind: "key", tenant }, route: "/x", status: 200 });
  }
  await log.event("key.delete", { kind: "operator", id: "root" }, "key_of_acme");
  await log.append("call", { principal: null, route: null, status: 401 });
  const audit = new AdminAudit(readerOf(it));
  const tenants = async (grant: typeof acme, filter: object = {}): Promise<unknown[]> =>
    (await audit.records(grant, { limit: 100, ...filter }, NEVER)).map(({ fields }) => {
      const who = (fields["actor"] ?? fields["principal"] ?? {}) as Record<string, unknown>;
      return who["tenant"] ?? null;
    });
  assert.deepEqual(await tenants(acme), ["acme", "acme"]);
  assert.deepEqual(await tenants(acme, { tenant: "acme" }), ["acme", "acme"]);
  for (const tenant of ["other", "default"]) assert.deepEqual(await tenants(acme, { tenant }), []);
  assert.deepEqual(await tenants(acme, { principal: "key_of_other" }), []);
  assert.equal((await tenants(operator)).filter((tenant) => tenant !== null).length, 6);
  assert.deepEqual(await tenants(operator, { tenant: "other" }), ["other", "other"]);
  assert.deepEqual(await tenants(operator, { limit: 1 }), [null]);
});

test("of the log as a whole other tenants learn nothing", async (t) => {
  const it = bench(t);
  await it.open().append("call", { status: 200 });
  const audit = new AdminAudit(readerOf(it));
  await refused(audit.verify(acme, NEVER), "forbidden", /every tenant/);
  await refused((async () => audit.head(acme))(), "forbidden", /every tenant/);
  assert.deepEqual((await audit.verify(operator, NEVER)).findings, []);
});

test("one verification at a time: the second is told when to come back, and the place is given back", async () => {
  let end = (_: Verification): void => {};
  const waiting = new Promise<Verification>((done) => {
    end = done;
  });
  const audit = new AdminAudit({
    newest: async () => [],
    verify: () => waiting,
    head: () => ({ head: undefined, publicKey: undefined }),
  });
  const first = audit.verify(operator, NEVER);
  await assert.rejects(audit.verify(operator, NEVER), (error) => {
    return error instanceof Fault && error.kind === "overloaded" && (error.retryAfterMs ?? 0) >= 1000;
  });
  end({ records: 7 } as Verification);
  assert.equal((await first).records, 7);
  assert.equal((await audit.verify(operator, NEVER)).records, 7);
});

test("a call that is over ends its verification and its reading, and gives the place back", async (t) => {
  const it = bench(t);
  const log = it.open();
  for (let i = 0; i < 10; i++) await log.append("call", { status: 200 });
  const audit = new AdminAudit(readerOf(it));
  const gone = AbortSignal.abort(new Fault("cancelled", "The client went away."));
  await refused(audit.verify(operator, gone), "cancelled", /./);
  await refused(
    audit.records(operator, { limit: 5 }, gone).then(() => undefined),
    "cancelled",
    /./,
  );
  assert.equal((await audit.verify(operator, NEVER)).findings.length, 0);
});

test("readings are bounded, too", async () => {
  const audit = new AdminAudit({
    newest: () => new Promise(() => {}),
    verify: () => new Promise(() => {}),
    head: () => ({ head: undefined, publicKey: undefined }),
  });
  for (let i = 0; i < 4; i++) void audit.records(operator, { limit: 1 }, NEVER);
  await refused(audit.records(operator, { limit: 1 }, NEVER), "overloaded", /read by others/);
});

test("without a log it is said that none is kept; a log that is away is 503 without its place", async () => {
  const none = new AdminAudit(undefined);
  for (const work of [none.records(operator, { limit: 1 }, NEVER), none.verify(operator, NEVER)])
    await refused(work, "not_implemented", /No audit log is kept/);
  await refused((async () => none.head(operator))(), "not_implemented", /No audit log is kept/);
  const away = new AdminAudit(readerOf({ directory: "/nowhere/at/all" } as Bench));
  for (const work of [away.records(operator, { limit: 1 }, NEVER), away.verify(operator, NEVER)])
    await refused(work, "policy_unavailable", /^The audit log cannot be read at the moment\.$/);
});
