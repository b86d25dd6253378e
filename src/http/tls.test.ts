import assert from "node:assert/strict";
import { once } from "node:events";
import { connect } from "node:net";
import { before, type TestContext, test } from "node:test";
import { type ConnectionOptions, connect as connectTls, type TLSSocket } from "node:tls";
import { CertificateMap, CertificateRules } from "#policy/certificates.ts";
import { plainGate } from "#policy/gate.ts";
import { identifyBy } from "#policy/identify.ts";
import { type Authority, authority, CLIENT_AUTH, type Issued, SERVER_AUTH } from "#test/fixtures/certificates.ts";
import { AUTH, closed, materialOf, message, rig, statusesOf, tlsSource, until } from "#test/http/harness.ts";
import type { HttpOptions } from "./options.ts";
import { events } from "./reply.ts";
import type { TlsMaterial, TlsSource } from "./tls.ts";

const GET = "GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n";
const DAY = 86_400_000;

let ca: Authority;
let server: Issued;
let client: Issued;
before(async () => {
  ca = await authority();
  server = await ca.issue();
  client = await ca.issue({ subject: "CN=app,O=Acme", names: [], usage: [CLIENT_AUTH] });
});

const rules = CertificateRules.parse([
  { spiffe: "spiffe://td/ns/*", tenant: "mesh", role: "admin" },
  { subject: { CN: "app", O: "Acme" }, tenant: "acme", role: "admin" },
]);

interface Door {
  readonly port: number;
  readonly source: ReturnType<typeof tlsSource>;
  readonly sockets: () => number;
  readonly principals: () => (string | undefined)[];
}

/** A server that knows clients by their certificates. */
async function door(
  t: TestContext,
  clients: TlsSource["clients"] = "none",
  more: Partial<TlsMaterial> = {},
  options: Partial<HttpOptions> = {},
): Promise<Door> {
  const source = tlsSource(server, clients, { clientAuthorities: [ca.cert], ...more });
  const map = new CertificateMap(rules);
  const { http, port, records } = await rig(t, {
    tls: source,
    options,
    gate: (plain) => {
      const provers = { keys: (key: string) => plainKey(plain.identify, key), certificates: map.find.bind(map) };
      return plainGate(map.guard(identifyBy(provers)));
    },
    chat: () =>
      events(
        (async function* () {
          yield "data: 1\n\n";
          await new Promise(() => {});
        })(),
      ),
  });
  const principals = () => records.map(({ principal }) => principal);
  return { port, source, sockets: () => http.counters().sockets, principals };
}

function plainKey(identify: ReturnType<typeof identifyBy>, key: string) {
  return identify(["authorization", `Bearer ${key}`], "openai", { address: undefined });
}

interface Line {
  readonly socket: TLSSocket;
  text(): string;
}

/** A handshake that came to its end, as far as the client can tell. @throws what ended it */
async function open(port: number, options: ConnectionOptions = {}): Promise<Line> {
  const socket = connectTls({ host: "127.0.0.1", port, ca: ca.cert, ...options });
  let text = "";
  socket.on("data", (data) => {
    text += String(data);
  });
  await once(socket, "secureConnect");
  socket.on("error", () => {});
  return { socket, text: () => text };
}

/** The statuses of these requests, or the code of what went wrong; in TLS 1.3 a refusal comes after the handshake. */
async function ask(port: number, options: ConnectionOptions = {}, bytes = message("GET /v1/models")) {
  try {
    const { socket, text } = await open(port, options);
    socket.write(bytes);
    await closed(socket);
    return text() === "" ? "closed" : statusesOf(text());
  } catch (error) {
    return (error as NodeJS.ErrnoException).code;
  }
}

const keyed = message("GET /v1/models", [AUTH]);

