import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { connect } from "node:net";
import { type TestContext, test } from "node:test";
import { Answer } from "./_answer.ts";

type Handle = (res: Answer, tell: (whole: unknown) => void) => void;

/** What a client reads that asks one after the other, until the connection is over. */
async function said(t: TestContext, requests: string[], handle: Handle): Promise<{ text: string; told: unknown[] }> {
  const told: unknown[] = [];
  const rest = [...requests];
  const server = createServer({ ServerResponse: Answer, keepAliveTimeout: 5000 }, (req, res) => {
    assert.ok(res instanceof Answer);
    res.on("finish", () => socket.write(rest.shift() ?? ""));
    if (req.url === "/last") farewell(res);
    else handle(res, (whole) => told.push(whole));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const address = server.address();
  const socket = connect(typeof address === "object" && address !== null ? address.port : 0, "127.0.0.1");
  let text = "";
  socket.setEncoding("latin1");
  socket.on("data", (piece: string) => {
    text += piece;
    if (text.endsWith("the end")) socket.end();
  });
  socket.write(rest.shift() ?? "");
  await once(socket, "close");
  return { text, told };
}

const GET = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
const LAST = "GET /last HTTP/1.1\r\nHost: x\r\n\r\n";

/** By node:http; of 7 bytes. */
function farewell(res: Answer): void {
  res.writeHead(200, ["content-length", "7"]);
  res.end("the end");
}

const HEADERS = ["content-type", "text/plain", "x-latin", "caf\xe9\ttab", "content-length", "5"];

function lines(text: string): string[] {
  return text.replace(/Date: [^\r]+ GMT\r\n/g, "Date: then\r\n").split("\r\n");
}

test("the client reads what node:http would have said, the date's second aside", async (t) => {
  for (const status of [200, 201, 404, 500, 599]) {
    const both: string[][] = [];
    for (const own of [true, false]) {
      const { text } = await said(t, [GET, LAST], (res, tell) => {
        if (own) return tell(res.whole(status, HEADERS, Buffer.from("hello"), 5000));
        res.writeHead(status, HEADERS);
        res.end("hello", "latin1");
      });
      both.push(lines(text));
    }
    assert.deepEqual(both[0], both[1]);
    assert.ok(both[0]?.includes("Connection: keep-alive"));
  }
});

test("what node:http has finished is finished: its books let go, and the connection has the next request", async (t) => {
  const events: string[] = [];
  const { text, told } = await said(t, [GET, GET, LAST], (res, tell) => {
    for (const name of ["finish", "close"]) res.on(name, () => events.push(name));
    tell(res.whole(200, ["content-length", "2"], Buffer.from("ok"), 5000));
    tell(res.headersSent && res.writableEnded);
  });
  assert.deepEqual(told, [true, true, true, true]);
  assert.deepEqual(events, ["finish", "close", "finish", "close"]);
  assert.equal(text.match(/\r\n\r\nok/g)?.length, 2);
});

test("what is not plain is left to node:http, with nothing written", async (t) => {
  const body = Buffer.alloc(5);
  const refused: [string, number, Buffer, boolean][] = [
    ["HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", 200, body, false],
    ["GET / HTTP/1.0\r\n\r\n", 200, body, true],
    ["GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", 200, body, false],
    ["GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 200, body, true],
    [GET, 204, Buffer.alloc(0), false],
    [GET, 304, Buffer.alloc(0), false],
    [GET, 200, Buffer.alloc(16 * 1024), false],
  ];
  for (const [request, status, content, last] of refused) {
    const { text, told } = await said(t, last ? [request] : [request, LAST], (res, tell) => {
      tell(res.whole(status, ["content-length", String(content.length)], content, 5000));
      tell(res.headersSent);
      res.writeHead(418, ["content-length", "0"]);
      res.end();
    });
    assert.deepEqual(told, [false, false], request);
    assert.match(text, /^HTTP\/1\.1 418 /, request);
  }
});

test("a header that would end its line, or is no byte, is an error, and nothing is written", async (t) => {
  for (const [name, value] of [
    ["x-a", "b\r\nset-cookie: c"],
    ["x-a\nb", "c"],
    ["x-a", "b\0"],
    ["x-a", "\u010a"],
    ["x-a", "\x7f"],
  ] as const) {
    const { text, told } = await said(t, [GET, LAST], (res, tell) => {
      try {
        res.whole(200, ["content-length", "2", name, value], Buffer.from("no"), 5000);
      } catch (error) {
        tell(error instanceof Error && !res.headersSent);
      }
      res.writeHead(418, ["content-length", "0"]);
      res.end();
    });
    assert.deepEqual(told, [true]);
    assert.match(text, /^HTTP\/1\.1 418 /);
  }
});
