import assert from "node:assert/strict";
import { isUtf8 } from "node:buffer";
import { test } from "node:test";
import fc from "fast-check";
import { ESCAPED, PLACE, StringStops, WIDE } from "./_json-simd.ts";
import { JsonError, parseJson } from "./json.ts";
import { type JsonScan, scanJson } from "./json-scan.ts";

type Outcome = JsonScan | { readonly reason: string; readonly path: string; readonly offset: number };

function outcome(bytes: Buffer, vectors: boolean): Outcome {
  try {
    return scanJson(bytes, undefined, { vectors });
  } catch (error) {
    assert.ok(error instanceof JsonError, String(error));
    return { reason: error.message, path: error.path, offset: error.offset };
  }
}

function taken(bytes: Buffer): boolean {
  try {
    parseJson(bytes);
    return true;
  } catch (error) {
    assert.ok(error instanceof JsonError, String(error));
    return false;
  }
}

/** @returns whether the text was taken, by both ways and by parseJson */
function agreed(bytes: Buffer): boolean {
  const found = outcome(bytes, true);
  assert.deepEqual(found, outcome(bytes, false), `${bytes.length} bytes: …${bytes.subarray(-200).toString()}`);
  const good = !("reason" in found);
  assert.equal(good, taken(bytes), bytes.toString());
  return good;
}

const GOOD = ['\\"', "\\\\", "\\/", "\\b\\f\\n\\r\\t", "\\u0000", "\\uFFFF", "\\ud7ff", "\\uE000", "\\ud83d\\ude00"];
const PAIRS = ["\\uD800\\uDC00", "\\udbff\\udfff", "\\uDbFf\\uDc00", "é", "😀", "\u007f", "\u0080"];
const BAD = ["\\x", "\\0", "\\'", "\\U0041", "\\\n", "\n", "\u0000", "\u001f", "\\é", "\\u00g0", "\\u00G0", "\\u00:0"];
const HALVES = [
  "\\ud800",
  "\\udbff",
  "\\udc00",
  "\\udfff",
  "\\ud800\\u0041",
  "\\ud800\\ud800",
  "\\ude00\\ud83d",
  "\\ud83dx",
];
const CUT = ["\\u", "\\u1", "\\u12", "\\u123", "\\ud83d\\", "\\ud83d\\u", "\\ud83d\\ude0", '\\ud83d"', "\\"];

test("there are vector instructions here, so that what follows compares two ways", () => {
  assert.ok(StringStops.make() !== undefined);
});

test("each sequence at each place of a block, and across the border of a window", () => {
  const near = Array.from({ length: 80 }, (_, i) => 24 + i);
  // The window begins behind the bytes that are looked at one by one.
  const border = Array.from({ length: 16 }, (_, i) => StringStops.WINDOW + 24 - 14 + i);
  const ends = ['"', 'bcd"', `${"e".repeat(70)}"`, "", "f"];
  let refused = 0;
  for (const sequence of [...GOOD, ...PAIRS, ...BAD, ...HALVES, ...CUT])
    for (const length of [...near, ...border])
      for (const end of length > 200 ? ends.slice(0, 2) : ends)
        if (!agreed(Buffer.from(`"${"a".repeat(length)}${sequence}${end}`))) refused++;
  assert.ok(refused > 5000);
});

test("runs of backslashes of any length, at any place", () => {
  for (let before = 20; before < 88; before++)
    for (let run = 1; run < 70; run++) {
      const bytes = Buffer.from(`"${"a".repeat(before)}${"\\".repeat(run)}"`);
      assert.equal(agreed(bytes), run % 2 === 0);
      assert.equal(agreed(Buffer.concat([bytes, Buffer.from('b"')])), run % 2 === 1);
    }
});

