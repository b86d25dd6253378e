/**
 * node-llama-cpp, in process: the same sequences over the same model. Prints tokens a second and CPU milliseconds a token
 * as JSON. Needs node-llama-cpp installed in a folder of its own, which is given as the first argument.
 *
 * usage: node peer-node-llama-cpp.mjs FOLDER MODEL CONCURRENCY PROMPT_TOKENS MAX_TOKENS THREADS
 */
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [folder, model, concurrency, promptTokens, maxTokens, threads] = process.argv.slice(2);
const entry = createRequire(`${folder}/`).resolve("node-llama-cpp");
const { getLlama } = await import(pathToFileURL(entry).href);

const [count, length, most] = [concurrency, promptTokens, maxTokens].map(Number);
const prompt = (seed) => Array.from({ length }, (_, i) => (i * 7919 + seed * 104_729) % 30_000);
const llama = await getLlama({ gpu: false, build: "never", maxThreads: Number(threads), logLevel: "error" });
const loaded = await llama.loadModel({ modelPath: model });
const contextSize = Math.ceil((length + most + 1) / 256) * 256;
const options = { sequences: count, contextSize, batchSize: 2048, threads: Number(threads) };
const context = await loaded.createContext(options);

async function generate(sequence, seed) {
  let tokens = 0;
  for await (const _token of sequence.evaluate(prompt(seed), { temperature: 0, yieldEogToken: true })) {
    if (++tokens === most) break;
  }
  return tokens;
}

const sequences = Array.from({ length: count }, () => context.getSequence());
const cpu = process.cpuUsage();
const start = performance.now();
const counts = await Promise.all(sequences.map((sequence, i) => generate(sequence, 1000 + i)));
const seconds = (performance.now() - start) / 1000;
const used = process.cpuUsage(cpu);
const tokens = counts.reduce((a, b) => a + b, 0);
console.log(
  JSON.stringify({ tokensPerSecond: tokens / seconds, cpuMsPerToken: (used.user + used.system) / 1000 / tokens }),
);
process.exit(0);
