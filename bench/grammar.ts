/**
 * What structured output costs a token: the check of a drawn token, and a mask over the vocabulary, met for the first
 * time and again. CPU microseconds; vocabularies are made, of 32k and 152k tokens.
 *
 * usage: node bench/grammar.ts
 */
import { Grammars } from "#engine/grammar/matcher.ts";
import { randomOf } from "#test/fixtures/grammar-walk.ts";
import { compileStructured } from "../src/prompt/grammar/compile.ts";

const SCHEMA = {
  type: "object",
  properties: {
    id: { type: "integer" },
    name: { type: "string" },
    email: { type: "string", format: "email" },
    tags: { type: "array", items: { type: "string", maxLength: 20 } },
    address: {
      type: "object",
      properties: { street: { type: "string" }, city: { type: "string" } },
      required: ["street"],
    },
  },
  required: ["id", "name", "email", "tags", "address"],
};

/** Bytes, then words of two to nine letters, with and without a space before them, some with JSON's signs. */
function vocabulary(size: number): (Uint8Array | undefined)[] {
  const random = randomOf(size);
  const letter = (): string => "etaoinshrdlucmfwypvbgkjqxz"[Math.floor(random() ** 2 * 26)] as string;
  const words = new Set<string>();
  while (words.size < size - 257) {
    const word = Array.from({ length: 2 + Math.floor(random() * 8) }, letter).join("");
    const dress = random();
    words.add(dress < 0.5 ? ` ${word}` : dress < 0.9 ? word : dress < 0.95 ? `"${word}` : `${word}":`);
  }
  const bytes = Array.from({ length: 256 }, (_, byte) => Uint8Array.of(byte));
  return [...bytes, ...[...words].map((word) => new Uint8Array(Buffer.from(word))), undefined];
}

function cpu(work: () => void): number {
  const before = process.cpuUsage();
  work();
  const { user, system } = process.cpuUsage(before);
  return user + system;
}

console.log("| vocabulary | tokens | check, us | first mask, us | mask again, us | places | compile, us |");
console.log("|---|---|---|---|---|---|---|");
for (const size of [32_000, 152_000]) {
  const pieces = vocabulary(size);
  const end = size - 1;
  const grammars = new Grammars(pieces, [end]);
  let constraint = compileStructured({ kind: "json_schema", schema: SCHEMA });
  const compile = cpu(() => {
    for (let i = 0; i < 20; i++)
      constraint = compileStructured({ kind: "json_schema", schema: { ...SCHEMA, title: `${size} ${i}` } });
  });
  const random = randomOf(7);
  let [tokens, checks, first, again] = [0, 0, 0, 0];
  const masks = new Set<Uint32Array>();
  for (let round = 0; round < 10; round++) {
    const matcher = grammars.matcher(constraint);
    for (let i = 0; i < 200 && !matcher.finished; i++) {
      let mask: Uint32Array | undefined;
      const spent = cpu(() => {
        mask = matcher.mask();
      });
      if (mask === undefined) throw new Error("no mask");
      if (masks.has(mask)) again += spent;
      else first += spent;
      masks.add(mask);
      const allowed = pieces.flatMap((_, token) =>
        ((mask?.[token >>> 5] as number) >>> (token & 31)) & 1 ? [token] : [],
      );
      const token = allowed[Math.floor(random() * allowed.length)] as number;
      if (token === end) break;
      checks += cpu(() => {
        if (!matcher.allows(token)) throw new Error("the mask and the check differ");
        matcher.advance(token);
      });
      tokens++;
    }
  }
  const places = masks.size;
  const row = [checks / tokens, first / places, again / Math.max(1, tokens - places)].map((value) => value.toFixed(1));
  console.log(`| ${size} | ${tokens} | ${row.join(" | ")} | ${places} | ${(compile / 20).toFixed(0)} |`);
}
