/**
 * Writes expected.json by reference.py.
 *
 * usage: python3 -m venv /tmp/numeric && /tmp/numeric/bin/pip install numpy
 *        npx node test/numeric/make-fixture.ts /tmp/numeric/bin/python
 */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { openTokenizer } from "#engine/native/tokenizer.ts";
import { DEMO_MODEL } from "../harness.ts";
import { EXPECTED, type Expected, MODELS } from "./models.ts";

const GREEDY_TOKENS = 16;
const QUESTIONS = ["What is Castellan?", "Hi!", "How do I start the server?"];

async function prompts(model: string): Promise<number[][]> {
  if (model !== "demo")
    return [1, 5, 40, 130].map((length) => Array.from({ length }, (_, at) => (at * 31 + length * 7) % 500));
  const tokenizer = openTokenizer({ modelPath: DEMO_MODEL, maxCharacters: 10_000 });
  const found: number[][] = [];
  for (const question of QUESTIONS) {
    const text = `<|im_start|>user\n${question}<|im_end|>\n<|im_start|>assistant\n`;
    found.push([...(await tokenizer.encodeTemplate(text))]);
  }
  tokenizer.close();
  return found;
}

const all: Expected[] = [];
for (const [model, path] of Object.entries(MODELS)) {
  const file = path();
  const input = JSON.stringify({ prompts: await prompts(model), tokens: GREEDY_TOKENS });
  const script = fileURLToPath(new URL("./reference.py", import.meta.url));
  const { stdout, status, stderr } = spawnSync(process.argv[2] ?? "python3", [script, file], {
    input,
    encoding: "utf8",
  });
  if (status !== 0) throw new Error(stderr);
  const digest = createHash("sha256").update(readFileSync(file)).digest("hex");
  all.push({ model, digest, cases: JSON.parse(stdout) as Expected["cases"] });
}
writeFileSync(EXPECTED, `${JSON.stringify(all)}\n`);
