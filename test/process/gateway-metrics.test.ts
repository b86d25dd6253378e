/**
 * A gateway that passes on what the servers behind it say of themselves for Prometheus: one of them dies.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type FakeVllm, fakeVllm, type Recorded } from "../fixtures/fake-vllm.ts";
import { keyFile } from "../fixtures/recording-upstream.ts";
import { makeKey, startServer, TEST_KEY, type TestServer, until } from "../harness.ts";

let vllm: FakeVllm;
let castellan: TestServer;
let gateway: TestServer;
let asked: Recorded | undefined;
let text = "";

before(async () => {
  vllm = await fakeVllm("inside");
  vllm.answers.set("/metrics", (request, response) => {
    asked = request;
    response.writeHead(200, { "content-type": "text/plain; version=0.0.4; charset=utf-8" }).end(text);
  });
  castellan = await startServer({ args: ["--served-model-name", "inside"] });
  // The key that the other takes: of an operator, who may read metrics.
  const key = await makeKey(castellan.stateDir, "admin", { name: "gateway" });
  await until("the key is known", async () => (await castellan.fetch("/metrics", { key })).status === 200);
  gateway = await startServer({
    args: [
      ...["--upstream", vllm.url, "--upstream", castellan.url, "--upstream-key-file", keyFile(key)],
      ...["--served-model-name", "outside", "--upstream-model", "inside", "--upstream-health-interval", "1"],
    ],
  });
});
after(async () => {
  await gateway.stop();
  await castellan.stop();
  await vllm.close();
});

const metrics = (path = "/metrics/upstreams", key = gateway.adminKey, headers: Record<string, string> = {}) =>
  fetch(gateway.opsUrl + path, { headers: { authorization: `Bearer ${key}`, ...headers } });
/** What was collected a moment ago is given again. */
const eventually = (what: string, right: (text: string) => boolean): Promise<void> =>
  until(what, async () => right(await (await metrics()).text()));
const says =
  (...servers: readonly number[]) =>
  (text: string) =>
    [0, 1].every((server) => text.includes(`upstream="upstream-${server}"`) === servers.includes(server));

test("each server's samples are there under its label, asked for by the gateway's key alone", async () => {
  text = '# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{model_name="inside",upstream="x"} 3\n';
  await eventually("both", says(0, 1));
  const answer = await metrics(undefined, undefined, { "x-request-id": "of-the-client", accept: "text/html" });
  assert.equal(answer.headers.get("content-type"), "text/plain; version=0.0.4; charset=utf-8");
  const lines = (await answer.text()).split("\n");
  assert.deepEqual(
    lines.filter((line) => line.includes("vllm:num_requests_running")).map((line) => line.replace(/ # HELP.*/, "")),
    [
      "# HELP vllm:num_requests_running Number of requests in model execution batches.",
      "# TYPE vllm:num_requests_running gauge",
      'vllm:num_requests_running{model="outside",upstream="upstream-0",model_name="inside",exported_upstream="x"} 3',
      'vllm:num_requests_running{model="outside",upstream="upstream-1",model_name="inside",engine="0"} 0',
    ],
  );
  assert.doesNotMatch(JSON.stringify(asked?.headers), /of-the-client|text\/html/);
  assert.notEqual(asked?.headers.authorization, `Bearer ${gateway.adminKey}`);
});

test("who may: those who read metrics, of the operator's tenant, on the operations listener", async () => {
  const service = await makeKey(gateway.stateDir, "service", { name: "prometheus" });
  await until("the key is known", async () => (await metrics(undefined, service)).status === 200);
  const tenant = await makeKey(gateway.stateDir, "service", { name: "prometheus", tenant: "acme" });
  await until("the key is known", async () => (await metrics("/metrics", tenant)).status === 200);
  assert.equal((await metrics(undefined, tenant)).status, 403);
  assert.equal((await metrics(undefined, TEST_KEY)).status, 403);
  assert.equal((await gateway.fetch("/metrics/upstreams", { key: gateway.adminKey })).status, 404);
  assert.equal((await fetch(`${gateway.opsUrl}/metrics/upstreams`)).status, 401);
  const alone = await fetch(`${castellan.opsUrl}/metrics/upstreams`, {
    headers: { authorization: `Bearer ${castellan.adminKey}` },
  });
  assert.equal(alone.status, 501, "nothing is behind it");
});

test("what one says that is no exposition is left out and counted; and then one is dead", async () => {
  text = "vllm:num_requests_running 3\n<script>\n";
  await eventually("the other alone", says(1));
  const own = await (await metrics("/metrics")).text();
  assert.match(own, /^castellan:upstream_scrapes_total\{[^}]*upstream="upstream-0",outcome="malformed"\} \d+$/m);
  text = "vllm:num_requests_running 3\n";
  await eventually("both", says(0, 1));
  await castellan.stop();
  await eventually("the one that lives", says(0));
  await until("the other is known to be dead", async () =>
    /upstream="upstream-1",state="unhealthy"\} 1$/m.test(await (await metrics("/metrics")).text()),
  );
  await eventually("the one that lives", says(0));
});
