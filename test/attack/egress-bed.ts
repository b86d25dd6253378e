/**
 * A world of its own for the way out: run by egress-bed.test.ts inside network and mount namespaces that it made.
 *
 * Every address, of both families, is this machine's: an HTTP server answers on all of them, with a fine image that
 * says SECRET on any but the public ones; a name server answers for the names below, some of them another way each
 * time. So whatever passes the guard is seen to arrive. Prints one JSON value: what each case came to.
 */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { createServer as createTcp } from "node:net";
import { brotliCompressSync, gzipSync } from "node:zlib";
import type { EgressDecision } from "#egress/decision.ts";
import { mediaDigest } from "#egress/media/digest.ts";
import { MediaFetcher, type MediaOptions } from "#egress/media/fetcher.ts";
import { gif, png } from "#test/fixtures/images.ts";
import { makeNetwork } from "#test/fixtures/own-network.ts";
import { ADDRESSES, BOMBS, NAMES, PUBLIC, REDIRECTS, SPELLINGS } from "./egress-cases.ts";

const OK_IMAGE = png(4, 4);
const SECRET_IMAGE = png(7, 7);

/** Connections to places that nobody should come to. */
let intrusions: string[] = [];

function localAddress(request: IncomingMessage): string {
  return (request.socket.localAddress ?? "").replace(/^::ffff:(?=\d+\.)/, "");
}

function answer(request: IncomingMessage, response: ServerResponse): void {
  const url = new URL(request.url ?? "/", "http://x");
  if (!PUBLIC.includes(localAddress(request))) {
    response.writeHead(200, { "content-type": "image/png", "x-secret": "SECRET" }).end(SECRET_IMAGE);
    return;
  }
  const to = url.searchParams.get("to");
  if (to !== null) {
    response.writeHead(302, { location: to }).end();
    return;
  }
  const bomb = bombs[url.pathname];
  if (bomb === undefined) response.writeHead(200, { "content-type": "image/png" }).end(OK_IMAGE);
  else bomb(response);
}

const big = Buffer.alloc(20_000_000);
const send = (response: ServerResponse, headers: Record<string, string>, body: Buffer): void =>
  void response.writeHead(200, { "content-type": "image/png", ...headers }).end(body);

const bombs: Readonly<Record<string, (response: ServerResponse) => void>> = {
  "/gzip": (response) => send(response, { "content-encoding": "gzip" }, gzipSync(big)),
  "/double-gzip": (response) => send(response, { "content-encoding": "gzip, gzip" }, gzipSync(gzipSync(big))),
  "/brotli": (response) => send(response, { "content-encoding": "br" }, brotliCompressSync(big)),
  "/transfer-gzip": (response) => {
    response.socket?.end(
      Buffer.concat([
        Buffer.from("HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ntransfer-encoding: gzip\r\n\r\n"),
        gzipSync(OK_IMAGE),
      ]),
    );
  },
  "/large": (response) => send(response, {}, big),
  "/endless": (response) => {
    response.writeHead(200, { "content-type": "image/png" });
    const more = (): void => {
      if (!response.destroyed && response.write(Buffer.alloc(65_536))) setImmediate(more);
    };
    response.on("drain", more);
    more();
  },
  "/drip": (response) => {
    response.writeHead(200, { "content-type": "image/png" });
    const timer = setInterval(() => response.write("x"), 50);
    response.on("close", () => clearInterval(timer));
  },
  "/silence": () => {},
  "/headers": (response) => {
    const timer = setInterval(() => response.socket?.write(`x-${Math.random()}: ${"y".repeat(1000)}\r\n`), 1);
    response.socket?.write("HTTP/1.1 200 OK\r\n");
    response.on("close", () => clearInterval(timer));
  },
  "/informations": (response) => {
    const timer = setInterval(() => response.socket?.write("HTTP/1.1 103 Early Hints\r\nx: y\r\n\r\n"), 1);
    response.on("close", () => clearInterval(timer));
  },
  "/short": (response) => {
    response.socket?.end(
      Buffer.concat([
        Buffer.from(`HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ncontent-length: ${OK_IMAGE.length + 9}\r\n\r\n`),
        OK_IMAGE,
      ]),
    );
  },
  "/two-lengths": (response) => {
    response.socket?.end(`HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx`);
  },
  "/pixels": (response) => send(response, {}, png(50_000, 50_000, { rows: 1 })),
  "/frames": (response) => send(response, { "content-type": "image/gif" }, gif(2, 2, 100_000)),
  "/polyglot": (response) => send(response, {}, Buffer.concat([OK_IMAGE, Buffer.from("PK\x03\x04<script>")])),
  "/page": (response) => send(response, {}, Buffer.from("<!doctype html><p>hello")),
  "/lie": (response) => send(response, { "content-type": "image/jpeg" }, OK_IMAGE),
  "/missing": (response) => void response.writeHead(404, { "content-type": "image/png" }).end(OK_IMAGE),
  "/upgrade": (response) => void response.writeHead(101, { upgrade: "x", connection: "upgrade" }).end(),
};

