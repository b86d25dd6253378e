/**
 * Two servers with engines behind gateways, one of which is killed while it answers: its streams end with an error in
 * their dialect, those of the other go on, new calls are answered all the while, and it is taken back when it is there
 * again. One gateway learns it from calls alone, the other from its looks.
 */
import assert from "node:assert/strict";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { keyFile, UPSTREAM_KEY } from "../fixtures/recording-upstream.ts";
import { makeKey, startServer, type TestServer, until } from "../harness.ts";

let doomed: TestServer;
let other: TestServer;
/** Never looks at its upstreams. */
let blind: TestServer;
let looking: TestServer;
let key: string;

const startUpstream = (port?: number): Promise<TestServer> =>
  startServer({
    apiKey: UPSTREAM_KEY,
    // Few at a time, so that streams last.
    args: ["--served-model-name", "inside", "--max-num-seqs", "2"],
    ...(port === undefined ? {} : { port }),
  });

before(async () => {
  [doomed, other] = await Promise.all([startUpstream(), startUpstream()]);
  const stateDir = join(mkdtempSync(join(tmpdir(), "castellan-gateway-")), "state");
  key = await makeKey(stateDir, "service", { name: "counted", tenant: "acme" });
  const to = ["--upstream", doomed.url, "--upstream", other.url, "--upstream-key-file", keyFile()];
  [blind, looking] = await Promise.all([
    startServer({ stateDir, args: [...to, "--upstream-health-interval", "0"] }),
    startServer({ args: [...to, "--upstream-health-interval", "1"] }),
  ]);
});
after(async () => {
  await Promise.all([blind, looking].map((gateway) => gateway.stop()));
  await Promise.all([doomed, other].map((upstream) => upstream.stop()));
});

const LONG = "and so on ".repeat(300);

interface Dialect {
  readonly path: string;
  readonly body: object;
  readonly end: string;
  readonly error: RegExp;
  readonly used: RegExp;
}

const COMPLETIONS: Dialect = {
  path: "/v1/completions",
  body: { prompt: [5], max_tokens: 900, ignore_eos: true, temperature: 0, stream_options: { include_usage: true } },
  end: "data: [DONE]\n\n",
  error:
    /\n\ndata: \{"error":\{"message":"The model's server broke off\.","type":"Bad Gateway","param":null,"code":502\}\}\n\ndata: \[DONE\]\n\n$/,
  used: /"usage":\{"prompt_tokens":(\d+),"total_tokens":\d+,"completion_tokens":(\d+)/,
};
const MESSAGES: Dialect = {
  path: "/v1/messages",
  body: {
    messages: [{ role: "user", content: "Go on" }],
    max_tokens: 2000,
    output_config: { format: { type: "json_schema", schema: { enum: [LONG] } } },
  },
  end: 'event: message_stop\ndata: {"type":"message_stop"}\n\n',
  error:
    /\n\nevent: error\ndata: \{"type":"error","error":\{"type":"api_error","message":"The model's server broke off\."\},"request_id":"[^"]+"\}\n\n$/,
  used: /"type":"message_delta".*"usage":\{"input_tokens":(\d+),"output_tokens":(\d+)/,
};

const askShort = (gateway: TestServer): Promise<Response> =>
  gateway.fetch("/v1/completions", {
    method: "POST",
    body: JSON.stringify({ model: "inside", prompt: [7, 8], max_tokens: 2 }),
  });
const operator = async (server: TestServer, path: string): Promise<string> => {
  const { opsUrl, adminKey } = server;
  return (await fetch(opsUrl + path, { headers: { authorization: `Bearer ${adminKey}` } })).text();
};

/** Of the first, as the gateway sees it. */
async function stateAt(gateway: TestServer): Promise<string> {
  const metrics = await operator(gateway, "/metrics");
  const state = /^castellan:upstream_state\{model_name="upstream",upstream="upstream-0",state="(\w+)"\} 1$/m;
  return state.exec(metrics)?.[1] ?? assert.fail(metrics);
}

test("kill -9 of one of two servers, and its return", { timeout: 180_000 }, async () => {
  // Each kind at each server: a stream goes where less is to be done.
  const kinds = [COMPLETIONS, COMPLETIONS, MESSAGES, MESSAGES];
  const streams: { readonly dialect: Dialect; readonly text: Promise<string> }[] = [];
  for (const dialect of kinds) {
    const { path, body } = dialect;
    const response = await blind.fetch(path, {
      method: "POST",
      body: JSON.stringify({ model: "inside", ...body, stream: true }),
      key,
    });
    assert.equal(response.status, 200);
    streams.push({ dialect, text: response.text() });
  }
  const port = doomed.port;
  process.kill(doomed.child.pid ?? assert.fail(), "SIGKILL");
  await doomed.exited;
  // One after the other, so that the one that is gone is asked often enough to be put out.
  for (let at = 0; at < 20; at++)
    for (const gateway of [blind, looking]) {
      const answer = await askShort(gateway);
      assert.equal(answer.status, 200, await answer.text());
    }
  await until("the one that looks has seen it", async () => (await stateAt(looking)) === "unhealthy");
  assert.match(await operator(blind, "/metrics"), /^castellan:upstream_ejections_total\{[^}]*"upstream-0"\} [1-9]/m);
  const texts = await Promise.all(streams.map(async ({ dialect, text }) => ({ dialect, text: await text })));
  const broken = texts.filter(({ dialect, text }) => dialect.error.test(text));
  const whole = texts.filter(({ dialect, text }) => text.endsWith(dialect.end) && dialect.used.test(text));
  for (const some of [broken, whole])
    assert.deepEqual(
      some.map(({ dialect }) => dialect),
      [COMPLETIONS, MESSAGES],
    );
  await checkBooks(whole);

  doomed = await startUpstream(port);
  for (const gateway of [blind, looking]) {
    await until("it is back", async () => {
      assert.equal((await askShort(gateway)).status, 200);
      return (await stateAt(gateway)) === "ready";
    });
  }
  await until("it is asked again", async () => {
    for (const gateway of [blind, looking]) assert.equal((await askShort(gateway)).status, 200);
    return /^http_requests_total\{handler="\/v1\/completions",method="POST",status="2xx"\} [1-9]/m.test(
      await operator(doomed, "/metrics"),
    );
  });
});

/** What broke off costs nothing. */
async function checkBooks(whole: readonly { readonly dialect: Dialect; readonly text: string }[]): Promise<void> {
  const used = whole.map(({ dialect, text }) => dialect.used.exec(text)?.slice(1).map(Number) ?? assert.fail(text));
  const sum = (at: number): number => used.reduce((total, each) => total + (each[at] ?? Number.NaN), 0);
  const { data } = JSON.parse(await operator(blind, "/admin/usage?by=tenant")) as {
    data: readonly { tenant: string; prompt_tokens: number; completion_tokens: number }[];
  };
  const row = data.find(({ tenant }) => tenant === "acme");
  assert.deepEqual([row?.prompt_tokens, row?.completion_tokens], [sum(0), sum(1)]);
}
