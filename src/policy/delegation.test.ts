/**
 * What a caller may hand out: case by case, and as a property over any caller and any key.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { BUDGET_UNITS, type Budget, type LimitFigure, type Limits, PERIODS } from "#core/limits.ts";
import { matches } from "#core/name-patterns.ts";
import { type Principal, type Reach, ROLES, type Role, SCOPES, type Scope } from "#core/principal.ts";
import { CAP_ROWS, type CapName, capsFor, DEFAULT_CAPS, type RequestCaps } from "#core/request-caps.ts";
import { administers, excessOf, type KeyRights, reachExcess } from "./delegation.ts";
import { inNetworks } from "./networks.ts";
import { principalOf } from "./roles.ts";

const MANAGER: readonly Scope[] = ["keys:read", "keys:write"];

interface More {
  readonly caps?: Partial<RequestCaps>;
  readonly scopes?: readonly Scope[];
  readonly limits?: Limits;
  readonly until?: number;
}

function manager(reach: Reach = {}, { caps = {}, scopes = MANAGER, limits = {}, until }: More = {}): Principal {
  const principal = principalOf({ id: "key_m", tenant: "acme", role: "admin", scopes, reach, caps, limits });
  return until === undefined ? principal : { ...principal, until };
}

function key(reach: Reach = {}, more: Partial<KeyRights> = {}): KeyRights {
  return { role: "user", reach, caps: {}, limits: {}, ...more };
}

test("the operator's tenant administers all, any other its own", () => {
  assert.ok(administers({ tenant: "default" }, "acme"));
  assert.ok(administers({ tenant: "acme" }, "acme"));
  for (const other of ["default", "Acme", "acme ", "", "*"]) assert.ok(!administers({ tenant: "acme" }, other), other);
});

test("who has the scope admin in the operator's tenant may hand out anything; in another tenant it is held", () => {
  const wide = key({ priority: -100 }, { role: "admin", caps: { n: 16_384, logprobs: -1 } });
  const narrow = { models: ["a"], networks: ["10.0.0.0/8"], priority: 9 };
  const held = manager(narrow, { scopes: ["admin"], limits: { requestsPerDay: 1 }, until: 1000 });
  assert.equal(excessOf({ ...held, tenant: "default" }, wide, DEFAULT_CAPS), undefined);
  assert.match(excessOf(held, wide, DEFAULT_CAPS) ?? "", /^scopes:/);
});

test("beyond the caller: which part, and not a step earlier", () => {
  const cases: readonly [caller: Principal, key: KeyRights, excess: RegExp | undefined][] = [
    [manager(), key(), undefined],
    [manager(), key({}, { role: "service" }), undefined],
    [manager(), key({}, { role: "admin", scopes: ["keys:read", "inference"] }), undefined],
    [manager(), key({}, { role: "admin" }), /^scopes: lora:write/],
    [manager(), key({}, { role: "auditor" }), /^scopes: audit:read/],
    [manager({}, { scopes: [...MANAGER, "audit:read"] }), key({}, { role: "auditor" }), undefined],
    [manager(), key({ priority: 0 }), undefined],
    [manager(), key({ priority: -1 }), /^priority: yours is 0/],
    [manager({ priority: -5 }), key({ priority: -5 }), undefined],
    [manager({ priority: 3 }), key(), /^priority: yours is 3/],
    [manager(), key({}, { caps: { n: 16 } }), undefined],
    [manager(), key({}, { caps: { n: 17 } }), /^caps: n is at most 16/],
    [manager(), key({}, { caps: { logprobs: -1 } }), /^caps: logprobs/],
    [manager({}, { caps: { n: 64 } }), key({}, { caps: { n: 17 } }), /^caps: n is at most 16/],
    [manager({}, { caps: { n: 2 } }), key(), /^caps: n is at most 2/],
    [manager({}, { caps: { n: 2 } }), key({}, { caps: { n: 2 } }), undefined],
    [manager({ models: ["a-*", "b"] }), key({ models: ["a-*", "a-7", "b"] }), undefined],
    [manager({ models: ["a-*"] }), key(), /^models: you have some only/],
    [manager({ models: ["a-*"] }), key({ models: [] }), undefined],
    [manager({ models: ["a-*"] }), key({ models: ["a-7*"] }), /^models: "a-7\*" is not within/],
    [manager({ models: ["a-?"] }), key({ models: ["a-*"] }), /^models:/],
    [manager({ models: ["a-*"] }), key({ models: ["b"] }), /^models:/],
    [manager({ adapters: ["x"] }), key(), /^adapters:/],
    [manager({ tools: [] }), key({ tools: ["x"] }), /^tools:/],
    [manager({ networks: ["10.0.0.0/8"] }), key(), /^networks: you have some only/],
    [manager({ networks: ["10.0.0.0/8"] }), key({ networks: ["10.0.0.0/8", "10.1.2.3"] }), undefined],
    [manager({ networks: ["10.0.0.0/8"] }), key({ networks: ["::ffff:10.1.2.3"] }), undefined],
    [manager({ networks: ["10.0.0.0/8"] }), key({ networks: ["0.0.0.0/0"] }), /^networks: "0\.0\.0\.0\/0"/],
    [manager({ networks: ["10.0.0.0/8"] }), key({ networks: ["10.1.2.3/4"] }), /^networks:/],
    [manager({ networks: ["10.0.0.0/8"] }), key({ networks: ["11.0.0.1"] }), /^networks:/],
    [manager({ networks: ["10.0.0.0/8"] }), key({ networks: ["::/0"] }), /^networks:/],
    [
      manager({}, { limits: { requestsPerMinute: 60 } }),
      key(),
      /^limits: requests_per_minute has to be .* at most 60$/,
    ],
    [
      manager({}, { limits: { requestsPerMinute: 60 } }),
      key({}, { limits: { requestsPerDay: 1 } }),
      /^limits: requests_per_m/,
    ],
    [manager({}, { limits: { tokensPerDay: 0 } }), key({}, { limits: { tokensPerDay: 1 } }), /^limits: tokens_per_day/],
    [manager({}, { limits: { tokensPerDay: 9 } }), key({}, { limits: { tokensPerDay: 9 } }), undefined],
    [
      manager({}, { limits: { queuedSequences: 9 } }),
      key({}, { limits: { queuedSequences: 10 } }),
      /^limits: queued_seq/,
    ],
    [manager(), key({}, { limits: { tokensPerDay: 9 }, expiresAt: 5 }), undefined],
    [manager({}, { limits: budgets(["day", "usd", 9]) }), key(), /^limits: a budget in usd a day has to .* at most 9$/],
    [
      manager({}, { limits: budgets(["day", "usd", 9]) }),
      key({}, { limits: budgets(["day", "usd", 10]) }),
      /^limits: a b/,
    ],
    [
      manager({}, { limits: budgets(["day", "usd", 9]) }),
      key({}, { limits: budgets(["week", "usd", 9]) }),
      /^limits: a b/,
    ],
    [
      manager({}, { limits: budgets(["day", "usd", 9]) }),
      key({}, { limits: budgets(["day", "tokens", 9]) }),
      /^limits:/,
    ],
    [
      manager({}, { limits: budgets(["day", "usd", 9]) }),
      key({}, { limits: budgets(["day", "usd", 99], ["day", "usd", 8]) }),
      undefined,
    ],
    [
      manager({}, { until: 1000 }),
      key(),
      /^expires_at: has to be given, and is 1970-01-01T00:00:01\.000Z at the latest/,
    ],
    [manager({}, { until: 1000 }), key({}, { expiresAt: 1001 }), /^expires_at:/],
    [manager({}, { until: 1000 }), key({}, { expiresAt: 1000 }), undefined],
  ];
  for (const [caller, wanted, excess] of cases) {
    const found = excessOf(caller, wanted, DEFAULT_CAPS);
    const label = JSON.stringify([caller.reach, caller.caps, wanted]);
    if (excess === undefined) assert.equal(found, undefined, label);
    else assert.match(found ?? "nothing", excess, label);
  }
});

function budgets(...lines: readonly [Budget["period"], Budget["unit"], number][]): Limits {
  return { budgets: lines.map(([period, unit, amount]) => ({ period, unit, amount })) };
}

test("to end a key neither its limits nor its time is looked at, its reach is", () => {
  const caller = manager({ models: ["a"] }, { limits: { tokensPerDay: 1 }, until: 1000 });
  assert.equal(reachExcess(caller, key({ models: ["a"] }), DEFAULT_CAPS), undefined);
  assert.match(excessOf(caller, key({ models: ["a"] }), DEFAULT_CAPS) ?? "", /^limits:/);
  assert.match(reachExcess(caller, key({ models: ["b"] }), DEFAULT_CAPS) ?? "", /^models:/);
});

const FIGURES: readonly LimitFigure[] = ["requestsPerMinute", "concurrentRequests"];
const small = fc.integer({ min: 0, max: 3 });
const limitsOf = fc.record(
  {
    requestsPerMinute: small,
    concurrentRequests: small,
    budgets: fc.array(
      fc.record({ period: fc.constantFrom(...PERIODS), unit: fc.constantFrom(...BUDGET_UNITS), amount: small }),
      { maxLength: 3 },
    ),
  },
  { requiredKeys: [] },
);

test("property: no use and no time fits a key that passes and not its maker", () => {
  let passed = 0;
  const time = fc.option(small, { nil: undefined });
  fc.assert(
    fc.property(limitsOf, limitsOf, time, time, (own, given, until, expiresAt) => {
      const caller = manager({}, { limits: own, ...(until !== undefined && { until }) });
      const wanted = key({}, { limits: given, ...(expiresAt !== undefined && { expiresAt }) });
      if (excessOf(caller, wanted, DEFAULT_CAPS) !== undefined) return;
      passed++;
      const fits = (limits: Limits, used: number): boolean =>
        FIGURES.every((name) => used <= (limits[name] ?? Infinity));
      const fitsBudgets = ({ budgets: all = [] }: Limits, used: Budget): boolean =>
        all.every(({ period, unit, amount }) => period !== used.period || unit !== used.unit || used.amount <= amount);
      for (let used = 0; used < 5; used++) {
        assert.ok(!fits(given, used) || fits(own, used));
        for (const period of PERIODS)
          for (const unit of BUDGET_UNITS)
            assert.ok(
              !fitsBudgets(given, { period, unit, amount: used }) || fitsBudgets(own, { period, unit, amount: used }),
            );
        assert.ok(!(used < (expiresAt ?? Infinity)) || used < (until ?? Infinity));
      }
    }),
    { numRuns: 5000 },
  );
  assert.ok(passed > 50, `only ${passed} keys passed`);
});

const names = fc.option(fc.array(fc.stringMatching(/^[ab*?]{0,4}$/), { maxLength: 3 }), { nil: undefined, freq: 1 });
const NETWORKS = ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "0.0.0.0/0", "192.0.2.1", "::/0", "2001:db8::1"];
const networks = fc.option(fc.subarray(NETWORKS), { nil: undefined, freq: 1 });
const priority = fc.option(fc.integer({ min: -3, max: 3 }), { nil: undefined, freq: 1 });
const rights = fc.record({
  role: fc.constantFrom(...(Object.keys(ROLES) as Role[])),
  narrower: fc.option(fc.subarray([...SCOPES]), { nil: undefined, freq: 1 }),
  lists: fc.record({ models: names, adapters: names, tools: names, networks, priority }),
  caps: fc.record(
    { n: fc.integer({ min: 1, max: 40 }), logprobs: fc.integer({ min: -1, max: 30 }) },
    { requiredKeys: [] },
  ),
});

function principalFrom({
  role,
  narrower,
  lists,
  caps,
}: typeof rights extends fc.Arbitrary<infer T> ? T : never): Principal {
  const reach = Object.fromEntries(Object.entries(lists).filter(([, value]) => value !== undefined)) as Reach;
  return principalOf({ id: "key_x", tenant: "t", role, ...(narrower && { scopes: narrower }), reach, caps });
}

const ADDRESSES = ["10.0.0.1", "10.1.2.3", "192.0.2.1", "203.0.113.9", "2001:db8::1", "fe80::1"];
const WORDS = ["", "a", "b", "ab", "ba", "abab", "aaaa", "z"];

test("property: a key that passes does nothing that its maker cannot, or a service", () => {
  const sizes = (caps: RequestCaps, name: CapName): number =>
    name === "logprobs" && caps[name] < 0 ? Infinity : caps[name];
  let passed = 0;
  fc.assert(
    fc.property(rights, rights, (one, other) => {
      const caller = principalFrom(one);
      const made = principalFrom(other);
      if (caller.scopes.has("admin")) return;
      const wanted = { role: made.role, scopes: [...made.scopes], reach: made.reach, caps: made.caps, limits: {} };
      if (excessOf(caller, wanted, DEFAULT_CAPS) !== undefined) return;
      passed++;
      const service: readonly Scope[] = ROLES.service;
      for (const scope of made.scopes) assert.ok(caller.scopes.has(scope) || service.includes(scope));
      assert.ok((made.reach.priority ?? 0) >= (caller.reach.priority ?? 0));
      const [now, before] = [capsFor(DEFAULT_CAPS, made.caps), capsFor(DEFAULT_CAPS, caller.caps)];
      for (const cap of Object.keys(CAP_ROWS) as CapName[]) {
        assert.ok(sizes(now, cap) <= sizes(DEFAULT_CAPS, cap));
        assert.ok(sizes(now, cap) <= sizes(before, cap));
      }
      const sees = (list: readonly string[] | undefined, word: string): boolean =>
        list === undefined || list.some((pattern) => matches(pattern, word));
      for (const part of ["models", "adapters", "tools"] as const)
        for (const word of WORDS)
          assert.ok(!sees(made.reach[part], word) || sees(caller.reach[part], word), `${part} ${word}`);
      const from = ({ reach }: Principal, address: string): boolean =>
        reach.networks === undefined || inNetworks(reach.networks, address);
      for (const address of ADDRESSES) assert.ok(!from(made, address) || from(caller, address), address);
    }),
    { numRuns: 20_000 },
  );
  assert.ok(passed > 100, `only ${passed} keys passed`);
});
