/**
 * The reader of answers, held against node:http's: what it takes node:http takes, and reads the same, however the bytes
 * are cut; what one of them does not take is no answer.
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import { request } from "node:http";
import { createServer, type Socket } from "node:net";
import { after, before, test } from "node:test";
import { llhttpCases, sentBy } from "#test/fixtures/http-corpora.ts";
import { AnswerReader } from "./_answer.ts";

interface Seen {
  readonly status: number | undefined;
  readonly body: string;
  readonly done: boolean;
  readonly problem: string | undefined;
  /** Behind the answer's end. */
  readonly rest: number;
}

/** @param cut bytes of each read */
function read(text: string, cut: number): Seen {
  const all = Buffer.from(text, "latin1");
  let status: number | undefined;
  let body = "";
  const reader = new AnswerReader({
    head: (code) => {
      assert.equal(status, undefined, "one head");
      status = code;
    },
    data: (bytes) => {
      assert.ok(bytes.length > 0);
      body += Buffer.from(bytes).toString("latin1");
    },
  });
  let looked = 0;
  for (let at = 0; at < all.length && !reader.done && reader.problem === undefined; at += cut) {
    const piece = Buffer.from(all.subarray(at, at + cut));
    // Where it is read to is larger than what was read.
    const place = Buffer.concat([piece, Buffer.from("0\r\n\r\nHTTP")]);
    looked = at + reader.read(place, piece.length);
  }
  const { done, problem } = reader;
  return { status, body, done, problem, rest: done ? all.length - looked : 0 };
}

let answering = "";
let port = 0;
const sockets = new Set<Socket>();
const server = createServer((socket) => {
  sockets.add(socket);
  socket.on("error", () => {}).on("close", () => sockets.delete(socket));
  socket.once("data", () => socket.end(answering, "latin1"));
});
before(async () => {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  port = typeof address === "object" && address !== null ? address.port : 0;
});
after(() => {
  for (const socket of sockets) socket.destroy();
  server.close();
});

/** What node:http makes of it; undefined: no answer. */
function theirs(text: string): Promise<{ status: number | undefined; body: string } | undefined> {
  answering = text;
  return new Promise((resolve) => {
    const call = request({ host: "127.0.0.1", port, agent: false, insecureHTTPParser: false }, (response) => {
      let body = "";
      response.setEncoding("latin1").on("data", (piece: string) => {
        body += piece;
      });
      response.on("end", () => resolve({ status: response.statusCode, body })).on("error", () => resolve(undefined));
    });
    call.on("error", () => resolve(undefined)).on("upgrade", () => resolve(undefined));
    call.end();
  });
}

const HEAD = "HTTP/1.1 200 OK\r\n";
const COUNTED = `${HEAD}Content-Length: 5\r\n\r\n`;
const CHUNKED = `${HEAD}Transfer-Encoding: chunked\r\n\r\n`;
const OK = { status: 200, done: true, problem: undefined, rest: 0 };

/** What is taken → its body. */
const GOOD: Readonly<Record<string, string>> = {
  [`${COUNTED}hello`]: "hello",
  [`${HEAD}CONTENT-LENGTH:\t 5 \t\r\nx:\r\ny: \x80\xff\r\n\r\nhello`]: "hello",
  [`${HEAD}content-length: 0\r\n\r\n`]: "",
  "HTTP/1.1 200\r\ncontent-length: 1\r\n\r\na": "a",
  "HTTP/1.1 200 \r\ncontent-length: 1\r\n\r\na": "a",
  "HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\na": "a",
  [`HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: <x>\r\n\r\n${COUNTED}hello`]: "hello",
  [`${CHUNKED}5\r\nhello\r\n0\r\n\r\n`]: "hello",
  [`${CHUNKED}1\r\nh\r\n0001\r\ne\r\n00000003\r\nllo\r\n000\r\n\r\n`]: "hello",
  [`${CHUNKED}A;a=b;c="d e"\r\n0123456789\r\na\r\n0123456789\r\n0;x\r\n\r\n`]: "01234567890123456789",
  [`${CHUNKED}2\r\n\r\n\r\n0\r\nExpires: never\r\nx: y\r\n\r\n`]: "\r\n",
};

