/**
 * Castellan's corridor alone, with ten thousand keys in memory: identify, authorize, read, and a relay over undici's
 * dispatch, or (`stub`) over nothing, which shows what is the corridor's own.
 * usage: corridor.ts PORT UPSTREAM KEYS [stub]
 */
import { readFileSync } from "node:fs";
import { type Dispatcher, Pool } from "undici";
import { z } from "zod";
import { Secret } from "#base/secret.ts";
import type { Dialect } from "#core/dialect.ts";
import { Fault } from "#core/fault.ts";
import type { RelaySource, RelayTarget } from "#core/relay.ts";
import { key } from "#http/access.ts";
import type { Relay, RelayRequest } from "#http/relay.ts";
import { json, type Reply, relay as relayed } from "#http/reply.ts";
import { defineRoute } from "#http/route.ts";
import { createHttp } from "#http/server.ts";
import { plainGate } from "#policy/gate.ts";
import { createIdentify } from "#policy/identify.ts";
import { KeySet, operatorKey } from "#policy/keys.ts";

const [port = "0", upstream = "0", keys = "", kind = "undici"] = process.argv.slice(2);
const pool = new Pool(`http://127.0.0.1:${upstream}`, { connections: 4096, pipelining: 1 });

class Source implements RelaySource, Dispatcher.DispatchHandler {
  readonly #answer: (reply: Reply) => void;
  #controller: Dispatcher.DispatchController | undefined;
  #target: RelayTarget | undefined;
  #early: Buffer[] = [];
  #ended = false;

  constructor(answer: (reply: Reply) => void) {
    this.#answer = answer;
  }

  onRequestStart(): void {}

  onResponseStart(
    controller: Dispatcher.DispatchController,
    status: number,
    headers: Record<string, string | string[]>,
  ): void {
    this.#controller = controller;
    const type = String(headers["content-type"]);
    const length = headers["content-length"];
    const head = { "content-type": type, ...(length === undefined ? {} : { "content-length": String(length) }) };
    this.#answer(relayed({ status, headers: head, source: this }, type.startsWith("text/event-stream")));
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.#target === undefined) this.#early.push(chunk);
    else if (!this.#target.write(chunk)) controller.pause();
  }

  onResponseEnd(): void {
    this.#ended = true;
    this.#target?.end();
  }

  onResponseError(): void {
    this.#target?.fail(new Fault("engine_failed", "The upstream broke off."));
  }

  pipe(target: RelayTarget): void {
    this.#target = target;
    for (const chunk of this.#early.splice(0)) target.write(chunk);
    if (this.#ended) target.end();
  }

  resume(): void {
    this.#controller?.resume();
  }

  cancel(): void {
    this.#controller?.abort(new Error("cancelled"));
  }
}

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
const HEADERS = ["content-type", "application/json", "authorization", "Bearer upstream"];

const relay: Relay<null> = {
  wants: () => true,
  answer: ({ body }: RelayRequest<null>) => {
    if (kind === "stub") return relayed({ status: 200, headers: STUB_HEADERS, source: new Stub() }, false);
    return new Promise((resolve) => {
      const options = { path: "/v1/chat/completions", method: "POST", headers: HEADERS, body: body ?? null } as const;
      pool.dispatch(options, new Source(resolve));
    });
  },
};

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
