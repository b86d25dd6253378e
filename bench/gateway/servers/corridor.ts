/**
 * Castellan's corridor alone, with ten thousand keys in memory: identify, authorize, read, and a relay over its
 * client for upstreams, or (`stub`) over nothing, which shows what is the corridor's own.
 * usage: corridor.ts PORT UPSTREAM KEYS [stub]
 */
import { readFileSync } from "node:fs";
import { z } from "zod";
import { Secret } from "#base/secret.ts";
import type { Dialect } from "#core/dialect.ts";
import type { RelaySource, RelayTarget } from "#core/relay.ts";
import { UpstreamClient } from "#egress/upstream/client.ts";
import { key } from "#http/access.ts";
import type { Relay, RelayRequest } from "#http/relay.ts";
import { json, type Reply, relay as relayed } from "#http/reply.ts";
import { defineRoute } from "#http/route.ts";
import { createHttp } from "#http/server.ts";
import { plainGate } from "#policy/gate.ts";
import { createIdentify } from "#policy/identify.ts";
import { KeySet, operatorKey } from "#policy/keys.ts";

const [port = "0", upstream = "0", keys = "", kind = "upstream"] = process.argv.slice(2);
const client = new UpstreamClient({ origin: `http://127.0.0.1:${upstream}`, connections: 4096, connectMs: 5000 });
const timeouts = { firstByteMs: 60_000, idleMs: 60_000, totalMs: 0 };

const ANSWER = Buffer.from(`{"a":"${"a".repeat(971)}"}`);

class Stub implements RelaySource {
  pipe(target: RelayTarget): void {
    target.write(ANSWER);
    target.end();
  }

  resume(): void {}

  cancel(): void {}
}

const STUB_HEADERS = { "content-type": "application/json", "content-length": String(ANSWER.length) };
const HEADERS = ["content-type", "application/json"];

const relay: Relay<null> = {
  wants: () => true,
  answer: ({ body }: RelayRequest<null>) => {
    if (kind === "stub") return relayed({ status: 200, headers: STUB_HEADERS, source: new Stub() }, false);
    return pass(body);
  },
};

async function pass(body: Buffer | undefined): Promise<Reply> {
  const request = { method: "POST", target: "/v1/chat/completions", headers: HEADERS, body: body ? [body] : [] };
  const answer = await client.send(request, { timeouts });
  return relayed(answer, answer.headers["content-type"]?.startsWith("text/event-stream") === true);
}

const dialect: Dialect = {
  name: "openai",
  fault: ({ message }) => ({ status: 400, body: { error: message } }),
  streamFault: () => "",
};
const route = defineRoute<null>()({
  method: "POST",
  path: "/v1/chat/completions",
  dialect,
  access: key("inference"),
  plane: "public",
  limits: { bodyBytes: 8e6, timeoutMs: 600_000 },
  body: z.looseObject({}),
  reply: [],
  audit: "none",
  doc: "",
  handler: () => json({}),
});
const pepper = new Uint8Array(32);
const set = (JSON.parse(readFileSync(keys, "utf8")) as string[]).map((text, i) => ({
  ...operatorKey(pepper, new Secret(text), 1, "user"),
  id: `key_${i}`,
}));
const http = await createHttp({
  routes: [route],
  services: null,
  gate: plainGate(createIdentify(new KeySet(pepper, set))),
  dialect,
  options: { maxConnectionsPerAddress: 0, accessLog: false },
  relay,
});
await http.listen("public", { host: "127.0.0.1", port: Number(port) });
