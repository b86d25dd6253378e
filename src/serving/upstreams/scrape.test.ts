import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { createRegistry, printMetrics } from "#base/metrics.ts";
import { UpstreamClient } from "#egress/upstream/client.ts";
import {
  type Act,
  answer,
  chunk,
  faultServer,
  LAST_CHUNK,
  nothing,
  reset,
  whole,
} from "#test/fixtures/fault-server.ts";
import type { UpstreamState } from "./balancer.ts";
import { type ScrapeBounds, UpstreamScrape } from "./scrape.ts";

const TEXT = "text/plain; version=0.0.4; charset=utf-8";
const head = (type: string, framing: string): string =>
  `HTTP/1.1 200 OK\r\ncontent-type: ${type}\r\n${framing}\r\n\r\n`;
const said = (text: string, type = TEXT): Act => answer(head(type, `content-length: ${text.length}`) + text);

interface Server {
  readonly act: Act;
  readonly state?: UpstreamState;
}

interface Setting {
  readonly scrape: UpstreamScrape;
  readonly outcomes: () => Promise<readonly string[]>;
  readonly asked: () => readonly number[];
  readonly heads: () => readonly string[];
  readonly told: string[];
  wait(ms: number): void;
}

async function setUp(t: TestContext, given: readonly Server[], bounds: Partial<ScrapeBounds> = {}): Promise<Setting> {
  const servers = await Promise.all(given.map(({ act }) => faultServer(act)));
  const links = servers.map(({ origin }) => new UpstreamClient({ origin, connections: 2, connectMs: 5000 }));
  t.after(() => Promise.all([...links.map((link) => link.destroy()), ...servers.map((server) => server.close())]));
  const registry = createRegistry();
  const states = given.map(({ state = "ready" }, id) => ({
    ...{ id, state, label: `u${id}`, weight: 1, inFlight: 0, outstandingTokens: 0, firstByteSeconds: undefined },
    ...{ consecutiveFailures: 0, answered: 0, adapters: [] },
  }));
  const pool = {
    members: () => new Map(links.map((link, id) => [id, { label: `u${id}`, link }])),
    states: () => states,
  };
  const told: string[] = [];
  let now = 0;
  const scrape = new UpstreamScrape({
    pools: () => new Map([["m", pool]]),
    registry,
    log: (level, message, fields = {}) => told.push(`${level} ${message} ${fields["upstream"]} ${fields["outcome"]}`),
    bounds,
    now: () => now,
  });
  return {
    scrape,
    outcomes: async () => {
      const lines = (await printMetrics(registry)).body.split("\n").filter((line) => line.startsWith("castellan:"));
      return lines.map((line) => line.replace(/^.*upstream="(.*)",outcome="(.*)"} (\d+)$/, "$1 $2 $3"));
    },
    asked: () => servers.map(({ requests }) => requests.length),
    heads: () => servers.flatMap(({ requests }) => requests.map(({ head }) => head)),
    told,
    wait: (ms) => {
      now += ms;
    },
  };
}

test("every server that is well is asked, and what one says hurts no other", async (t) => {
  const setting = await setUp(t, [
    { act: said("# TYPE a gauge\na 1\n") },
    { act: said("a 2\na{ 3\n") },
    { act: answer(whole("{}", "404 Not Found")) },
    { act: reset(`${head("text/plain", "content-length: 100")}a 4\n`) },
    { act: nothing, state: "unhealthy" },
    { act: said("b 5\n# EOF\n", "application/openmetrics-text; version=1.0.0"), state: "asleep" },
    { act: said("a 6\n", "text/html") },
    { act: said("a 7\n# EOF\n"), state: "ejected" },
    { act: nothing, state: "leaving" },
  ]);
  assert.equal(
    await setting.scrape.text(),
    `b{model="m",upstream="u5"} 5
a{model="m",upstream="u0"} 1
a{model="m",upstream="u7"} 7
`,
    "one calls it a gauge, another nothing: no type",
  );
  assert.deepEqual(setting.asked(), [1, 1, 1, 1, 0, 1, 1, 1, 0]);
  assert.deepEqual([...(await setting.outcomes())].sort(), [
    "u0 ok 1",
    "u1 malformed 1",
    "u2 refused 1",
    "u3 failed 1",
    "u5 ok 1",
    "u6 malformed 1",
    "u7 ok 1",
  ]);
});

test("bytes are bounded, each server's and all together; so is the time", async (t) => {
  const long = `a ${"1".repeat(60)}\n`;
  const endless: Act = ({ socket }) => {
    const more = (): void => void (socket.destroyed || socket.write(chunk(`# ${"x".repeat(1000)}\n`), more));
    socket.write(head("text/plain", "transfer-encoding: chunked"), more);
  };
  const each = await setUp(t, [{ act: said(long) }, { act: endless }, { act: said("x".repeat(5000)) }], {
    bytes: 4096,
  });
  assert.equal(await each.scrape.text(), `a{model="m",upstream="u0"} ${"1".repeat(60)}\n`);
  assert.deepEqual([...(await each.outcomes())].sort(), ["u0 ok 1", "u1 too_large 1", "u2 too_large 1"]);
  const together = await setUp(t, [{ act: said(long) }, { act: said(long) }, { act: said(long) }], { allBytes: 130 });
  await together.scrape.text();
  const outcomes = (await together.outcomes()).map((line) => line.slice(3));
  assert.deepEqual([...outcomes].sort(), ["ok 1", "ok 1", "too_large 1"]);
  const silent = await setUp(t, [{ act: nothing }], { timeoutMs: 50 });
  assert.equal(await silent.scrape.text(), "");
  assert.deepEqual(await silent.outcomes(), ["u0 timeout 1"]);
});

test("a server that stops in the middle has said nothing", async (t) => {
  const cut = head("text/plain", "transfer-encoding: chunked") + chunk("a 1\nb ") + LAST_CHUNK;
  const setting = await setUp(t, [{ act: answer(cut) }]);
  assert.equal(await setting.scrape.text(), "");
  assert.deepEqual(await setting.outcomes(), ["u0 malformed 1"]);
});

test("who asks meanwhile, or a moment later, gets the same; what fails is told once", async (t) => {
  const setting = await setUp(t, [{ act: said("a{") }]);
  assert.deepEqual(await Promise.all([setting.scrape.text(), setting.scrape.text()]), ["", ""]);
  setting.wait(999);
  await setting.scrape.text();
  assert.deepEqual(setting.asked(), [1]);
  setting.wait(1);
  await setting.scrape.text();
  assert.deepEqual(setting.asked(), [2]);
  assert.deepEqual(setting.told, ["warn an upstream's metrics cannot be had u0 malformed"]);
  const [asked = ""] = setting.heads();
  assert.match(asked, /^GET \/metrics HTTP\/1\.1\r\n/);
  assert.match(asked, /\r\naccept: text\/plain;version=0\.0\.4\r\n/);
});
