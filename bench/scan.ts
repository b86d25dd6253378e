/**
 * What it costs to find the members of a body in its bytes, beside JSON.parse of the same bytes and beside the strict
 * reader: microseconds a body, the least of the rounds, alternating.
 *
 * Run: node bench/scan.ts. Prints one JSON object with the machine's facts.
 */
import { cpus } from "node:os";
import { parseJson } from "#base/json.ts";
import { WatchedKeys } from "#base/json-keys.ts";
import { scanJson } from "#base/json-scan.ts";

const ROUNDS = 9;
/** Of each round and reader. */
const ROUND_NS = 60e6;
/** Of a body, before it is timed. */
const WARM_BYTES = 10_000_000;
const WATCHED = new WatchedKeys(["uuid", "image_url", "video_url", "audio_url", "input_audio", "input_image", "file"]);

const ENGLISH = "The quick brown fox jumps over the lazy dog, and then it rests for a while. ";
const CODE = 'export function f(x) {\n  return x === "a" ? 1 : 2; // "why"\n}\n\n';
const GREEK = "Η γρήγορη καφέ αλεπού πηδάει πάνω από το τεμπέλικο σκυλί. ";

function chat(content: unknown, more: object = {}): Buffer {
  const messages = [
    { role: "system", content: "You are helpful." },
    { role: "user", content },
  ];
  return Buffer.from(
    JSON.stringify({ model: "demo", messages, max_tokens: 256, temperature: 0.7, stream: true, ...more }),
  );
}

function filled(text: string, bytes: number): string {
  return text.repeat(Math.ceil(bytes / text.length)).slice(0, bytes);
}

const ids = Array.from({ length: 32_000 }, (_, i) => (i * 7919) % 128_000);
const turns = Array.from({ length: 200 }, (_, i) => ({
  role: i % 2 ? "assistant" : "user",
  content: filled(ENGLISH, 90 + i),
}));
const BODIES: Readonly<Record<string, Buffer>> = {
  "chat, 220 bytes": chat("Hello there, how are you?"),
  "chat, 1 KB": chat(filled(ENGLISH, 900)),
  "chat, 200 turns": Buffer.from(JSON.stringify({ model: "demo", messages: turns })),
  "English, 214 KB": chat(filled(ENGLISH, 214_000)),
  "English, 2 MB": chat(filled(ENGLISH, 2_000_000)),
  "code, 214 KB": chat(filled(CODE, 190_000)),
  "prose with quotes, 220 KB": chat(
    filled('The "quick" brown fox jumps over the lazy dog, again and again.\n', 210_000),
  ),
  "Greek, 214 KB": chat(filled(GREEK, 119_000)),
  "escaped throughout, 214 KB": Buffer.from(`{"model":"demo","prompt":"${"\\u0394\\n".repeat(26_750)}"}`),
  "token ids, 32,000": Buffer.from(JSON.stringify({ model: "demo", prompt: ids })),
};

const READERS = {
  scan: (bytes: Buffer) => scanJson(bytes, WATCHED),
  "without vectors": (bytes: Buffer) => scanJson(bytes, WATCHED, { vectors: false }),
  "JSON.parse": (bytes: Buffer) => JSON.parse(bytes.toString()),
  parseJson: (bytes: Buffer) => parseJson(bytes),
} as const;
type Reader = keyof typeof READERS;

/** Microseconds a body. */
function timed(read: (bytes: Buffer) => unknown, body: Buffer, calls: number): number {
  const before = process.hrtime.bigint();
  for (let call = 0; call < calls; call++) read(body);
  return Number(process.hrtime.bigint() - before) / 1000 / calls;
}

function measure(body: Buffer): Record<Reader | "ratio", number> {
  const names = Object.keys(READERS) as Reader[];
  // V8 has compiled it before it is asked how long it takes.
  for (const name of names) timed(READERS[name], body, Math.round(WARM_BYTES / body.length));
  const calls = names.map((name) => Math.max(2, Math.round(ROUND_NS / 1000 / timed(READERS[name], body, 3))));
  const best = names.map(() => Number.POSITIVE_INFINITY);
  for (let round = 0; round < ROUNDS; round++)
    for (const [i, name] of names.entries())
      best[i] = Math.min(best[i] ?? 0, timed(READERS[name], body, Math.min(calls[i] ?? 2, 100_000)));
  const [scan = 0, slow = 0, parse = 0, strict = 0] = best.map((us) => Number(us.toPrecision(3)));
  const ratio = Number((parse / scan).toPrecision(3));
  return { scan, "without vectors": slow, "JSON.parse": parse, parseJson: strict, ratio };
}

const results = Object.fromEntries(
  Object.entries(BODIES).map(([name, body]) => [`${name} (${body.length} bytes)`, measure(body)]),
);
console.log(
  JSON.stringify(
    { unit: "µs a body; ratio: JSON.parse to scan", machine: cpus()[0]?.model, node: process.version, results },
    undefined,
    2,
  ),
);