test("behind text with an escape in each block, any letter of an escape and any sequence, at each place of a block", () => {
  const letters = Array.from({ length: 128 }, (_, code) => `\\${String.fromCharCode(code)}`);
  const filler = '\\n is \\"'.repeat(16);
  let taken = 0;
  for (let place = 0; place < 66; place++) {
    for (const sequence of [...letters, ...GOOD, ...PAIRS, ...BAD, ...HALVES, ...CUT])
      if (agreed(Buffer.from(`"${filler}${"a".repeat(place)}${sequence}z"`))) taken++;
  }
  assert.equal(taken, 66 * (8 + GOOD.length + PAIRS.length));
});

test("between blocks of one kind and of the other: what hides a quote hides it wherever a block begins", () => {
  const kinds = ["\\\\", "\\n", "\\u0041", "\\ud83d\\ude00", '\\"', "a"];
  for (const before of kinds)
    for (const behind of kinds)
      for (let place = 0; place < 130; place++) {
        const text = `"${"a".repeat(30)}${before.repeat(9)}${"a".repeat(place)}${behind.repeat(40)}`;
        assert.ok(agreed(Buffer.from(`${text}"`)));
        assert.ok(!agreed(Buffer.from(`${text}\\"`)));
        assert.ok(agreed(Buffer.from(`${text}\\\\"`)));
      }
});

test("from wherever it is asked, the end is the same, and whether an escape stands before it", () => {
  const stops = StringStops.make();
  assert.ok(stops !== undefined);
  const parts = fc.oneof(
    fc.nat(90).map((length) => "x".repeat(length)),
    fc.constantFrom("\\n", '\\"', "\\/", "\\\\", "\\b", "\\u0041", "\\ud83d\\ude00"),
  );
  fc.assert(
    fc.property(fc.array(parts, { maxLength: 12 }), (pieces) => {
      const bytes = Buffer.from(`${pieces.join("")}"\\n"`);
      const end = bytes.length - 4;
      stops.load(bytes, 0, bytes.length);
      let at = 0;
      for (const [i, piece] of pieces.entries()) {
        const escapes = pieces.slice(i).some((other) => other.startsWith("\\"));
        assert.equal(stops.stop(at), (end << PLACE) | (escapes ? ESCAPED : 0), `${bytes} from ${at}`);
        at += piece.length;
      }
      assert.equal(stops.stop(at), end << PLACE);
    }),
    { numRuns: 2000 },
  );
});

test("bytes that are not ASCII are told of wherever they stand, and of what is ASCII nothing is", () => {
  const stops = StringStops.make();
  assert.ok(stops !== undefined);
  const fillers = ["a", '\\n is \\"', "\\\\", "\\u0041", "\\ud83d\\ude00", "\\b"];
  for (const filler of fillers) {
    const text = filler.repeat(Math.ceil(300 / filler.length));
    for (let place = 0; place <= text.length; place += filler.length) {
      const [before, behind] = [text.slice(0, place), text.slice(place)];
      for (const [wide, character] of [
        [0, "b"],
        [WIDE, "é"],
        [WIDE, "\u0080"],
      ] as const) {
        const bytes = Buffer.from(`${before}${character}${behind}"`);
        stops.load(bytes, 0, bytes.length);
        assert.equal(stops.stop(0) & WIDE, wide, `${bytes}`);
        assert.equal(stops.stop(0) >> PLACE, bytes.length - 1);
      }
    }
  }
});

/** Bytes that are not UTF-8: none that goes on, one that does not, an overlong one, half of a pair, one too great, two cut. */
const NOT_UTF8 = ["80", "c3", "c080", "eda080", "f4908080", "ff", "e282", "f09f98"].map((hex) =>
  Buffer.from(hex, "hex"),
);

