/**
 * Heads that are read without node:http: the same as it reads, or not read at all.
 */
import assert from "node:assert/strict";
import { createServer, type IncomingMessage } from "node:http";
import { type Duplex, duplexPair } from "node:stream";
import { after, test } from "node:test";
import { FoundInHeaders } from "#base/headers.ts";
import { llhttpCases, sentBy, smugglerMutations } from "#test/fixtures/http-corpora.ts";
import { PlainHeads, readPlainHead } from "./_plain-head.ts";

const MOST_BYTES = 16 * 1024;
const MOST_HEADERS = 100;

function read(text: string, behind = "", most = MOST_HEADERS) {
  const bytes = Buffer.from(text + behind, "latin1");
  return readPlainHead(bytes, bytes.length, MOST_BYTES, most);
}

interface Seen {
  readonly method: string | undefined;
  readonly target: string | undefined;
  readonly rawHeaders: readonly string[];
  readonly body: string;
  readonly keeps: boolean;
}

const server = createServer({ keepAliveTimeout: 0, requestTimeout: 0, headersTimeout: 0 });
after(() => server.close());

/** What node:http makes of some bytes: its requests, and whether it took all of them for requests. */
async function seenByNode(bytes: Buffer): Promise<{ requests: Seen[]; broken: boolean }> {
  const [client, theirs] = duplexPair();
  const requests: Seen[] = [];
  let broken = false;
  const heard = (req: IncomingMessage, res: { shouldKeepAlive: boolean; end: () => void }): void => {
    if (req.socket !== (theirs as unknown)) return;
    let body = "";
    req.setEncoding("latin1").on("data", (piece: string) => {
      body += piece;
    });
    const { method, url: target, rawHeaders } = req;
    req.on("end", () => {
      requests.push({ method, target, rawHeaders, body, keeps: res.shouldKeepAlive });
      res.end();
    });
  };
  const failed = (_error: Error, socket: Duplex): void => {
    if (socket === theirs) broken = true;
    socket.destroy();
  };
  const upgraded = (_req: IncomingMessage, socket: Duplex): void => failed(new Error(), socket);
  server.on("request", heard).on("checkContinue", heard).on("checkExpectation", heard).on("clientError", failed);
  server.on("upgrade", upgraded).on("connect", upgraded);
  server.emit("connection", theirs);
  client.resume();
  client.end(bytes);
  await new Promise((resolve) => theirs.once("close", resolve));
  server.removeAllListeners("request").removeAllListeners("checkContinue").removeAllListeners("checkExpectation");
  server.removeAllListeners("clientError").removeAllListeners("upgrade").removeAllListeners("connect");
  return { requests, broken };
}

/** @returns whether it was read here; then node:http reads it alike */
async function agree(text: string): Promise<boolean> {
  const head = read(text);
  if (head === undefined) return false;
  const body = "b".repeat(Math.min(head.length ?? 0, 100_000));
  if ((head.length ?? 0) !== body.length) return false;
  const label = JSON.stringify(text);
  assert.equal(head.size, text.indexOf("\r\n\r\n") + 4, label);
  const { requests, broken } = await seenByNode(Buffer.from(text.slice(0, head.size) + body, "latin1"));
  assert.equal(broken, false, label);
  const { method, target, rawHeaders, length, closes } = head;
  const seen = requests.map((request) => ({ ...request, rawHeaders: unframed(request.rawHeaders, length) }));
  assert.deepEqual(seen, [{ method, target, rawHeaders, body, keeps: !closes }], label);
  return true;
}

/** Without the one Content-Length, which a plain head tells beside its headers. */
function unframed(rawHeaders: readonly string[], length: number | undefined): readonly string[] {
  const at = rawHeaders.findIndex((name, i) => i % 2 === 0 && name.toLowerCase() === "content-length");
  assert.equal(at >= 0 ? Number(rawHeaders[at + 1]) : undefined, length);
  return at < 0 ? rawHeaders : rawHeaders.toSpliced(at, 2);
}

