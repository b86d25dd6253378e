/**
 * Connections that are read without node:http: which requests are taken there, where the others go, and what ends them.
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer as createHttpServer } from "node:http";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { type TestContext, test } from "node:test";
import { AUTH, closed, message, rig, statusesOf, until } from "#test/http/harness.ts";
import { openLine } from "./_connections.ts";
import type { PlainAnswer } from "./_plain-answer.ts";
import { PlainConnections } from "./_plain-connection.ts";
import type { PlainRequest } from "./_plain-request.ts";
import { DEFAULT_HTTP_OPTIONS, type HttpOptions } from "./options.ts";
import { events, json } from "./reply.ts";

interface Bed {
  readonly port: number;
  /** Targets that were read here. */
  readonly plain: string[];
  /** Targets that node:http has read. */
  readonly nodes: string[];
  readonly connections: PlainConnections<string>;
}

type Handle = (req: PlainRequest, res: PlainAnswer) => void;

function ok(_req: PlainRequest, res: PlainAnswer): void {
  assert.ok(res.whole(200, ["content-length", "2"], Buffer.from("ok"), 5000));
}

/** Everything below /plain is read here; node:http answers 299. */
async function bed(t: TestContext, handle: Handle = ok, options: Partial<HttpOptions> = {}): Promise<Bed> {
  const all = { ...DEFAULT_HTTP_OPTIONS, ...options };
  const [plain, nodes]: string[][] = [[], []];
  const http = createHttpServer((req, res) => {
    nodes?.push(req.url ?? "");
    res.writeHead(299, { "content-length": 2 }).end("no");
  });
  const connections = new PlainConnections<string>(
    all,
    {
      find: (_method, target) => (target.startsWith("/plain") ? target : undefined),
      handle: (found, req, res) => {
        plain?.push(found);
        handle(req, res);
      },
    },
    20,
  );
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    const lines = new Map();
    openLine(lines, socket, all);
    const onward = (): void => void http.emit("connection", socket);
    assert.ok(connections.take(socket, lines.get(socket), onward));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    connections.close();
    server.close();
    http.closeAllConnections();
  });
  return { port: (server.address() as AddressInfo).port, plain: plain ?? [], nodes: nodes ?? [], connections };
}

/** What comes is gathered in `text`. */
function talk(t: TestContext, port: number): { socket: Socket; text: () => string } {
  const socket = connect(port, "127.0.0.1");
  let text = "";
  socket
    .setNoDelay(true)
    .setEncoding("latin1")
    .on("error", () => {});
  socket.on("data", (piece: string) => {
    text += piece;
  });
  t.after(() => socket.destroy());
  return { socket, text: () => text };
}

const get = (target: string, ...more: string[]): string =>
  [`GET ${target} HTTP/1.1`, "Host: x", ...more, "", ""].join("\r\n");
const post = (target: string, length: number): string =>
  `POST ${target} HTTP/1.1\r\nHost: x\r\nContent-Length: ${length}\r\n\r\n`;

test("plain requests are read here, one behind the other, and the first other goes to node:http for good", async (t) => {
  const { port, plain, nodes } = await bed(t);
  const { socket, text } = talk(t, port);
  for (const [request, answers] of [
    [get("/plain/1"), 1],
    [get("/plain/2"), 2],
    [get("/plain/3", "TE: trailers"), 3],
    [get("/plain/4"), 4],
  ] as const) {
    socket.write(request);
    await until(() => statusesOf(text()).length === answers, `${answers} answers`);
  }
  assert.deepEqual(statusesOf(text()), [200, 200, 299, 299]);
  assert.deepEqual(
    [plain, nodes],
    [
      ["/plain/1", "/plain/2"],
      ["/plain/3", "/plain/4"],
    ],
  );
});

