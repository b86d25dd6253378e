/**
 * Development and fault tolerance through a gateway: what goes to every server behind it, and what to none.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, beforeEach, test } from "node:test";
import { segmentsIn } from "#policy/audit/_segments.ts";
import { parseRecord } from "#policy/audit/record.ts";
import { type FakeVllm, fakeVllm, json } from "../fixtures/fake-vllm.ts";
import { makeKey, startServer, type TestServer, until } from "../harness.ts";

let servers: readonly [FakeVllm, FakeVllm];
let gateway: TestServer;

before(async () => {
  servers = [await fakeVllm("inside"), await fakeVllm("inside")];
  gateway = await startServer({
    args: [
      ...servers.flatMap(({ url }) => ["--upstream", url]),
      ...["--served-model-name", "outside", "--upstream-model", "inside", "--upstream-health-interval", "1"],
      ...["--server-dev-mode", "--enable-fault-tolerance"],
    ],
  });
});
beforeEach(() => {
  for (const server of servers) {
    server.asked.length = 0;
    server.answers.clear();
  }
});
after(async () => {
  await gateway.stop();
  for (const server of servers) await server.close();
});

const ops = (path: string, body?: string, key = gateway.adminKey) =>
  fetch(gateway.opsUrl + path, {
    method: body === undefined ? "GET" : "POST",
    headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
    ...(body === undefined ? {} : { body }),
  });
const asked = () => servers.map((server) => server.asked.map(({ method, url, body }) => `${method} ${url} ${body}`));

test("a method of the list is called at every server, without anything else that was written", async () => {
  for (const [at, server] of servers.entries())
    server.answers.set("/collective_rpc", (_, response) => json(response, { results: [`of ${at}`] }));
  const answer = await ops(
    "/collective_rpc",
    '{ "method": "check_health", "args": [], "timeout": 2.5, "cwd": "/", "kwargs": {} }',
  );
  assert.deepEqual([answer.status, await answer.json()], [200, { results: ["of 0", "of 1"] }]);
  const sent = 'POST /collective_rpc {"method":"check_health","timeout":2.5}';
  assert.deepEqual(asked(), [[sent], [sent]]);
});

test("what is refused reaches no server", async () => {
  const theirs = await makeKey(gateway.stateDir, "admin", { name: "theirs", tenant: "acme" });
  await until("the key is known", async () => (await ops("/metrics", undefined, theirs)).status === 200);
  const operator = await makeKey(gateway.stateDir, "operator", { name: "operator" });
  await until("the key is known", async () => (await ops("/metrics", undefined, operator)).status === 200);
  const rpc = (more: object) => JSON.stringify({ method: "check_health", ...more });
  const apply = (more: object) =>
    JSON.stringify({ fault_tolerance_instruction: "retry", fault_tolerance_timeout: 5, ...more });
  for (const [path, body, status, key] of [
    ["/collective_rpc", rpc({ method: "load_model" }), 400],
    ["/collective_rpc", rpc({ method: "__reduce__" }), 400],
    ["/collective_rpc", rpc({ args: ["x"] }), 400],
    ["/collective_rpc", rpc({ kwargs: { x: 1 } }), 400],
    ["/collective_rpc", rpc({ timeout: 1000 }), 400],
    ["/collective_rpc", '{"method":"load_model","method":"check_health"}', 400],
    ["/collective_rpc", rpc({}), 403, theirs],
    ["/collective_rpc", rpc({}), 403, operator],
    ["/fault_tolerance/apply", apply({ fault_tolerance_instruction: "scale_down" }), 400],
    ["/fault_tolerance/apply", apply({ fault_tolerance_timeout: 0 }), 400],
    ["/fault_tolerance/apply", apply({ fault_tolerance_params: { ranks: [1] } }), 400],
    ["/fault_tolerance/apply", apply({}), 403, theirs],
    ["/fault_tolerance/status", undefined, 403, theirs],
  ] as const) {
    const answer = await ops(path, body, key);
    assert.equal(answer.status, status, `${path} ${body}: ${await answer.text()}`);
  }
  assert.deepEqual(asked(), [[], []]);
});

test("fault tolerance: every server is told, in the fields that were judged; each call is in the audit log", async () => {
  const body = { fault_tolerance_timeout: 5, fault_tolerance_instruction: "pause", more: 1 };
  assert.equal((await ops("/fault_tolerance/apply", JSON.stringify(body))).status, 200);
  const sent =
    'POST /fault_tolerance/apply {"fault_tolerance_instruction":"pause","fault_tolerance_timeout":5,"fault_tolerance_params":{}}';
  assert.deepEqual(asked(), [[sent], [sent]]);
  servers[1].answers.set("/fault_tolerance/apply", (_, response) => json(response, {}, 500));
  const half = await ops("/fault_tolerance/apply", JSON.stringify(body));
  assert.equal(half.status, 502);
  assert.match(await half.text(), /1 of 2 servers did not do it/);
  const records = segmentsIn(join(gateway.stateDir, "audit"))
    .flatMap(({ path }) => readFileSync(path, "utf8").split("\n"))
    .flatMap((line) => JSON.stringify(parseRecord(line) ?? {}));
  for (const path of ["/collective_rpc", "/fault_tolerance/apply"])
    assert.ok(
      records.some((record) => record.includes(`"${path}"`)),
      path,
    );
});

test("calls are ended by their ids: a tenant's own, for the operator's tenant everybody's, and none that is over", async () => {
  const held: (() => void)[] = [];
  for (const server of servers)
    server.answers.set("/v1/completions", (_, response) => {
      held.push(() => json(response, { choices: [], usage: { prompt_tokens: 1, completion_tokens: 1 } }));
    });
  const [user, admin] = await Promise.all(
    (["user", "admin"] as const).map((role) => makeKey(gateway.stateDir, role, { name: role, tenant: "ending" })),
  );
  const mate = await makeKey(gateway.stateDir, "user", { name: "mate" });
  assert.ok(user !== undefined && admin !== undefined);
  await until("the key is known", async () => (await ops("/metrics", undefined, admin)).status === 200);
  const ask = async (key: string) => {
    const answer = await fetch(`${gateway.url}/v1/completions`, {
      method: "POST",
      headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
      body: JSON.stringify({ model: "outside", prompt: key === user ? "theirs" : "ours", max_tokens: 1 }),
    });
    return answer.status;
  };
  const known = async (): Promise<boolean> =>
    (await fetch(`${gateway.url}/v1/models`, { headers: { authorization: `Bearer ${mate}` } })).ok;
  await until("the last key is known", known);
  const calls = Promise.all([ask(user), ask(mate)]);
  await until("both are at a server", () => held.length === 2);
  const all = servers.flatMap((server) => server.asked);
  const idOf = (prompt: string): string =>
    String(all.find(({ body }) => String(body).includes(`"${prompt}"`))?.headers["x-request-id"]);
  const [theirs, ours] = [idOf("theirs"), idOf("ours")];
  const ids = JSON.stringify({ request_ids: ["unknown", `cmpl-${ours}`, `cmpl-${theirs}`, theirs] });
  const told = () => asked().map((requests) => requests.filter((request) => request.includes("/abort_requests")));
  const sent = (...own: string[]) => `POST /abort_requests ${JSON.stringify({ request_ids: own })}`;

  assert.equal((await ops("/abort_requests", ids, admin)).status, 200);
  assert.deepEqual(told(), [[sent(theirs)], [sent(theirs)]]);
  assert.equal((await ops("/abort_requests", ids)).status, 200);
  const both = (request: string | undefined): boolean => request?.includes(theirs) === true && request.includes(ours);
  assert.ok(told().every(([, second]) => both(second)));
  for (const answer of held) answer();
  assert.deepEqual(await calls, [200, 200]);
  assert.equal((await ops("/abort_requests", ids)).status, 200);
  assert.ok(
    told().every((requests) => requests.length === 2),
    "they are over",
  );
});

test("how the engines of all servers are, also where one server is away", async () => {
  servers[0].answers.set("/fault_tolerance/status", (_, response) =>
    json(response, { total_engines: 1, engines: [{ id: 0, status: "healthy" }] }),
  );
  servers[1].answers.set("/fault_tolerance/status", (_, response) =>
    json(response, { "0": { status: "ready", restarts: 3 } }),
  );
  const status = async () => (await ops("/fault_tolerance/status")).json();
  const first = { status: "healthy", restarts: 0 };
  assert.deepEqual(await status(), { "0": first, "1": { status: "ready", restarts: 3 } });
  await servers[1].close();
  assert.deepEqual(await status(), { "0": first, "1": { status: "unreachable", restarts: 0 } });
});