test("TLS 1.2 and 1.3 with GCM and P-256 or P-384 are spoken, older or weaker things are not", async (t) => {
  const { port } = await door(t);
  const good: ConnectionOptions[] = [
    {},
    { minVersion: "TLSv1.3" },
    { maxVersion: "TLSv1.2" },
    { maxVersion: "TLSv1.2", ciphers: "ECDHE-ECDSA-AES128-GCM-SHA256" },
    { ecdhCurve: "P-384" },
    { ALPNProtocols: ["h2", "http/1.1"] },
  ];
  for (const options of good) assert.deepEqual(await ask(port, options, keyed), [200], JSON.stringify(options));
  const bad: ConnectionOptions[] = [
    { minVersion: "TLSv1.1", maxVersion: "TLSv1.1", ciphers: "DEFAULT@SECLEVEL=0" },
    { minVersion: "TLSv1", maxVersion: "TLSv1", ciphers: "DEFAULT@SECLEVEL=0" },
    { maxVersion: "TLSv1.2", ciphers: "ECDHE-ECDSA-AES256-SHA384" },
    { maxVersion: "TLSv1.2", ciphers: "AES128-GCM-SHA256" },
    { maxVersion: "TLSv1.2", ciphers: "ECDHE-ECDSA-CHACHA20-POLY1305" },
    { minVersion: "TLSv1.3", ciphers: "TLS_CHACHA20_POLY1305_SHA256" },
    { ecdhCurve: "X25519" },
    { ALPNProtocols: ["h2"] },
  ];
  for (const options of bad) {
    const outcome = await ask(port, options, keyed);
    assert.ok(typeof outcome === "string" && outcome !== "closed", `${JSON.stringify(options)}: ${outcome}`);
  }
});

test("the server's order of suites counts, before and after a renewal", async (t) => {
  const { port, source } = await door(t);
  for (const renew of [false, true]) {
    if (renew) source.change(materialOf(await ca.issue(), { clientAuthorities: [ca.cert] }));
    const { socket } = await open(port, {
      maxVersion: "TLSv1.2",
      ciphers: "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384",
    });
    assert.equal(socket.getCipher().name, "ECDHE-ECDSA-AES256-GCM-SHA384");
    socket.destroy();
  }
});

test("own ciphers widen the list, and bring nothing broken back", async (t) => {
  const { port } = await door(t, "none", { ciphers: "ALL:aNULL:eNULL:@SECLEVEL=0" });
  const take = (ciphers: string) => ask(port, { maxVersion: "TLSv1.2", ciphers: `${ciphers}:@SECLEVEL=0` }, keyed);
  assert.deepEqual(await take("ECDHE-ECDSA-AES256-SHA384"), [200]);
  assert.deepEqual(await ask(port, { minVersion: "TLSv1.3" }, keyed), [200]);
  for (const weak of ["AECDH-AES128-SHA", "ECDHE-ECDSA-NULL-SHA", "PSK-AES128-GCM-SHA256"])
    assert.ok(typeof (await take(weak)) === "string", weak);
});

test("no session is resumed, by ticket or by id, in 1.2 and 1.3, before and after a renewal", async (t) => {
  const { port, source } = await door(t, "required");
  for (const renew of [false, true]) {
    if (renew) source.change(materialOf(await ca.issue(), { clientAuthorities: [ca.cert] }));
    for (const maxVersion of ["TLSv1.2", "TLSv1.3"] as const) {
      const identity = { cert: client.cert, key: client.key, maxVersion };
      const first = await open(port, identity);
      const sessions: Buffer[] = [];
      first.socket.on("session", (session) => sessions.push(session));
      first.socket.write(message("GET /v1/models"));
      await closed(first.socket);
      const early = first.socket.getSession();
      for (const session of [...sessions, ...(early === undefined ? [] : [early])]) {
        const second = await open(port, { ...identity, session });
        assert.equal(second.socket.isSessionReused(), false, `${maxVersion}, renewed: ${renew}`);
        second.socket.destroy();
        // Without its certificate the session is worth nothing.
        assert.ok(typeof (await ask(port, { maxVersion, session })) === "string");
      }
    }
  }
});

test("a client cannot renegotiate", async (t) => {
  const { port } = await door(t);
  const { socket } = await open(port, { maxVersion: "TLSv1.2" });
  const ended = new Promise<unknown>((resolve) => {
    socket.renegotiate({}, resolve);
    socket.once("close", () => resolve(new Error("closed")));
  });
  assert.ok((await ended) instanceof Error);
  socket.destroy();
});

test("required: no certificate, an expired or future one, another CA's and a server's are refused", async (t) => {
  const { port, principals } = await door(t, "required");
  const issued = (wish: Parameters<Authority["issue"]>[0], by = ca) => by.issue({ subject: "CN=app,O=Acme", ...wish });
  const bad = {
    none: undefined,
    expired: await issued({ from: -2 * DAY, until: -DAY }),
    future: await issued({ from: DAY, until: 2 * DAY }),
    stranger: await issued({}, await authority()),
    server: await issued({ usage: [SERVER_AUTH] }),
  };
  for (const maxVersion of ["TLSv1.2", "TLSv1.3"] as const) {
    for (const [name, identity] of Object.entries(bad)) {
      const options = identity === undefined ? {} : { cert: identity.cert, key: identity.key };
      for (const bytes of [message("GET /v1/models"), keyed, message("GET /health")]) {
        const outcome = await ask(port, { ...options, maxVersion }, bytes);
        assert.ok(typeof outcome === "string", `${name} ${maxVersion}: ${outcome}`);
      }
    }
    assert.deepEqual(await ask(port, { cert: client.cert, key: client.key, maxVersion }), [200]);
  }
  assert.equal(principals().length, 2);
});