const PLAIN = [
  "GET /health HTTP/1.1\r\nHost: x\r\n\r\n",
  "POST /v1/chat?a=b&c HTTP/1.1\r\nhost:x\r\nContent-Type: application/json\r\nContent-Length: 17\r\nConnection: keep-alive\r\n\r\n",
  "DELETE /v1/models HTTP/1.1\r\nHOST:   x:80\r\ncontent-length: 0\r\nX-Latin: caf\xe9 \t a, b\r\nconnection: Close\r\n\r\n",
  "POST /x HTTP/1.1\r\nAuthorization: Bearer a.b-c_d\r\nX-A: 1\r\nX-A: 2\r\nHost: [::1]:8000\r\nAccept: */*\r\nContent-Length: 3\r\n\r\n",
];

const NASTY = [
  "\0",
  "\t",
  " ",
  "\r",
  "\n",
  "\r\n",
  "\x7f",
  "\xa0",
  "\xff",
  ":",
  ",",
  ";",
  "chunked",
  "/",
  "?",
  "#",
  "%00",
  "1",
  "A",
];

function cut(text: string, at: number, put: string, out: number): string {
  return text.slice(0, at) + put + text.slice(at + out);
}

test("what clients write is read, as node:http reads it", async () => {
  for (const text of PLAIN) assert.ok(await agree(text), text);
  const head = read(PLAIN[1] ?? "", "more that came");
  assert.deepEqual([head?.method, head?.target, head?.length, head?.closes], ["POST", "/v1/chat?a=b&c", 17, false]);
  assert.deepEqual(head?.rawHeaders.slice(0, 2), ["host", "x"]);
});

test("what is framed otherwise, asks for more, or could be read in two ways is not read", () => {
  const lines = (...more: string[]): string => ["POST /x HTTP/1.1", "Host: x", ...more, "", ""].join("\r\n");
  const refused = [
    ...["Transfer-Encoding: chunked", "transfer-encoding: identity", "Expect: 100-continue", "Upgrade: websocket"],
    ...["TE: trailers", "Trailer: x", "HTTP2-Settings: a", "Proxy-Connection: keep-alive"],
    ...["Connection: upgrade", "Connection: keep-alive, x", "Connection:", "Connection: close, TE"],
    ...["Content-Length: 01", "Content-Length: +1", "Content-Length: 1 ", "Content-Length: 1,1", "Content-Length: 0x1"],
    ...["Content-Length:", "Content-Length: -1", "Content-Length: 10000000000", "Content-Length : 1"],
    ...[
      "Host: y",
      "X-A : b",
      " X-A: b",
      "X-A: b\r\n c",
      "X-A: b\r\n\tc",
      "X-A:\tb",
      "X-A: b\t",
      "X-A: b ",
      "X-A: ",
      ": b",
    ],
    ...["X-A", "X\0A: b", "X-A: b\0", "X-A: b\x7f", "X-A: b\rX-B: c", "X-A: b\nX-B: c", "X\xe9: b", "X(A): b"],
  ].map((line) => lines(line));
  refused.push(lines("Content-Length: 1", "Content-Length: 1"), lines("Connection: close", "Connection: close"));
  for (const start of [
    "HEAD /x",
    "OPTIONS *",
    "CONNECT x:1",
    "get /x",
    "PRI *",
    "POST http://x/",
    "POST x",
    "POST  /x",
    "POST\t/x",
  ])
    refused.push(`${start} HTTP/1.1\r\nHost: x\r\n\r\n`);
  for (const start of [
    "POST /x HTTP/1.0",
    "POST /x HTTP/1.2",
    "POST /x http/1.1",
    "POST /x HTTP/1.1 ",
    "POST /x",
    "POST /x\xe9 HTTP/1.1",
  ])
    refused.push(`${start}\r\nHost: x\r\n\r\n`);
  refused.push(
    "\r\nPOST /x HTTP/1.1\r\nHost: x\r\n\r\n",
    "POST /x HTTP/1.1\nHost: x\n\n",
    "POST /x HTTP/1.1\r\n\r\n",
    "\r\n\r\n",
    "",
  );
  for (const text of refused) assert.equal(read(text), undefined, JSON.stringify(text));
  assert.ok(read(lines("X-A:")) !== undefined, "the control");
});

