import assert from "node:assert/strict";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { silentLog } from "#base/log.ts";
import { createRegistry } from "#base/metrics.ts";
import { resolveSettings } from "#config/resolve.ts";
import { flagOf, SETTINGS, type SettingName } from "#config/settings.ts";
import { answer, close, faultServer, whole } from "#test/fixtures/fault-server.ts";
import { sendTo } from "#test/fixtures/pool-send.ts";
import { StartupError } from "./startup-error.ts";
import { modelPlan } from "./upstream-models.ts";
import { healthOptions, poolOptions, TUNING } from "./upstream-tuning.ts";
import { openUpstreams } from "./upstreams.ts";

const settingsOf = (...argv: readonly string[]) => resolveSettings(argv, {}).settings;
let files = 0;
const folder = mkdtempSync(join(tmpdir(), "castellan-tuning-"));
function ofYaml(yaml: string) {
  const path = join(folder, `${files++}.yaml`);
  writeFileSync(path, yaml);
  return settingsOf("--config", path);
}
const plansOf = (settings: ReturnType<typeof settingsOf>) => modelPlan(settings).upstream.map(({ tuning }) => tuning);

test("every number about upstreams is a flag, and in a model's entry the same without upstream-", () => {
  const numbers = (Object.keys(SETTINGS) as SettingName[]).filter(
    (name) => name.startsWith("upstream") && typeof SETTINGS[name].fallback === "number",
  );
  assert.deepEqual(Object.values(TUNING).sort(), numbers.sort());
  for (const [key, name] of Object.entries(TUNING)) assert.equal(flagOf(name), `upstream-${key}`);
});

test("by default as it always was", () => {
  const [tuning] = plansOf(settingsOf("--upstream", "http://127.0.0.1:1"));
  assert.ok(tuning !== undefined);
  assert.deepEqual(poolOptions(tuning), {
    ...{ affinityFactor: 1.5, affinitySlackTokens: 8192, affinityEntries: 65_536, slowStartMs: 30_000 },
    ...{ consecutiveFailures: 5, failureShare: 0.5, failureLeast: 20 },
    ...{ ejectMs: 5000, ejectMostMs: 300_000, ejectShare: 0.5 },
    ...{ maxInFlight: 256, maxWaiting: 1024, maxWaitMs: 30_000, retryShare: 0.2, retriesPerSecond: 3 },
    timeouts: { firstByteMs: 600_000, idleMs: 300_000, totalMs: 3_600_000 },
  });
  assert.deepEqual(healthOptions(tuning), { intervalMs: 5000, timeoutMs: 5000, failures: 2 });
});

test("a model's own numbers are before those of all models", () => {
  const [own, other] = plansOf(
    ofYaml(`
upstream-slow-start: 10
upstream-eject-after: 9
models:
  - { name: a, upstreams: [http://127.0.0.1:1], slow_start: 2m, maxEjectedPercent: 0, health-failures: 7 }
  - { name: b, upstreams: [http://127.0.0.1:1] }
`),
  );
  assert.ok(own !== undefined && other !== undefined);
  assert.deepEqual([poolOptions(own).slowStartMs, poolOptions(other).slowStartMs], [120_000, 10_000]);
  assert.deepEqual([poolOptions(own).ejectShare, poolOptions(other).ejectShare], [0, 0.5]);
  assert.deepEqual([own.upstreamEjectAfter, healthOptions(own).failures, healthOptions(other).failures], [9, 7, 2]);
});

test("bounds hold wherever a number stands, and are said with the place", () => {
  const refused = (settings: () => ReturnType<typeof settingsOf>, message: RegExp): void =>
    assert.throws(
      () => plansOf(settings()),
      (error) => error instanceof StartupError && message.test(error.message),
      String(message),
    );
  const entry = (more: string) => () => ofYaml(`models:\n  - { name: a, upstreams: [http://127.0.0.1:1], ${more} }\n`);
  refused(entry("eject-after: 0"), /^models\.0\.eject-after: lies between 1 and 10000$/);
  refused(entry("max-requests: 1.5"), /^models\.0\.max-requests: takes a whole number$/);
  refused(entry("slow-start: soon"), /^models\.0\.slow-start: takes a duration/);
  refused(entry("slow-start: [1]"), /^models\.0\.slow-start: /);
  refused(entry("eject-soon: 1"), /^models\.0: .*eject-soon/);
  refused(entry("eject-time: 400"), /^models\.0: eject-max-time is shorter than eject-time$/);
  refused(() => ofYaml("models:\n  - { name: a, backend: local, eject-after: 1 }\n"), /backend local has none/);
  assert.throws(() => settingsOf("--upstream-eject-percent", "0"), /lies between 1 and 100/);
});

test("they are what the pools go by", async (t) => {
  const [bad, good] = [await faultServer(close()), await faultServer(answer(whole("{}")))];
  const registry = createRegistry();
  const settings = settingsOf(
    ...["--upstream", bad.origin, "--upstream", good.origin, "--served-model-name", "m"],
    ...["--upstream-eject-after", "1", "--upstream-eject-time", "1h", "--upstream-eject-max-time", "1h"],
    ...["--upstream-health-interval", "0"],
  );
  const upstreams = await openUpstreams(settings, registry, { log: silentLog, hide: () => {} });
  t.after(async () => {
    await upstreams?.destroy();
    await Promise.all([bad.close(), good.close()]);
  });
  const [pool] = (upstreams?.models ?? []).map((model) => model.pool);
  assert.ok(pool !== undefined);
  const request = { method: "POST", target: "/v1/completions", headers: [], body: [Buffer.from("{}")] };
  for (let n = 0; n < 3; n++) {
    const { status, source } = await sendTo(pool, request, { tokens: 1, idempotent: true });
    source.cancel();
    assert.equal(status, 200);
  }
  assert.deepEqual(
    pool.states().map(({ state }) => state),
    ["ejected", "ready"],
  );
  assert.equal(bad.requests.length, 1);
});