test("optional: without a certificate a key counts; one that does not verify ends the connection", async (t) => {
  const { port } = await door(t, "optional");
  const expired = await ca.issue({ subject: "CN=app,O=Acme", from: -2 * DAY, until: -DAY });
  const stranger = await (await authority()).issue({ subject: "CN=app,O=Acme" });
  assert.deepEqual(await ask(port), [401]);
  assert.deepEqual(await ask(port, {}, keyed), [200]);
  assert.deepEqual(await ask(port, { cert: client.cert, key: client.key }), [200]);
  for (const maxVersion of ["TLSv1.2", "TLSv1.3"] as const)
    for (const { cert, key } of [expired, stranger])
      assert.ok(typeof (await ask(port, { cert, key, maxVersion }, keyed)) === "string");
});

test("none: a certificate is not asked for and says nothing", async (t) => {
  const { port } = await door(t);
  assert.deepEqual(await ask(port, { cert: client.cert, key: client.key }), [401]);
});

test("certificates are principals by SPIFFE id or subject; others verify and are nobody", async (t) => {
  const { port, principals } = await door(t, "required");
  const named = async (subject: string, ...names: string[]) => {
    const { cert, key } = await ca.issue({ subject, names });
    return ask(port, { cert, key });
  };
  assert.deepEqual(await named("CN=x", "uri:spiffe://td/ns/a", "dns:x"), [200]);
  assert.deepEqual(await named("CN=y", "uri:spiffe://td/ns/a"), [200]);
  assert.deepEqual(await named("CN=app,O=Acme"), [200]);
  assert.deepEqual(await named("CN=app,O=Acme", "uri:spiffe://td/other"), [401]);
  assert.deepEqual(await named("CN=x", "uri:spiffe://td/ns/a", "uri:spiffe://td/ns/b"), [401]);
  assert.deepEqual(await named("CN=x", "uri:spiffe://td/ns/../a"), [401]);
  assert.deepEqual(await named("CN=x", "uri:spiffe://td/ns/a,URI:spiffe://td/ns/b"), [401]);
  assert.deepEqual(await named("CN=app\\,O\\=Acme"), [401]);
  assert.deepEqual(await named("CN=other,O=Acme"), [401]);
  const [one, two, three] = principals();
  assert.ok(one !== undefined && one === two && three !== undefined && one !== three);
});

test("a chain over an intermediate authority maps, and is no longer valid than its shortest", async (t) => {
  const { port } = await door(t, "required");
  const between = await authority("CN=Between", ca);
  const leaf = await between.issue({ subject: "CN=app,O=Acme" });
  assert.deepEqual(await ask(port, { cert: leaf.cert + between.cert, key: leaf.key }), [200]);
  assert.ok(typeof (await ask(port, { cert: leaf.cert, key: leaf.key })) === "string");
});

