/**
 * A gateway that fetches media for a server behind it, in a network of its own: run by gateway-media.test.ts. A server
 * of media over TLS stands at the public addresses, one that nobody should come to at a private one. Prints what each
 * check came to.
 */
import assert from "node:assert/strict";
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import type { IncomingMessage, ServerResponse } from "node:http";
import { createServer } from "node:https";
import { join } from "node:path";
import { dataUrl } from "#egress/media/data-url.ts";
import { authority } from "../fixtures/certificates.ts";
import { gif, png } from "../fixtures/images.ts";
import { makeNetwork } from "../fixtures/own-network.ts";
import { completion, keyFile, type RecordingUpstream, recordingUpstream } from "../fixtures/recording-upstream.ts";
import { makeKey, startServer, TEST_KEY, type TestServer, until } from "../harness.ts";

export interface Checked {
  readonly name: string;
  readonly error?: string;
}

const [folder = "/tmp"] = process.argv.slice(2);
const PUBLIC = ["93.184.216.34", "2606:4700::1111"];
const NAMES = { "media.example.net": PUBLIC, "inside.example.net": ["10.0.0.1"], "other.example.org": PUBLIC };
const HOME = "https://media.example.net";
const LOCAL = join(folder, "local");
const IMAGE = png(4, 4);
const SECOND = gif(3, 3);

/** What was asked of the public places. */
const fetched: string[] = [];
/** Addresses that nobody should have come to. */
const intruded: string[] = [];
/** Fetches that wait until they are let go. */
const waiting: (() => void)[] = [];
let mostAtOnce = 0;
let atOnce = 0;

function answer({ url = "/", socket }: IncomingMessage, response: ServerResponse): void {
  const at = (socket.localAddress ?? "").replace(/^::ffff:/, "");
  if (!PUBLIC.includes(at)) intruded.push(at);
  fetched.push(url);
  const send = (body: Buffer, type = "image/png"): void => {
    response.writeHead(200, { "content-type": type, "content-length": body.length }).end(body);
  };
  if (url === "/second.gif") send(SECOND, "image/gif");
  else if (url === "/page") send(Buffer.from("<!doctype html><p>hello"), "text/html");
  else if (url === "/missing") response.writeHead(404).end();
  else if (url === "/elsewhere") response.writeHead(302, { location: "https://inside.example.net/" }).end();
  else if (url.startsWith("/slow")) {
    mostAtOnce = Math.max(mostAtOnce, ++atOnce);
    response.on("close", () => atOnce--);
    waiting.push(() => send(IMAGE));
  } else send(IMAGE);
}

async function serveMedia(): Promise<string> {
  const ca = await authority();
  const { cert, key } = await ca.issue({ names: Object.keys(NAMES).map((name) => `dns:${name}`) });
  for (const host of ["0.0.0.0", "::"]) {
    const server = createServer({ cert, key }, answer);
    const options = { host, port: 443, ipv6Only: host === "::" };
    await new Promise<void>((done, fail) => server.once("error", fail).listen(options, done));
  }
  const file = join(folder, "ca.pem");
  writeFileSync(file, ca.cert);
  return file;
}

interface Bed {
  readonly upstream: RecordingUpstream;
  readonly gateway: TestServer;
  /** Of two tenants. */
  readonly keys: readonly [string, string];
}