/** What is none → what came before the place that is wrong. */
const BAD: Readonly<Record<string, string>> = {
  "HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n": "",
  "HTTP/1.2 200 OK\r\ncontent-length: 0\r\n\r\n": "",
  "http/1.1 200 OK\r\ncontent-length: 0\r\n\r\n": "",
  " HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n": "",
  "\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n": "",
  "HTTP/1.1  200 OK\r\ncontent-length: 0\r\n\r\n": "",
  "HTTP/1.1 20 OK\r\ncontent-length: 0\r\n\r\n": "",
  "HTTP/1.1 2000 OK\r\ncontent-length: 0\r\n\r\n": "",
  "HTTP/1.1 200 O\x00K\r\ncontent-length: 0\r\n\r\n": "",
  "HTTP/1.1 101 Switching\r\nupgrade: h2c\r\n\r\n": "",
  [`${HEAD}content-length: 5\nx: y\r\n\r\nhello`]: "",
  [`${HEAD}content-length: 5\rx: y\r\n\r\nhello`]: "",
  [`${HEAD}content-length: 5\n\nhello`]: "",
  [`${HEAD}content-length : 5\r\n\r\nhello`]: "",
  [`${HEAD} content-length: 5\r\n\r\nhello`]: "",
  [`${HEAD}x: a\r\n folded\r\ncontent-length: 5\r\n\r\nhello`]: "",
  [`${HEAD}content-length\r\n\r\nhello`]: "",
  [`${HEAD}: 5\r\n\r\nhello`]: "",
  [`${HEAD}x: \x00\r\ncontent-length: 5\r\n\r\nhello`]: "",
  [`${HEAD}content-length: +5\r\n\r\nhello`]: "",
  [`${HEAD}content-length: 0x5\r\n\r\nhello`]: "",
  [`${HEAD}content-length: 5, 5\r\n\r\nhello`]: "",
  [`${HEAD}content-length: 5\r\ncontent-length: 5\r\n\r\nhello`]: "",
  [`${HEAD}content-length:\r\n\r\n`]: "",
  [`${HEAD}content-length: 9999999999999999\r\n\r\n`]: "",
  [`${HEAD}content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n`]: "",
  [`${HEAD}transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n`]: "",
  [`${HEAD}transfer-encoding: identity\r\ncontent-length: 1\r\n\r\na`]: "",
  [`${HEAD}transfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n`]: "",
  "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n": "",
  [`${CHUNKED}\r\n`]: "",
  [`${CHUNKED};x\r\n`]: "",
  [`${CHUNKED}5 \r\nhello\r\n0\r\n\r\n`]: "",
  [`${CHUNKED} 5\r\nhello\r\n0\r\n\r\n`]: "",
  [`${CHUNKED}-5\r\nhello\r\n0\r\n\r\n`]: "",
  [`${CHUNKED}0x5\r\nhello\r\n0\r\n\r\n`]: "",
  [`${CHUNKED}5\nhello\r\n0\r\n\r\n`]: "",
  [`${CHUNKED}5\r\rhello\r\n0\r\n\r\n`]: "",
  [`${CHUNKED}000000005\r\nhello\r\n0\r\n\r\n`]: "",
  [`${CHUNKED}fffffffff\r\nhello`]: "",
  [`${CHUNKED}5;\x00\r\nhello\r\n0\r\n\r\n`]: "",
  [`${CHUNKED}5;\n\r\nhello\r\n0\r\n\r\n`]: "",
  [`${CHUNKED}5\r\nhello0\r\n\r\n`]: "hello",
  [`${CHUNKED}5\r\nhello\n0\r\n\r\n`]: "hello",
  [`${CHUNKED}5\r\nhello\r0\r\n\r\n`]: "hello",
  [`${CHUNKED}5\r\nhello\r\n0\r\nbad trailer\r\n\r\n`]: "hello",
  [`${CHUNKED}5\r\nhello\r\n0\r\nx: y\n\r\n\r\n`]: "hello",
};