test("a head that is cut is not read, and bytes of an earlier one behind it do not make it whole", () => {
  const text = PLAIN[1] ?? "";
  const bytes = Buffer.from(text, "latin1");
  for (let size = 0; size < bytes.length; size++)
    assert.equal(readPlainHead(bytes, size, MOST_BYTES, MOST_HEADERS), undefined);
  assert.ok(readPlainHead(bytes, bytes.length, MOST_BYTES, MOST_HEADERS) !== undefined);
});

/** What the second of two heads of one connection is read as. */
function behindAnother(first: string, second: string) {
  const heads = new PlainHeads();
  const [one, two] = [first, second].map((text) => Buffer.from(text, "latin1")) as [Buffer, Buffer];
  heads.read(one, one.length, MOST_BYTES, MOST_HEADERS);
  return heads.read(two, two.length, MOST_BYTES, MOST_HEADERS);
}

test("a head behind another on its connection is read as if it stood alone", () => {
  const first = "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 207\r\nX-A: b\r\n\r\n";
  const lengths = [
    "207",
    "999",
    "100",
    "007",
    "2a7",
    "20",
    "2070",
    "-07",
    " 07",
    "20 ",
    "2\r\n",
    "\x00\x00\x00",
    "",
    "2:7",
  ];
  const others = lengths.map((length) => first.replace("207", length));
  others.push(
    first.replace("X-A: b", "X-A: c"),
    first.replace("/x", "/y"),
    first.replace("POST", "GET"),
    PLAIN[0] ?? "",
  );
  for (let at = 0; at < first.length; at++)
    others.push(cut(first, at, "", 1), cut(first, at, NASTY[at % NASTY.length] ?? "", 1));
  let again = 0;
  for (const other of others) {
    assert.deepEqual(behindAnother(first, other), read(other), JSON.stringify(other));
    assert.deepEqual(behindAnother(PLAIN[0] ?? "", other), read(other), JSON.stringify(other));
    if (read(other) !== undefined) again++;
  }
  assert.ok(again > 20, `${again} were read`);
  // What is behind a head is not looked at, and not kept.
  assert.deepEqual(behindAnother(`${first}abc`, `${first}xyz`), read(first));
});

test("of many heads on one connection each is read as it is, whether or not they change", () => {
  const heads = new PlainHeads();
  const place = Buffer.alloc(4096);
  for (let i = 0; i < 60; i++) {
    const changes = i % 20 < 12 ? `X-Trace: ${i}\r\n` : "";
    const text = `POST /x HTTP/1.1\r\nHost: x\r\n${changes}Content-Length: ${1000 + ((i * 7919) % 4000)}\r\n\r\nbody`;
    const size = place.write(text, "latin1");
    const head = heads.read(place, size, MOST_BYTES, MOST_HEADERS);
    assert.deepEqual(head, read(text));
    place.fill(0);
  }
});

test("the headers of requests that say the same are one list, which lasts, and of others another", () => {
  const heads = new PlainHeads();
  const found = new FoundInHeaders<string>();
  const listOf = (length: number, value = "b"): readonly string[] => {
    const bytes = Buffer.from(`POST /x HTTP/1.1\r\nHost: x\r\nX-A: ${value}\r\nContent-Length: ${length}\r\n\r\n`);
    const list = heads.read(bytes, bytes.length, MOST_BYTES, MOST_HEADERS)?.rawHeaders;
    assert.ok(list !== undefined);
    return list;
  };
  const first = listOf(100);
  found.keep(first, "too early");
  assert.equal(found.of(first), undefined, "it may be the only one");
  assert.equal(listOf(234), first);
  found.keep(first, "kept");
  assert.equal(found.of(listOf(345)), "kept");
  assert.equal(found.of(listOf(345, "c")), undefined);
  assert.equal(found.of(listOf(100)), undefined);
  assert.deepEqual(listOf(100), ["Host", "x", "X-A", "b"]);
});