async function listen(): Promise<void> {
  for (const host of ["0.0.0.0", "::"])
    for (const port of [80, 8080]) {
      const server = createServer(answer);
      server.on("connection", (socket) => {
        const at = (socket.localAddress ?? "").replace(/^::ffff:(?=\d+\.)/, "");
        if (!PUBLIC.includes(at)) intrusions.push(at);
      });
      await new Promise<void>((done, fail) => {
        server.once("error", fail).listen({ host, port, ipv6Only: host === "::" }, done);
      });
    }
  const mute = createTcp(() => {});
  await new Promise<void>((done) => mute.listen({ host: "0.0.0.0", port: 8081 }, done));
}

const decisions: EgressDecision[] = [];

async function fetcher(domains: readonly string[], redirects: number): Promise<MediaFetcher> {
  const options: MediaOptions = {
    domains,
    plainHttp: true,
    ports: [80, 443, 8080, 8081, 8082],
    redirects,
    refusedNetworks: ["2606:4700:64::/96"],
    timeoutMs: { image: 1500, audio: 1500, video: 1500 },
    maxBytes: { image: 4_000_000, audio: 4_000_000, video: 4_000_000 },
    turns: { atOnce: 4, atOncePerTenant: 4, waiting: 100, waitingPerTenant: 100 },
    perRequest: { items: 4, bytes: 1_000_000 },
    image: { pixels: 40_000_000, frames: 256, aspectRatio: 200 },
    digest: await mediaDigest("sha256", false),
    local: undefined,
    cache: undefined,
    observer: { begin: () => () => {}, record: (decision) => void decisions.push(decision) },
  };
  return new MediaFetcher(options);
}

export interface CaseResult {
  readonly url: string;
  readonly group: string;
  /** `ok`: an image of a public place; `SECRET`; or the refusal's kind. */
  readonly outcome: string;
  readonly message: string;
  readonly intrusions: readonly string[];
  readonly records: readonly EgressDecision[];
  /** What a fetch without a guard gets. */
  readonly bare: string;
}

async function one(group: string, url: string): Promise<CaseResult> {
  // The list is no help: the host is on it in every form, so that the other walls have to hold.
  const names = [URL.parse(url)?.hostname ?? "", /^https?:\/\/([^/?#]*)/.exec(url)?.[1] ?? "", ".example.net"];
  const redirected = group === "redirect" ? REDIRECTS.map((to) => URL.parse(to)?.hostname ?? "") : [];
  const guard = await fetcher(
    [...names, ...redirected].filter((name) => name !== ""),
    3,
  );
  intrusions = [];
  decisions.length = 0;
  const outcome = await guard.fetch(
    { url, kind: "image" },
    { tenant: "t", requestId: "r", signal: new AbortController().signal },
  );
  const seen = [...intrusions];
  const records = [...decisions];
  const said = "media" in outcome ? (outcome.media.image?.width === 7 ? "SECRET" : "ok") : outcome.refusal.kind;
  const message = "refusal" in outcome ? outcome.refusal.message : "";
  return { url, group, outcome: said, message, intrusions: seen, records, bare: await bare(group, url) };
}

async function bare(group: string, url: string): Promise<string> {
  if (group === "bomb") return "";
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(2000) });
    await response.bytes();
    return response.headers.get("x-secret") ?? "ok";
  } catch {
    return "error";
  }
}

async function main(): Promise<void> {
  await makeNetwork(process.argv[2] ?? "/tmp", NAMES);
  await listen();
  const results: CaseResult[] = [];
  const home = "http://ok.example.net";
  for (const url of [`${home}/a.png`, "http://93.184.216.34/", "http://[2606:4700::1111]/"])
    results.push(await one("control", url));
  for (const url of SPELLINGS) results.push(await one("spelling", url));
  for (const address of ADDRESSES)
    results.push(await one("address", `http://${address.includes(":") ? `[${address}]` : address}/`));
  for (const name of Object.keys(NAMES).filter((name) => name !== "ok.example.net"))
    for (let time = 0; time < (name.startsWith("rebind") ? 6 : 1); time++)
      results.push(await one("name", `http://${name}/`));
  for (const to of REDIRECTS) results.push(await one("redirect", `${home}/?to=${encodeURIComponent(to)}`));
  for (const path of BOMBS) results.push(await one("bomb", `${home}${path}`));
  process.stdout.write(JSON.stringify(results));
  process.exit(0);
}

await main();