async function open(): Promise<Bed> {
  await makeNetwork(folder, Object.fromEntries(Object.entries(NAMES).map(([name, found]) => [name, () => found])));
  const ca = await serveMedia();
  const upstream = await recordingUpstream(({ socket }) => socket.write(completion()));
  const stateDir = join(folder, "state");
  const key = (tenant: string) => makeKey(stateDir, "service", { name: tenant, tenant });
  const keys = [await key("one"), await key("two")] as const;
  const cache = join(folder, "cache");
  mkdirSync(cache, { mode: 0o700 });
  mkdirSync(LOCAL);
  writeFileSync(join(LOCAL, "a.png"), IMAGE);
  writeFileSync(join(LOCAL, "page.png"), "<!doctype html>");
  writeFileSync(join(folder, "outside.png"), IMAGE);
  symlinkSync(join(folder, "outside.png"), join(LOCAL, "link.png"));
  const gateway = await startServer({
    stateDir,
    env: { NODE_EXTRA_CA_CERTS: ca },
    args: [
      ...["--upstream", upstream.origin, "--upstream-key-file", keyFile()],
      ...["--allowed-media-domains", ".example.net", "--media-concurrency", "8", "--media-cache-dir", cache],
      ...["--allowed-local-media-path", LOCAL],
    ],
  });
  return { upstream, gateway, keys };
}

const checked: Checked[] = [];
let bed: Bed;

async function check(name: string, run: () => Promise<void>): Promise<void> {
  bed.upstream.calls.length = 0;
  fetched.length = 0;
  const error = await run().then(
    () => undefined,
    (thrown: unknown) => (thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown)),
  );
  checked.push({ name, ...(error === undefined ? {} : { error }) });
}

const post = (path: string, body: object, key = TEST_KEY): Promise<Response> =>
  bed.gateway.fetch(path, { method: "POST", body: JSON.stringify({ model: "inside", ...body }), key });
const chat = (...urls: readonly string[]) => ({
  messages: [{ role: "user", content: urls.map((url) => ({ type: "image_url", image_url: { url } })) }],
});
const askChat = (urls: readonly string[], key?: string) => post("/v1/chat/completions", chat(...urls), key);

/** The body of the only call that arrived: without a URL that could be fetched. */
function arrived(): string {
  assert.equal(bed.upstream.calls.length, 1);
  const text = bed.upstream.calls[0]?.body.toString() ?? "";
  assert.doesNotMatch(text, /https?:|example/i);
  return text;
}

async function passed(path: string, body: object, contained: string): Promise<void> {
  bed.upstream.calls.length = 0;
  const response = await post(path, body);
  assert.equal(response.status, 200, await response.text());
  const text = arrived();
  assert.ok(text.includes(contained), `${text}\n${contained}`);
}

const PNG = dataUrl("image/png", IMAGE);
const GIF = dataUrl("image/gif", SECOND);
const part = (url: string): string => `{"type":"image_url","image_url":{"url":"${url}"}}`;

async function everyDialect(): Promise<void> {
  const urls = [`${HOME}/a.png`, PNG, `${HOME}/second.gif`] as const;
  await passed("/v1/chat/completions", chat(...urls), `"content":[${[PNG, PNG, GIF].map(part).join()}]`);
  assert.deepEqual(fetched.toSorted(), ["/a.png", "/second.gif"]);
  const source = { type: "image", source: { type: "url", url: `${HOME}/b.png` } };
  const messages = (content: readonly object[]) => ({ max_tokens: 5, messages: [{ role: "user", content }] });
  await passed("/v1/messages", messages([source]), `"source":{"type":"url","url":"${PNG}"}`);
  const result = { type: "tool_result", tool_use_id: "a", content: [source] };
  await passed("/v1/messages", messages([result]), `"source":{"type":"url","url":"${PNG}"}`);
  const input = [{ role: "user", content: [{ type: "input_image", image_url: `${HOME}/c.png` }] }];
  await passed("/v1/responses", { input }, `"image_url":"${PNG}"`);
  await passed("/v1/embeddings", chat(`${HOME}/d.png`), part(PNG));
}