test("a certificate that runs out while its connection is open: 401 at the next request, and the end", async (t) => {
  const { port, principals } = await door(t, "required");
  const { cert, key } = await ca.issue({ subject: "CN=app,O=Acme", until: 3000 });
  const { socket, text } = await open(port, { cert, key });
  socket.write(GET);
  await until(() => statusesOf(text()).length === 1, "an answer");
  const isLast = (): boolean => /^connection: close\r$/im.test(text().slice(text().lastIndexOf("HTTP/1.1 ")));
  for (let asked = 1; !isLast() && asked < 1000; asked++) {
    socket.write(GET);
    await until(() => statusesOf(text()).length > asked, "an answer");
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  assert.equal(statusesOf(text()).at(-1), 401);
  await closed(socket);
  assert.equal(principals().at(-1), undefined);
  // Its session, too, is worth nothing.
  const session = socket.getSession();
  assert.ok(typeof (await ask(port, { cert, key, ...(session === undefined ? {} : { session }) })) === "string");
});

test("renewal: new connections have the new certificate, open ones go on; a listener survives many", async (t) => {
  const { port, source } = await door(t);
  const old = await open(port);
  const fresh = await ca.issue();
  for (let i = 0; i < 20; i++) source.change(materialOf(i % 2 === 0 ? fresh : server));
  source.change(materialOf(fresh));
  const next = await open(port);
  assert.equal(next.socket.getPeerCertificate().serialNumber.toLowerCase(), fresh.certificate.serialNumber);
  next.socket.destroy();
  old.socket.write(GET);
  await until(() => statusesOf(old.text()).length === 1, "the old connection's answer");
  old.socket.destroy();
  assert.ok(typeof (await ask(port, { maxVersion: "TLSv1.2", ciphers: "ECDHE-ECDSA-AES256-SHA384" })) === "string");
  assert.ok(typeof (await ask(port, { ALPNProtocols: ["h2"] })) === "string");
});

test("an authority that is taken away: its clients are cut in mid-answer, idle ones of others connect anew", async (t) => {
  const second = await authority("CN=Second");
  const { port, source, sockets } = await door(t, "required", { clientAuthorities: [ca.cert, second.cert] });
  const stays = await second.issue({ subject: "CN=app,O=Acme" });
  const body = JSON.stringify({ messages: ["hi"] });
  const lines = await Promise.all([client, stays].map(({ cert, key }) => open(port, { cert, key })));
  const idle = await open(port, { cert: stays.cert, key: stays.key });
  idle.socket.write(GET);
  for (const { socket } of lines) socket.write(message("POST /v1/chat", [], body).replace("Connection: close\r\n", ""));
  await until(() => [...lines, idle].every(({ text }) => /\r\n\r\n./s.test(text())), "all answer");
  source.change(materialOf(server, { clientAuthorities: [second.cert] }));
  await Promise.all([closed(lines[0]?.socket as TLSSocket), closed(idle.socket)]);
  await until(() => sockets() === 1, "the other stream goes on");
  assert.ok(typeof (await ask(port, { cert: client.cert, key: client.key })) === "string");
  assert.deepEqual(await ask(port, { cert: stays.cert, key: stays.key }), [200]);
  lines[1]?.socket.destroy();
});

test("a revoked certificate is refused, and its open connection ends", async (t) => {
  const revoked = await ca.issue({ subject: "CN=app,O=Acme" });
  const { port, source } = await door(t, "required", { revocationLists: [await ca.revoke([])] });
  assert.deepEqual(await ask(port, { cert: revoked.cert, key: revoked.key }), [200]);
  const line = await open(port, { cert: revoked.cert, key: revoked.key });
  line.socket.write(GET);
  await until(() => statusesOf(line.text()).length === 1, "an answer");
  source.change(materialOf(server, { clientAuthorities: [ca.cert], revocationLists: [await ca.revoke([revoked])] }));
  await closed(line.socket);
  assert.ok(typeof (await ask(port, { cert: revoked.cert, key: revoked.key })) === "string");
  assert.deepEqual(await ask(port, { cert: client.cert, key: client.key }), [200]);
});

test("plain HTTP, garbage and silence on a TLS port end without a word, and leave nothing", async (t) => {
  const { port, sockets } = await door(t, "none", {}, { handshakeTimeoutMs: 200 });
  for (const bytes of [GET, "\u0016\u0003\u0001\u0000\u0005hello", ""]) {
    const socket = connect({ host: "127.0.0.1", port });
    let answer = "";
    socket.on("data", (data) => {
      answer += data.toString("latin1");
    });
    socket.on("error", () => {});
    socket.write(bytes);
    await closed(socket);
    assert.ok(!answer.includes("HTTP"), answer);
  }
  await until(() => sockets() === 0, "all are gone");
});

test("unfinished handshakes are bounded: the oldest makes room for one that ends", async (t) => {
  const { port, sockets } = await door(t, "none", {}, { maxHandshakes: 4, handshakeTimeoutMs: 60_000 });
  const silent = Array.from({ length: 12 }, () => connect({ host: "127.0.0.1", port }));
  for (const socket of silent) socket.on("error", () => {});
  await until(() => sockets() === 4, "four are left");
  assert.deepEqual(await ask(port, {}, keyed), [200]);
  await until(() => sockets() === 3, "three are left");
  for (const socket of silent) socket.destroy();
  await until(() => sockets() === 0, "all are gone");
});

test("closing ends handshakes that are under way", async (t) => {
  const source = tlsSource(server);
  const { http, port } = await rig(t, { tls: source });
  const silent = connect({ host: "127.0.0.1", port });
  silent.on("error", () => {});
  await until(() => http.counters().sockets === 1, "it is there");
  await http.close(0);
  await closed(silent);
});
