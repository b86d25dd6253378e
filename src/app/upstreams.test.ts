import assert from "node:assert/strict";
import { chmodSync, mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { inspect } from "node:util";
import { silentLog } from "#base/log.ts";
import { createRegistry } from "#base/metrics.ts";
import { resolveSettings } from "#config/resolve.ts";
import { authority } from "#test/fixtures/certificates.ts";
import { answer, faultServer, whole } from "#test/fixtures/fault-server.ts";
import { sendTo } from "#test/fixtures/pool-send.ts";
import { givenSecrets } from "./secrets.ts";
import { StartupError } from "./startup-error.ts";
import { modelPlan } from "./upstream-models.ts";
import { openUpstreams } from "./upstreams.ts";

const EVENTS = { log: silentLog, hide: () => {} };
const folder = mkdtempSync(join(tmpdir(), "castellan-upstreams-"));
let files = 0;

function file(text: string, mode = 0o600): string {
  const path = join(folder, String(files++));
  writeFileSync(path, text);
  chmodSync(path, mode);
  return path;
}

const settingsOf = (...argv: readonly string[]) => resolveSettings(argv, {}).settings;
const ofYaml = (yaml: string) => modelPlan(settingsOf("--config", file(yaml)));

function refused(run: () => unknown, message: RegExp): void {
  assert.throws(run, (error) => error instanceof StartupError && message.test(error.message), String(message));
}

test("in one line", () => {
  const key = file("sk-upstream-key-1\n");
  const argv = ["--upstream", "http://127.0.0.1:8001", "--upstream", "unix:/run/vllm.sock", "--upstream-key-file", key];
  const plan = modelPlan(settingsOf(...argv, "--served-model-name", "a", "--served-model-name", "b"));
  const [model] = plan.upstream;
  assert.deepEqual(
    [plan.local, model?.name, model?.aliases, model?.sources.map(({ label, place }) => [label, place.kind])],
    [
      undefined,
      "a",
      ["b"],
      [
        ["upstream-0", "fixed"],
        ["upstream-1", "unix"],
      ],
    ],
  );
  assert.equal(model?.credentials.key?.expose(), "sk-upstream-key-1");
  assert.doesNotMatch(inspect(plan, { depth: 9 }) + JSON.stringify(plan), /sk-upstream-key-1/);
  assert.ok(givenSecrets(settingsOf(...argv)).some((secret) => secret.expose() === "sk-upstream-key-1"));
  assert.deepEqual(modelPlan(settingsOf()), { local: undefined, upstream: [] });
});

test("models of the config file, in any of its spellings", () => {
  const key = file("k");
  const plan = ofYaml(`
port: 9000
models:
  - name: qwen
    aliases: [gpt-4]
    upstream_model: Qwen/Qwen3-32B
    keyFile: ${key}
    upstreams:
      - https://gpu1.internal:8000
      - { url: "dns+srvs://_https._tcp.vllm.default.svc", weight: 2, label: cluster }
  - name: small
    backend: local
`);
  assert.deepEqual(plan.local, { name: "small", aliases: [] });
  const [model] = plan.upstream;
  assert.deepEqual(
    [model?.name, model?.aliases, model?.upstreamModel, model?.credentials.key?.expose()],
    ["qwen", ["gpt-4"], "Qwen/Qwen3-32B", "k"],
  );
  assert.deepEqual(
    model?.sources.map(({ label, weight, place }) => [label, weight, place.kind]),
    [
      ["upstream-0", 1, "fixed"],
      ["cluster", 2, "srv"],
    ],
  );
});

test("what is wrong is said, with its place, and without a secret", async () => {
  const models = (text: string) => () => ofYaml(`models:\n${text}`);
  refused(models("  - name: a\n"), /models\.0: names no upstreams/);
  refused(models("  - name: a\n    upstreams: [http://h/v1]\n"), /models\.0\.upstreams\.0: the URL .*not \/v1/);
  refused(models("  - { name: a, upstreams: [http://u:secret@h] }\n"), /^(?!.*secret)models\.0\.upstreams\.0/);
  refused(models("  - { name: a, upstreams: [http://8.8.8.8] }\n"), /plain http to a public address/);
  refused(models("  - { name: a, upstreams: [http://h], weight: 2 }\n"), /models\.0: .*weight/);
  refused(
    models("  - { name: a, upstreams: [http://h] }\n  - { name: b, aliases: [a], upstreams: [http://h] }\n"),
    /a stands twice/,
  );
  refused(models("  - { name: a, backend: local, key-file: x }\n"), /models\.0\.key-file/);
  refused(models("  - { name: a, backend: local }\n  - { name: b, backend: local }\n"), /one model at most/);
  refused(models("  - { name: a, ca: /nowhere, upstreams: [https://h] }\n"), /cannot be read/);
  refused(() => modelPlan(settingsOf("--models", '{"a":1}')), /^models: /);
  refused(() => modelPlan(settingsOf("--models", "[]", "--upstream", "http://h")), /keep one/);
  const open = file("k", 0o644);
  refused(() => modelPlan(settingsOf("--upstream", "http://h", "--upstream-key-file", open)), /chmod 600/);
  const two = file("a\nb");
  refused(() => modelPlan(settingsOf("--upstream", "http://h", "--upstream-key-file", two)), /no key in one line/);
  const ca = await authority();
  const [own, other] = [await ca.issue({}), await ca.issue({})];
  const tls = (scheme: string, key: string) => () =>
    modelPlan(
      settingsOf("--upstream", `${scheme}://h`, "--upstream-cert", file(own.cert), "--upstream-cert-key", file(key)),
    );
  refused(tls("https", other.key), /does not belong/);
  refused(tls("https", "what?"), /damaged/);
  refused(tls("http", own.key), /no upstream is https/);
  assert.equal(tls("https", own.key)().upstream[0]?.credentials.tls?.key?.expose(), own.key);
  refused(() => modelPlan(settingsOf("--upstream", "https://h", "--upstream-cert", file(own.cert))), /given together/);
});

test("opened: what is served is asked, a request goes through, the end waits for it", async (t) => {
  const server = await faultServer(({ socket, head }) => {
    const models = JSON.stringify({ data: [{ id: "qwen", parent: null }] });
    socket.write(head.startsWith("GET /v1/models") ? whole(models) : whole("{}"));
  });
  t.after(() => server.close());
  const registry = createRegistry();
  const key = file("k-1");
  const settings = settingsOf("--upstream", server.origin, "--upstream-key-file", key);
  const upstreams = await openUpstreams(settings, registry, EVENTS);
  assert.ok(upstreams !== undefined);
  t.after(() => upstreams.destroy());
  assert.equal(server.connections(), 0);
  await upstreams.start();
  const [model] = upstreams.models;
  assert.deepEqual([model?.name, model?.served()], [undefined, ["qwen"]]);
  assert.ok(server.requests.every(({ head }) => head.includes("\r\nauthorization: Bearer k-1\r\n")));
  server.act(answer(whole("{}")));
  const request = { method: "POST", target: "/v1/completions", headers: [], body: [Buffer.from("{}")] };
  assert.ok(model !== undefined);
  const reply = await sendTo(model.pool, request, { tokens: 1, idempotent: true });
  assert.equal(reply?.status, 200);
  const closing = upstreams.close();
  await assert.rejects(sendTo(model.pool, request, { tokens: 1, idempotent: true }), /shutting down/);
  reply?.source.pipe({ write: () => true, end: () => {}, fail: assert.fail });
  await closing;
  assert.match(
    await registry.metrics(),
    /upstream_requests_total\{model_name="upstream",upstream="upstream-0",outcome="ok"\} 1/,
  );
  assert.equal(await openUpstreams(settingsOf(), createRegistry(), EVENTS), undefined);
});