async function refusals(): Promise<void> {
  const refuse = async (url: string, reached: readonly string[] = []): Promise<void> => {
    fetched.length = 0;
    const response = await askChat([`${HOME}/a.png`, url]);
    const text = await response.text();
    assert.equal(response.status, 400, `${url}: ${text}`);
    assert.match(text, /"param":"messages\.0\.content\.1\.image_url\.url"/, url);
    assert.deepEqual(
      fetched.filter((path) => path !== "/a.png"),
      reached,
      url,
    );
    assert.equal(bed.upstream.calls.length, 0, url);
  };
  for (const url of [
    "https://other.example.org/a.png",
    "http://media.example.net/a.png",
    "https://media.example.net:8443/a.png",
    "https://inside.example.net/a.png",
    "https://93.184.216.34/a.png",
    "https://user@media.example.net/a.png",
    "https://169.254.169.254/a.png",
    "data:image/png;base64,AAAA",
  ])
    await refuse(url);
  for (const path of ["/page", "/missing", "/elsewhere"]) await refuse(HOME + path, [path]);
  assert.deepEqual(intruded, []);
}

/** Of the one folder, as data: what is behind the gateway reads no file of anybody's. */
async function files(): Promise<void> {
  await passed("/v1/chat/completions", chat(`file://${LOCAL}/a.png`), part(PNG));
  const source = { type: "image", source: { type: "url", url: `file://${LOCAL}/a.png` } };
  const turn = { max_tokens: 5, messages: [{ role: "user", content: [source] }] };
  await passed("/v1/messages", turn, `"url":"${PNG}"`);
  bed.upstream.calls.length = 0;
  const told = new Set<string>();
  for (const name of ["link.png", "page.png", "missing.png", "../outside.png", "%2e%2e/outside.png"]) {
    const response = await askChat([`file://${LOCAL}/${name}`]);
    told.add(await response.text());
    assert.equal(response.status, 400, name);
  }
  assert.equal((await askChat([`file://${folder}/outside.png`])).status, 400);
  assert.equal(told.size, 1, "what is there and may not be had looks like what is not");
  assert.equal(bed.upstream.calls.length, 0);
}

/** Two of eight are one tenant's at most. */
async function turns(): Promise<void> {
  const [one, two] = bed.keys;
  const slow = (name: string, count: number): string[] =>
    Array.from({ length: count }, (_, at) => `${HOME}/slow-${name}-${at}`);
  const asked = slow("one", 6).map((url) => askChat([url], one));
  await until("its share is under way", () => waiting.length === 2);
  // The other's share is another; when that is there the first one has had its chance.
  const beside = slow("two", 2).map((url) => askChat([url], two));
  await until("the other's is, too", () => waiting.length === 4);
  assert.equal(fetched.filter((path) => path.startsWith("/slow-one")).length, 2);
  assert.equal((await askChat([PNG], one)).status, 200, "what needs no fetch does not wait");
  let over = false;
  const all = Promise.all([...asked, ...beside]).then((responses) => {
    over = true;
    return responses.map(({ status }) => status);
  });
  await until("all are there", () => {
    for (const go of waiting.splice(0)) go();
    return over;
  });
  assert.deepEqual(await all, Array<number>(8).fill(200));
  assert.equal(mostAtOnce, 4);
}

async function kept(): Promise<void> {
  const [one, two] = bed.keys;
  const url = `${HOME}/kept.png`;
  const times = (): number => fetched.filter((path) => path === "/kept.png").length;
  for (const [key, expected] of [
    [one, 1],
    [one, 1],
    [two, 2],
    [two, 2],
    [one, 2],
  ] as const) {
    bed.upstream.calls.length = 0;
    assert.equal((await askChat([url], key)).status, 200);
    assert.ok(arrived().includes(part(PNG)));
    assert.equal(times(), expected);
  }
}

bed = await open();
try {
  await check("what URLs name arrives as data, in every dialect, and data: URLs as they were", everyDialect);
  await check("what may not be fetched is a 400 that names it, and nothing is sent", refusals);
  await check("files of the folder arrive as data, and no others", files);
  await check("a tenant has its share of the fetches, and no more", turns);
  await check("what is kept is fetched once for each tenant", kept);
} finally {
  await bed.gateway.stop();
}
process.stdout.write(JSON.stringify(checked));
process.exit(0);