test("heads have bounds", () => {
  const long = (bytes: number): string => `GET /${"a".repeat(bytes - 27)} HTTP/1.1\r\nHost: x\r\n\r\n`;
  assert.equal(long(100).length, 100);
  assert.ok(read(long(MOST_BYTES)) !== undefined);
  assert.equal(read(long(MOST_BYTES + 1)), undefined);
  const many = (lines: number): string => `GET / HTTP/1.1\r\nHost: x\r\n${"a: b\r\n".repeat(lines - 1)}\r\n`;
  assert.ok(read(many(10), "", 10) !== undefined);
  const sized = many(10).replace("a: b", "Content-Length: 1");
  assert.deepEqual([read(sized, "", 10)?.length, read(sized, "", 9)], [1, undefined]);
  assert.equal(read(many(11), "", 10), undefined);
});

test("bytes changed, left out or put in: read as node:http reads it, or not at all", { timeout: 120_000 }, async () => {
  let readHere = 0;
  let cases = 0;
  for (const text of PLAIN)
    for (let at = 0; at < text.length; at++) {
      const nasty = NASTY[(at * 7 + text.length) % NASTY.length] ?? "";
      const changed = [
        cut(text, at, "", 1),
        cut(text, at, nasty, 0),
        cut(text, at, nasty, 1),
        cut(text, at, String.fromCharCode((text.charCodeAt(at) + 1 + at * 37) % 256), 1),
      ];
      // A second change elsewhere.
      for (const each of [...changed]) changed.push(cut(each, (at * 31 + 17) % each.length, nasty, at % 2));
      for (const each of changed) {
        cases++;
        if (await agree(each)) readHere++;
      }
    }
  assert.ok(cases > 2900 && readHere > cases / 5 && readHere < cases, `${readHere} of ${cases} were read here`);
});

test("every byte in every place of a target, a name and a value", { timeout: 120_000 }, async () => {
  let readHere = 0;
  for (let code = 0; code < 256; code++) {
    const byte = String.fromCharCode(code);
    for (const text of [
      `GET /a${byte}b HTTP/1.1\r\nHost: x\r\n\r\n`,
      `GET /a?${byte} HTTP/1.1\r\nHost: x\r\n\r\n`,
      `GET / HTTP/1.1\r\nHost: x\r\nX${byte}A: b\r\n\r\n`,
      `GET / HTTP/1.1\r\nHost: x\r\nX-A: ${byte}\r\n\r\n`,
      `GET / HTTP/1.1\r\nHost: x\r\nX-A: b${byte}c\r\n\r\n`,
    ])
      if (await agree(text)) readHere++;
  }
  assert.ok(readHere > 600, `${readHere} were read here`);
});

test("llhttp's cases: read as node:http reads them, or not at all", async (t) => {
  let readHere = 0;
  for (const one of llhttpCases(t) ?? []) if (await agree(sentBy(one))) readHere++;
  t.diagnostic(`${readHere} were read here`);
});

test("a smuggler's mutations of Transfer-Encoding: none is a header without meaning", (t) => {
  let readHere = 0;
  for (const { header } of smugglerMutations(t) ?? []) {
    const head = read(`POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n${header}\r\n\r\n`);
    if (head === undefined) continue;
    readHere++;
    // What is read is another header by its very name, to node:http, too (the corpora's tests of whole servers).
    assert.ok(!head.rawHeaders.some((name, at) => at % 2 === 0 && name.toLowerCase() === "transfer-encoding"), header);
  }
  t.diagnostic(`${readHere} were read here`);
});