const cuts = (text: string): number[] => [text.length, 1, 2, 3, 7, 16, text.length - 1].filter((cut) => cut > 0);

test("what is an answer is read the same however it is cut, and as node:http reads it", async () => {
  for (const [text, body] of Object.entries(GOOD)) {
    for (const cut of cuts(text)) assert.deepEqual(read(text, cut), { ...OK, body }, JSON.stringify([text, cut]));
    assert.deepEqual(await theirs(text), { status: 200, body }, JSON.stringify(text));
  }
});

test("what is none is none however it is cut, and all before it was told", () => {
  for (const [text, body] of Object.entries(BAD))
    for (const cut of cuts(text)) {
      const seen = read(text, cut);
      assert.ok(seen.problem !== undefined && !seen.done, JSON.stringify([text, cut, seen]));
      assert.equal(seen.body, body, JSON.stringify([text, cut]));
    }
});

test("an answer that has no body has none, whatever it says of a length", () => {
  for (const status of [204, 304])
    assert.deepEqual(read(`HTTP/1.1 ${status} X\r\ncontent-length: 5\r\n\r\nhello`, 1000), {
      ...{ status, body: "", done: true, problem: undefined, rest: 5 },
    });
});

test("what follows an answer is not looked at, and told", () => {
  for (const text of Object.keys(GOOD)) {
    const seen = read(`${text}HTTP/1.1 200 OK\r\n`, 10_000);
    assert.deepEqual([seen.done, seen.rest], [true, 17], JSON.stringify(text));
  }
});

test("heads, sizes and trailers have bounds", () => {
  const long = "x".repeat(20_000);
  for (const [text, problem] of [
    [`${HEAD}x: ${long}`, "head size"],
    [`${HEAD}x: ${long}\r\n\r\n`, "head size"],
    [`${CHUNKED}0\r\nx: ${long}`, "head size"],
    [`${CHUNKED}1;${long}`, "chunk extension"],
  ] as const)
    for (const cut of [text.length, 1, 100]) assert.equal(read(text, cut).problem, problem);
  assert.equal(read(`${HEAD}x: ${"y".repeat(16_000)}\r\ncontent-length: 0\r\n\r\n`, 1000).done, true);
});

/** A generator of numbers from 0 up to another: the same ones in each run. */
function numbers(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

test("a byte changed, left out or put in: read as node:http reads it, or not at all", {
  timeout: 120_000,
}, async () => {
  const pick = numbers(7);
  const bytes = "\r\n\t :;,0123456789abcdefxX\x00\x7f\x80HTP/.";
  const starts = Object.keys(GOOD);
  let taken = 0;
  for (let i = 0; i < 1500; i++) {
    const from = starts[pick(starts.length)] ?? "";
    const [at, other] = [pick(from.length), bytes[pick(bytes.length)] ?? ""];
    const text = from.slice(0, at) + ["", other, other + (from[at] ?? "")][pick(3)] + from.slice(at + 1);
    const whole = read(text, text.length);
    for (const cut of [1, 5]) {
      const { rest: _rest, ...cutUp } = read(text, cut);
      const { rest: _other, ...inOne } = whole;
      if (inOne.problem === undefined || cutUp.problem === undefined)
        assert.deepEqual(cutUp, inOne, JSON.stringify(text));
    }
    if (!whole.done || whole.rest > 0) continue;
    taken++;
    assert.deepEqual(await theirs(text), { status: whole.status, body: whole.body }, JSON.stringify(text));
  }
  assert.ok(taken > 200, `${taken}`);
});

test("llhttp's cases of answers: read as node:http reads them, or not at all", async (t) => {
  const cases = llhttpCases(t)?.filter(({ http }) => /^HTTP\//.test(http));
  if (cases === undefined) return;
  let taken = 0;
  for (const one of cases) {
    const text = Buffer.from(sentBy(one), "utf8").toString("latin1");
    const seen = read(text, text.length);
    if (!seen.done || seen.rest > 0) continue;
    taken++;
    assert.deepEqual(await theirs(text), { status: seen.status, body: seen.body }, one.title);
  }
  assert.ok(cases.length > 20 && taken > 3, `${taken} of ${cases.length}`);
});
