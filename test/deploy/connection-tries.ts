/**
 * A program for nftables.test.ts, run inside of a namespace with the firewall's rules: tries connections between this
 * machine and the one outside (the namespace of the process PEER), and prints those that come about.
 *
 * A packet that is dropped leaves no sign at its sender, so the end is not a time: it is when all that were expected are
 * there and the rules have counted as many drops as there are others.
 *
 * usage: node connection-tries.ts '{"side": "in", "tries": […], "expected": […]}'
 */
import { execFileSync, spawn } from "node:child_process";
import { connect, createServer } from "node:net";
import { until } from "../harness.ts";

export interface Try {
  readonly from: string;
  readonly to: string;
  readonly port: number;
}

export function nameOf({ from, to, port }: Try): string {
  return `${from} ${to}:${port}`;
}

interface Plan {
  readonly side: "in" | "out";
  readonly tries: readonly Try[];
  readonly expected: readonly string[];
}

/** All of the table's dropped packets, by the counters of its last rules. */
function drops(): number {
  const listed = execFileSync("nft", ["list", "table", "inet", "castellan"], { encoding: "utf8" });
  return [...listed.matchAll(/^\s*counter packets (\d+)/gm)].reduce((sum, [, count]) => sum + Number(count), 0);
}

function listen(ports: readonly number[]): Promise<unknown> {
  const one = (port: number) =>
    new Promise<void>((done) => createServer((s) => s.destroy()).listen(port, "0.0.0.0", done));
  return Promise.all([...new Set(ports)].map(one));
}

function connectAll(tries: readonly Try[]): void {
  for (const one of tries) {
    const socket = connect({ host: one.to, port: one.port, localAddress: one.from });
    socket.on("connect", () => console.log(nameOf(one)));
    socket.on("error", () => {});
  }
}

/** The same program, on one side: it listens, or it connects. */
function elsewhere(word: "listen" | "connect", tries: readonly Try[], outside: boolean): ReturnType<typeof spawn> {
  const command = [process.execPath, import.meta.filename, word, JSON.stringify(tries)];
  const entered = outside ? ["nsenter", `--net=/proc/${process.env["PEER"]}/ns/net`, ...command] : command;
  return spawn(entered[0] ?? "", entered.slice(1), { stdio: ["ignore", "pipe", "inherit"] });
}

async function run({ side, tries, expected }: Plan): Promise<void> {
  const seen = new Set<string>();
  const listener = elsewhere("listen", tries, side === "out");
  await new Promise((ready) => listener.stdout?.once("data", ready));
  const before = drops();
  const client = elsewhere("connect", tries, side === "in");
  client.stdout?.on("data", (chunk) => {
    for (const line of String(chunk).trim().split("\n")) seen.add(line);
  });
  const others = tries.length - expected.length;
  await until(
    "what is let in has come in, and the rest was dropped",
    () => expected.every((name) => seen.has(name)) && drops() - before >= others,
  ).catch(() => {});
  for (const child of [listener, client]) child.kill("SIGKILL");
  console.log([...seen].join("\n"));
}

if (import.meta.main) {
  const [first = "", second = "[]"] = process.argv.slice(2);
  if (first === "listen") {
    await listen((JSON.parse(second) as Try[]).map(({ port }) => port));
    console.log("listening");
  } else if (first === "connect") connectAll(JSON.parse(second) as Try[]);
  else await run(JSON.parse(first) as Plan);
}
