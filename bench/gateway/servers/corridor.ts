/**
 * Castellan's corridor alone, with ten thousand keys in memory: identify, authorize, read, and a relay over its
 * client for upstreams, or (`stub`) over nothing, which shows what is the corridor's own. With `policy` quotas are taken
 * and settled, use is booked in SQLite, every call has its record on the disk before its answer, and is measured.
 * usage: corridor.ts PORT UPSTREAM KEYS [stub|policy]
 */
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { z } from "zod";
import { silentLog } from "#base/log.ts";
import { createRegistry } from "#base/metrics.ts";
import { Secret } from "#base/secret.ts";
import type { Dialect } from "#core/dialect.ts";
import type { RelaySource, RelayTarget } from "#core/relay.ts";
import { UpstreamClient } from "#egress/upstream/client.ts";
import { key } from "#http/access.ts";
import type { Relay, RelayRequest } from "#http/relay.ts";
import { json, type Reply, relay as relayed } from "#http/reply.ts";
import { defineRoute } from "#http/route.ts";
import { createHttp } from "#http/server.ts";
import { auditedGate } from "#policy/audit/gate.ts";
import { openAuditLog } from "#policy/audit/open.ts";
import { type Gate, plainGate } from "#policy/gate.ts";
import { createIdentify } from "#policy/identify.ts";
import { KeySet, operatorKey } from "#policy/keys.ts";
import { meteredGate } from "#policy/limits/gate.ts";
import { MemoryLedger } from "#policy/limits/memory-ledger.ts";
import { QueueShares } from "#policy/limits/queue-shares.ts";
import { openStateDirectory } from "#policy/state.ts";
import { openStore } from "#policy/store/store.ts";
import { createUsageBook } from "#policy/usage/book.ts";
import { spentIn, usageSink } from "#policy/usage/table.ts";
import { registerHttpMetrics } from "#serving/http-metrics.ts";

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
  answer: ({ body, caller }: RelayRequest<null>) => {
    if (kind === "stub") return relayed({ status: 200, headers: STUB_HEADERS, source: new Stub() }, false);
    return kind === "policy" ? metered(body, caller) : pass(body);
  },
};

/** What the real relay does about quotas: takes before, gives back when the answer is over. */
async function metered(body: Buffer | undefined, { meter }: RelayRequest<null>["caller"]): Promise<Reply> {
  const held = await meter.reserve({ model: "m", promptTokens: 300, completionTokens: 64, sequences: 1 });
  const used = { promptTokens: 200, completionTokens: 50, cachedTokens: 0, reasoningTokens: 0 };
  return pass(body, () => void held.settle(used));
}

async function pass(body: Buffer | undefined, ended: () => void = () => {}): Promise<Reply> {
  const request = { method: "POST", target: "/v1/chat/completions", headers: HEADERS, body: body ? [body] : [] };
  const answer = await client.send(request, { timeouts, ended });
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
  audit: "metadata",
  doc: "",
  handler: () => json({}),
});
const pepper = new Uint8Array(32);
const set = (JSON.parse(readFileSync(keys, "utf8")) as string[]).map((text, i) => ({
  ...operatorKey(pepper, new Secret(text), 1, "user"),
  id: `key_${i}`,
}));
const identify = createIdentify(new KeySet(pepper, set));

/** In a folder of its own beside the keys. */
async function policed(gate: Gate): Promise<Gate> {
  const state = openStateDirectory(join(dirname(keys), "state"));
  const store = await openStore({ state });
  const figures = { requestsPerMinute: 1e9, tokensPerDay: 1e12, concurrentRequests: 1e6 };
  const nothing = (): void => {};
  const books = {
    ledger: new MemoryLedger(spentIn(store.db)),
    usage: createUsageBook({ sink: usageSink(store), log: silentLog }),
    queue: new QueueShares(Number.POSITIVE_INFINITY),
    keyLimits: () => figures,
    limitsOf: () => figures,
    priceOf: () => undefined,
    onRefused: nothing,
    onUnavailable: nothing,
    now: Date.now,
  };
  const limits = { fileBytes: 64 * 2 ** 20, keepFiles: 20, keepDays: undefined };
  const log = openAuditLog({ ...limits, state, directory: undefined, checkpointFile: undefined, log: silentLog });
  return auditedGate(meteredGate(gate, books), log, { onFailure: "refuse" });
}

const plain = plainGate(identify);
const http = await createHttp({
  routes: [route],
  services: null,
  gate: kind === "policy" ? await policed(plain) : plain,
  dialect,
  options: { maxConnectionsPerAddress: 0, accessLog: false },
  relay,
  ...(kind === "policy" ? { observer: registerHttpMetrics(createRegistry()) } : {}),
});
await http.listen("public", { host: "127.0.0.1", port: Number(port) });