test("what is not alone is node:http's: several at once, behind a body, or behind one that is being answered", async (t) => {
  const held: PlainAnswer[] = [];
  const { port, plain, nodes } = await bed(t, (_req, res) => void held.push(res));
  const together = talk(t, port);
  together.socket.write(get("/plain/1") + get("/plain/2"));
  await until(() => statusesOf(together.text()).length === 2, "both");
  const behind = talk(t, port);
  behind.socket.write(`${post("/plain/3", 3)}abc${get("/plain/4")}`);
  await until(() => statusesOf(behind.text()).length === 2, "both");
  assert.deepEqual(plain, []);
  const later = talk(t, port);
  later.socket.write(get("/plain/5"));
  await until(() => held.length === 1, "the first");
  later.socket.write(get("/plain/6"));
  later.socket.write(get("/plain/7"));
  await new Promise((resolve) => setTimeout(resolve, 30));
  assert.equal(later.text(), "");
  ok(undefined as never, held[0] as PlainAnswer);
  await until(() => statusesOf(later.text()).length === 3, "all three");
  assert.deepEqual(statusesOf(later.text()), [200, 299, 299]);
  assert.deepEqual([plain, nodes.slice(4)], [["/plain/5"], ["/plain/6", "/plain/7"]]);
});

test("a head in pieces, and what is no request at all, are node:http's", async (t) => {
  const { port, plain, nodes } = await bed(t);
  const { socket, text } = talk(t, port);
  const request = get("/plain/1");
  for (let at = 0; at < request.length; at += 7) {
    socket.write(request.slice(at, at + 7));
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  await until(() => statusesOf(text()).length === 1, "its answer");
  const garbage = talk(t, port);
  garbage.socket.write("\x16\x03\x01 no request\r\n\r\n");
  await closed(garbage.socket);
  assert.match(garbage.text(), /^HTTP\/1\.1 400 /);
  assert.deepEqual([plain, nodes], [[], ["/plain/1"]]);
});

/** Takes a body as the corridor does. */
function gathers(done: (bytes: Buffer, req: PlainRequest, res: PlainAnswer) => void, room = 0): Handle {
  return (req, res) => {
    const whole = req.whole();
    if (whole !== undefined) return done(whole, req, res);
    const place = Buffer.alloc(req.left + 100_000);
    let size = 0;
    req.divert({
      begin: (first, count) => {
        first.copy(place, 0, 0, count);
        size = count;
        return true;
      },
      take: (piece) => {
        piece.copy(place, size);
        size += piece.length;
        return true;
      },
      room: () => (room === 0 ? undefined : place.subarray(size, size + Math.min(room, req.left))),
      filled: (count) => {
        size += count;
        return true;
      },
      end: () => done(place.subarray(0, size), req, res),
    });
  };
}

test("a body comes whole, however it is cut and wherever it is read to, and what is behind it stays out", async (t) => {
  for (const room of [0, 1000, 1 << 20])
    for (const length of [1, 1000, 65_536, 300_000]) {
      const bodies: Buffer[] = [];
      const handle = gathers((bytes, req, res) => {
        bodies.push(Buffer.from(bytes));
        ok(req, res);
      }, room);
      const { port, plain, nodes } = await bed(t, handle);
      const sent = Buffer.from({ length } as ArrayLike<number>).map((_, at) => at % 251);
      const { socket, text } = talk(t, port);
      socket.write(post("/plain/1", length));
      await new Promise((resolve) => setTimeout(resolve, 5));
      for (let at = 0; at < length; at += 100_000) socket.write(sent.subarray(at, at + 100_000));
      socket.write(get("/plain/2"));
      await until(() => statusesOf(text()).length === 2, `${length} bytes with room for ${room}`);
      assert.ok(bodies[0]?.equals(sent));
      assert.deepEqual([plain.length + nodes.length, plain[0]], [2, "/plain/1"]);
    }
});

test("a body that nobody takes is not read", async (t) => {
  const taken: PlainRequest[] = [];
  const { port } = await bed(t, (req) => void taken.push(req));
  const { socket } = talk(t, port);
  const piece = Buffer.alloc(64 * 1024);
  socket.write(post("/plain", 1 << 30));
  for (let i = 0; i < 1000; i++) socket.write(piece);
  await until(() => taken.length === 1, "the request");
  await new Promise((resolve) => setTimeout(resolve, 50));
  const [req] = taken;
  assert.ok(req !== undefined && (1 << 30) - req.left <= 64 * 1024, `${req?.left} are to come`);
});

test("a client that breaks off in its body is told, one that leaves before its answer is not waited for", async (t) => {
  const ends: string[] = [];
  const { port } = await bed(t, (req, res) => {
    res.on("close", () => ends.push(`${req.url} ${res.writableFinished}`));
    if (!req.complete) gathers(() => ends.push("whole"))(req, res);
  });
  const { socket, text } = talk(t, port);
  socket.end(`${post("/plain/1", 10)}abc`);
  await closed(socket);
  assert.match(text(), /^HTTP\/1\.1 400 /);
  const gone = talk(t, port);
  gone.socket.write(get("/plain/2"));
  await new Promise((resolve) => setTimeout(resolve, 20));
  gone.socket.resetAndDestroy();
  const farewell = talk(t, port);
  farewell.socket.end(get("/plain/3"));
  await until(() => ends.length === 3, "all ends");
  assert.deepEqual(ends.toSorted(), ["/plain/1 false", "/plain/2 false", "/plain/3 false"]);
});

test("connections that ask nothing, or nothing more, end by their times", async (t) => {
  const { port } = await bed(t, ok, { headersTimeoutMs: 60, keepAliveTimeoutMs: -940 });
  const silent = talk(t, port);
  await closed(silent.socket);
  assert.equal(silent.text(), "");
  const idle = talk(t, port);
  idle.socket.write(get("/plain"));
  await closed(idle.socket);
  assert.deepEqual(statusesOf(idle.text()), [200]);
});

test("a first head that does not come whole has no more time than one that node:http reads from the start", async (t) => {
  // There it would have a minute.
  const { port } = await bed(t, ok, { headersTimeoutMs: 200 });
  const { socket, text } = talk(t, port);
  socket.write("GET /plain HTTP/1.1\r\nHos");
  await closed(socket);
  assert.match(text(), /^HTTP\/1\.1 408 /);
});

test("at the server's end those that wait for a further request are closed, and no others", async (t) => {
  const held: PlainAnswer[] = [];
  const { port, connections } = await bed(
    t,
    (req, res) => void (req.url === "/plain/held" ? held.push(res) : ok(req, res)),
  );
  const [idle, busy, fresh] = [talk(t, port), talk(t, port), talk(t, port)];
  idle.socket.write(get("/plain"));
  busy.socket.write(get("/plain/held"));
  await until(() => idle.text() !== "" && held.length === 1, "an answer");
  connections.closeIdle();
  await closed(idle.socket);
  ok(undefined as never, held[0] as PlainAnswer);
  fresh.socket.write(get("/plain"));
  await until(() => busy.text() !== "" && fresh.text() !== "", "their answers");
});

test("who wants to close, or is too old, is answered and closed", async (t) => {
  const end: Handle = (_req, res) => {
    assert.equal(res.whole(200, ["content-length", "2"], Buffer.from("ok"), 5000), false);
    res.writeHead(200, ["content-length", "2"]);
    res.end("ok");
  };
  for (const [more, age] of [
    [["Connection: close"], 0],
    [[], 1],
  ] as const) {
    const { port, plain } = await bed(t, end, { maxConnectionAgeMs: age });
    const { socket, text } = talk(t, port);
    await new Promise((resolve) => setTimeout(resolve, 5));
    socket.write(get("/plain", ...more));
    await closed(socket);
    assert.match(text(), /^HTTP\/1\.1 200 OK\r\ncontent-length: 2\r\nDate: .*\r\nConnection: close\r\n\r\nok$/);
    assert.equal(plain.length, 1);
  }
});

test("an answer at a slow reader's speed comes whole, and its end is told when the kernel has it", async (t) => {
  const ends: ("drain" | "finish")[] = [];
  const piece = Buffer.alloc(256 * 1024, "x");
  const { port } = await bed(t, (_req, res) => {
    res.on("drain", () => ends.push("drain")).on("finish", () => ends.push("finish"));
    res.writeHead(200, ["content-length", String(20 * piece.length)]);
    let behind = 0;
    for (let i = 0; i < 19; i++) if (!res.write(piece)) behind++;
    assert.ok(behind > 0);
    res.end(piece);
    assert.deepEqual([res.writableEnded, res.writableFinished], [true, false]);
  });
  const { socket, text } = talk(t, port);
  socket.pause();
  socket.write(get("/plain/1"));
  await new Promise((resolve) => setTimeout(resolve, 30));
  assert.equal(ends.length, 0);
  socket.resume();
  await until(() => ends.includes("finish"), "its end");
  await until(() => text().split("\r\n\r\n")[1]?.length === 20 * piece.length, "all of it");
  assert.equal(ends.at(-1), "finish");
});

/** What is said but for the second in which it is said. */
function said(text: string): string {
  return text.replace(/date: [^\r]+ GMT\r\n/gi, "");
}

test("answers are byte for byte what node:http would write", async (t) => {
  const long = "y".repeat(200_000);
  const { port } = await rig(t, {
    options: { requestIdHeader: true },
    chat: ({ body }) => {
      const [kind] = body.messages;
      if (kind === "long") return json({ long });
      if (kind === "bug") throw new Error("a bug");
      return kind === "events" ? events(frames()) : json(body);
    },
  });
  const chat = (kind: string, ...more: string[]): string => {
    const body = JSON.stringify({ messages: [kind] });
    return [
      "POST /v1/chat HTTP/1.1",
      "Host: x",
      "X-Request-Id: 7",
      "Content-Type: application/json",
      `Content-Length: ${body.length}`,
      AUTH,
      ...more,
      "",
      body,
    ].join("\r\n");
  };
  const asked = (...more: string[]): string[] => [
    ...["whole", "long", "events", "bug"].map((kind) => chat(kind, ...more)),
    ["GET /v1/models HTTP/1.1", "Host: x", "X-Request-Id: 7", AUTH, ...more, "", ""].join("\r\n"),
    ["GET /health HTTP/1.1", "Host: x", "X-Request-Id: 7", ...more, "", ""].join("\r\n"),
    ["GET /v1/models HTTP/1.1", "Host: x", "X-Request-Id: 7", ...more, "", ""].join("\r\n"),
  ];
  const nodes = asked("TE: trailers");
  for (const [at, request] of asked().entries()) {
    const answers = await Promise.all([request, nodes[at] ?? ""].map((each) => answerTo(t, port, each)));
    assert.equal(said(answers[0] ?? ""), said(answers[1] ?? ""), request);
    assert.match(answers[0] ?? "", /^HTTP\/1\.1 [2-5]\d\d /);
  }
});

/** Until nothing has come for a while. */
async function answerTo(t: TestContext, port: number, request: string): Promise<string> {
  const { socket, text } = talk(t, port);
  socket.write(request);
  let before = "";
  do {
    before = text();
    await new Promise((resolve) => setTimeout(resolve, 60));
  } while (text() === "" || text() !== before);
  return text();
}

async function* frames(): AsyncGenerator<string> {
  for (const word of ["one", "two"]) {
    yield `data: ${word}\n\n`;
    await new Promise(setImmediate);
  }
}

test("a whole server: calls of many shapes on one connection leave nothing behind", async (t) => {
  const { http, port, records } = await rig(t);
  const { socket, text } = talk(t, port);
  const body = JSON.stringify({ messages: ["x".repeat(90_000)] });
  const post = `POST /v1/chat HTTP/1.1\r\nHost: x\r\n${AUTH}\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n`;
  for (const [at, request] of [post + body, `GET /v1/models HTTP/1.1\r\nHost: x\r\n${AUTH}\r\n\r\n`, post].entries()) {
    socket.write(request);
    if (at === 2) socket.write(body);
    await until(() => records.length === at + 1, "the call");
  }
  await until(() => statusesOf(text()).length === 3, "three answers");
  assert.deepEqual(
    records.map(({ status, requestBytes }) => [status, requestBytes]),
    [
      [200, body.length],
      [200, 0],
      [200, body.length],
    ],
  );
  socket.write(message("GET /health"));
  await closed(socket);
  await until(() => http.counters().sockets === 0, "the socket closes");
  assert.deepEqual(http.counters(), { sockets: 0, calls: 0, handlers: 0, timers: 0 });
});
