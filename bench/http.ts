/**
 * What the corridor costs: CPU of the server thread per request for a trivial JSON POST, beside bare Fastify with
 * its own JSON reader and no key, and bare node:http. The client runs in a worker, so that its work is not counted.
 *
 *   node bench/http.ts [requests per round = 20000] [rounds = 5]
 *
 * Prints the medians over alternating rounds as JSON, with the machine.
 */
import { once } from "node:events";
import { createServer } from "node:http";
import { type AddressInfo, connect } from "node:net";
import { cpus } from "node:os";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import fastify from "fastify";
import { z } from "zod";
import { Secret } from "#base/secret.ts";
import type { Dialect } from "#core/dialect.ts";
import { key } from "#http/access.ts";
import { events, json } from "#http/reply.ts";
import { defineRoute } from "#http/route.ts";
import { createHttp } from "#http/server.ts";
import { plainGate } from "#policy/gate.ts";
import { createIdentify } from "#policy/identify.ts";
import { KeySet, operatorKey } from "#policy/keys.ts";

const CONNECTIONS = 16;
const FRAMES = 1000;
const BODY = JSON.stringify({
  model: "demo",
  messages: [{ role: "user", content: "Hello there, how are you?" }],
  max_tokens: 16,
});

interface Job {
  readonly port: number;
  readonly path: string;
  readonly requests: number;
}

/** The client: keeps one request open on each connection; counts answers by their last byte. */
async function drive({ port, path, requests }: Job): Promise<void> {
  const head = `POST ${path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer bench-key\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(BODY)}\r\n\r\n`;
  let left = requests;
  const line = async (): Promise<void> => {
    const socket = connect({ host: "127.0.0.1", port });
    while (left-- > 0) {
      socket.write(head + BODY);
      let answer = "";
      while (!/"done":true\}|\[DONE\]\n\n\r\n0\r\n\r\n$/.test(answer.slice(-40)))
        answer += String((await once(socket, "data"))[0]);
    }
    socket.destroy();
  };
  await Promise.all(Array.from({ length: CONNECTIONS }, line));
}

const Body = z.looseObject({
  model: z.string(),
  messages: z.array(z.object({ role: z.string(), content: z.string() })),
  max_tokens: z.int(),
});
const answer = { done: true };
const dialect: Dialect = {
  name: "openai",
  fault: ({ message }) => ({ status: 400, body: { error: message } }),
  streamFault: () => "",
};

async function castellan(): Promise<number> {
  const pepper = new Uint8Array(32);
  const route = defineRoute<null>();
  const rest = {
    method: "POST",
    dialect,
    access: key("inference"),
    plane: "public",
    limits: { bodyBytes: 1e6, timeoutMs: 60_000 },
    body: Body,
    reply: [],
    audit: "none",
    doc: "",
  } as const;
  async function* frames(): AsyncGenerator<string> {
    for (let i = 0; i < FRAMES; i++) yield 'data: {"choices":[{"delta":{"content":"token"}}]}\n\n';
    yield "data: [DONE]\n\n";
  }
  const http = await createHttp({
    routes: [
      route({ ...rest, path: "/json", handler: async () => json(answer) }),
      route({ ...rest, path: "/stream", handler: async () => events(frames()) }),
    ],
    services: null,
    gate: plainGate(createIdentify(new KeySet(pepper, [operatorKey(pepper, new Secret("bench-key"), 1, "user")]))),
    dialect,
  });
  const address = await http.listen("public", { host: "127.0.0.1", port: 0 });
  return "port" in address ? address.port : 0;
}

async function bareFastify(): Promise<number> {
  const app = fastify();
  app.post("/json", async () => answer);
  await app.listen({ host: "127.0.0.1", port: 0 });
  return (app.server.address() as AddressInfo).port;
}

async function bareNode(): Promise<number> {
  const server = createServer((req, res) => {
    req.resume().on("end", () => res.end(JSON.stringify(answer)));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return (server.address() as AddressInfo).port;
}

/** Microseconds of this thread's CPU per request. */
async function measure(job: Job): Promise<number> {
  const worker = new Worker(new URL(import.meta.url), { workerData: job });
  await once(worker, "message");
  const before = process.threadCpuUsage();
  worker.postMessage("go");
  await once(worker, "message");
  const { user, system } = process.threadCpuUsage(before);
  await worker.terminate();
  return (user + system) / job.requests;
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1] ?? Number.NaN;
}

async function main(): Promise<void> {
  const requests = Number(process.argv[2] ?? 20_000);
  const rounds = Number(process.argv[3] ?? 5);
  const ours = await castellan();
  const jobs: Record<string, Job> = {
    "node:http": { port: await bareNode(), path: "/", requests },
    fastify: { port: await bareFastify(), path: "/json", requests },
    castellan: { port: ours, path: "/json", requests },
    "castellan stream": { port: ours, path: "/stream", requests: Math.ceil(requests / 100) },
  };
  const samples = new Map<string, number[]>(Object.keys(jobs).map((name) => [name, []]));
  for (let round = -1; round < rounds; round++) {
    for (const [name, job] of Object.entries(jobs)) {
      const cost = await measure(job);
      // The first round warms the compiler up.
      if (round >= 0) samples.get(name)?.push(cost);
      process.stderr.write(`round ${round} ${name}: ${cost.toFixed(1)} us\n`);
    }
  }
  const perRequest = Object.fromEntries(
    [...samples].map(([name, values]) => [name, Number(median(values).toFixed(1))]),
  );
  const machine = { cpu: cpus()[0]?.model, cores: cpus().length, node: process.version };
  process.stdout.write(
    `${JSON.stringify({ bench: "http", unit: "us CPU per request, server thread, median", requests, rounds, framesPerStream: FRAMES, perRequest, machine }, null, 2)}\n`,
  );
  process.exit(0);
}

if (isMainThread) await main();
else {
  parentPort?.postMessage("ready");
  if (parentPort !== null) await once(parentPort, "message");
  await drive(workerData as Job);
  parentPort?.postMessage("done");
}