test("bytes that are not UTF-8 are refused wherever they stand, before anything else that is wrong", () => {
  const reason = outcome(Buffer.from([0xff]), true);
  assert.ok("reason" in reason && reason.reason.includes("not valid UTF-8"));
  const bodies = ["a", '\\n is \\"', "\\\\", "\\u0041", "é", "漢"].map((filler) => filler.repeat(24));
  const texts = bodies.flatMap((body) => [
    `["${body}","k"]`,
    `{"${body}":1,"k":"${body}"}`,
    `["${body}\\x"]`,
    `["${body}`,
  ]);
  let seen = 0;
  for (const text of texts) {
    const bytes = Buffer.from(text);
    for (let place = 0; place <= bytes.length; place++) {
      for (const wrong of NOT_UTF8) {
        const broken = Buffer.concat([bytes.subarray(0, place), wrong, bytes.subarray(place)]);
        if (isUtf8(broken)) continue;
        for (const vectors of [true, false]) {
          assert.deepEqual(
            outcome(broken, vectors),
            reason,
            `${broken.toString("latin1")} with ${wrong.toString("hex")} at ${place}`,
          );
          seen++;
        }
      }
    }
  }
  assert.ok(seen > 20_000, String(seen));
});

test("and at the borders of windows", () => {
  for (const filler of ["a", "\\n", "é"]) {
    const text = Buffer.from(filler.repeat((2 * StringStops.WINDOW) / filler.length));
    for (let off = -70; off <= 70; off++) {
      const place = StringStops.WINDOW + 24 + off;
      const broken = Buffer.concat([
        Buffer.from('["'),
        text.subarray(0, place),
        Buffer.from([0xff]),
        text.subarray(place),
        Buffer.from('"]'),
      ]);
      const told = outcome(broken, true);
      assert.ok("reason" in told && /not valid UTF-8/.test(told.reason), `${filler} ${off}`);
    }
  }
});

const piece = fc.oneof(
  { weight: 4, arbitrary: fc.nat(70).map((length) => "x".repeat(length)) },
  { weight: 6, arbitrary: fc.constantFrom(...GOOD, ...PAIRS) },
  { weight: 1, arbitrary: fc.constantFrom(...BAD, ...HALVES, ...CUT) },
  { weight: 1, arbitrary: fc.constantFrom('"', '","', '":"', '",{"') },
);
const strings = fc.array(piece, { maxLength: 40 }).map((pieces) => `["${pieces.join("")}"]`);

test("texts of such sequences, whole and with bytes changed: the same verdict at the same place", () => {
  const changes = fc.array(fc.tuple(fc.nat(), fc.nat(127)), { maxLength: 2 });
  const verdicts = { taken: 0, refused: 0 };
  fc.assert(
    fc.property(strings, changes, (text, edits) => {
      const bytes = Buffer.from(text);
      for (const [where, byte] of edits) bytes[where % bytes.length] = byte;
      if (agreed(bytes)) verdicts.taken++;
      else verdicts.refused++;
    }),
    { numRuns: 5000 },
  );
  assert.ok(Math.min(verdicts.taken, verdicts.refused) > 200, JSON.stringify(verdicts));
});

test("a key is read by its escapes, wherever the window begins", () => {
  fc.assert(
    fc.property(fc.string({ unit: "binary", minLength: 30, maxLength: 200 }), fc.nat(200), (name, before) => {
      const key = name.toWellFormed();
      const text = Buffer.from(`{"${"p".repeat(before)}":"${"\\n".repeat(before)}",${JSON.stringify(key)}:1}`);
      assert.equal(scanJson(text).members[1]?.name, key);
    }),
  );
});

test("where there is no WebAssembly, or none is allowed, there are no vectors and no failure", (t) => {
  const present = Reflect.getOwnPropertyDescriptor(globalThis, "WebAssembly");
  assert.ok(present !== undefined);
  t.after(() => Reflect.defineProperty(globalThis, "WebAssembly", present));
  Reflect.defineProperty(globalThis, "WebAssembly", { ...present, value: undefined });
  assert.equal(StringStops.make(), undefined);
  class Module {
    constructor() {
      throw new Error("code generation is not allowed");
    }
  }
  Reflect.defineProperty(globalThis, "WebAssembly", { ...present, value: { Module } });
  assert.equal(StringStops.make(), undefined);
});
