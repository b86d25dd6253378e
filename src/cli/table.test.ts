import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import stringWidth from "string-width";
import { type Column, facts, harmless, table } from "./table.ts";

type Row = readonly [string, string];
const COLUMNS: readonly Column<Row>[] = [
  { title: "ID", of: ([id]) => id },
  { title: "NAME", of: ([, name]) => name, flexible: true },
];
const PLAIN = { color: false } as const;

test("columns are as wide as what stands in them, by what a terminal shows", () => {
  const rows: Row[] = [
    ["a", "x"],
    ["日本", "\u{1f469}\u200d\u{1f467} e\u0301"],
    ["abcdef", ""],
  ];
  assert.equal(table(COLUMNS, rows, PLAIN), "ID      NAME\na       x\n日本    \u{1f469}\u{1f467} e\u0301\nabcdef\n");
});

test("a screen that is too narrow shortens what may give way, and only that", () => {
  const rows: Row[] = [["key_0123456789", "a long name that does not fit"]];
  const [head, line] = table(COLUMNS, rows, { color: false, columns: 30 }).split("\n");
  assert.equal(line, "key_0123456789  a long name t…");
  assert.equal(head, "ID              NAME");
  const tiny = table(COLUMNS, rows, { color: false, columns: 5 }).split("\n")[1];
  assert.equal(tiny, "key_0123456789  a long …");
});

test("there is colour on a terminal only", () => {
  const [head] = table(COLUMNS, [["a", "b"]], { color: true, columns: 80 }).split("\n");
  assert.equal(head, "\u001b[1mID  NAME\u001b[0m");
  assert.ok(!table(COLUMNS, [["a", "b"]], PLAIN).includes("\u001b"));
});

test("no text moves the cursor, breaks a line or turns its direction, and every line fits", () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.string({ unit: "binary" }), fc.string({ unit: "binary" }))),
      fc.integer({ min: 24, max: 100 }),
      (rows, columns) => {
        const printed = table(COLUMNS, rows, { color: false, columns });
        const lines = printed.split("\n");
        assert.equal(lines.length, rows.length + 2);
        assert.doesNotMatch(lines.join(""), /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u);
        const ids = Math.max(2, ...rows.map(([id]) => stringWidth(harmless(id))));
        for (const line of lines) assert.ok(stringWidth(line) <= Math.max(columns, ids + 2 + 8), line);
      },
    ),
  );
  assert.equal(harmless("a\u001b[31m\r\n\u202eb\u0000\u009bc"), "a[31mbc");
});

test("facts stand one a line", () => {
  assert.equal(
    facts([
      ["id", "x"],
      ["created", "a\nb"],
      ["empty", ""],
    ]),
    "id       x\ncreated  ab\nempty\n",
  );
});
