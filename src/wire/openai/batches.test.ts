import assert from "node:assert/strict";
import { test } from "node:test";
import { Fault } from "#core/fault.ts";
import { BatchBody, BatchListQuery, decodeBatch } from "./batches.ts";
import { decodeUpload, FileListQuery } from "./files.ts";
import { decodePage, encodePage } from "./list.ts";

const WORDS = { input_file_id: "file-1", endpoint: "/v1/completions", completion_window: "24h" };

const made = (more: object) => decodeBatch(BatchBody.parse({ ...WORDS, ...more }));

/** The field that is named. */
function refusedBy(decode: () => unknown): string | undefined {
  try {
    decode();
    return undefined;
  } catch (error) {
    if (error instanceof Fault) return error.param;
    const { issues } = error as { issues: readonly { readonly path: readonly string[]; readonly keys?: string[] }[] };
    return [...(issues[0]?.path ?? []), ...(issues[0]?.keys ?? [])].join(".");
  }
}

test("each field of a batch is honoured or refused by its name", () => {
  assert.deepEqual(made({}), {
    ...{ inputFileId: "file-1", endpoint: "/v1/completions", window: "24h", windowMs: 86_400_000, metadata: null },
  });
  assert.equal(made({ input_file_id: "file-2" }).inputFileId, "file-2");
  assert.equal(made({ endpoint: "/v1/responses" }).endpoint, "/v1/responses");
  assert.deepEqual(made({ metadata: { a: "b" } }).metadata, { a: "b" });
  assert.deepEqual(made({ output_expires_after: null, nobody_knows_it: 1 }), made({}));
  const pairs = (count: number): object => Object.fromEntries(Array.from({ length: count }, (_, i) => [`k${i}`, "v"]));
  assert.ok(made({ metadata: pairs(16) }));
  for (const [field, value] of [
    ["input_file_id", 7],
    ["input_file_id", "x".repeat(129)],
    ["endpoint", null],
    ["completion_window", "1h"],
    ["metadata", pairs(17)],
    ["metadata", { ["k".repeat(65)]: "v" }],
    ["metadata", { k: "v".repeat(513) }],
    ["output_expires_after", { anchor: "created_at", seconds: 3600 }],
  ] as const)
    assert.equal(
      refusedBy(() => made({ [field]: value })),
      field,
      JSON.stringify(value),
    );
  assert.match(refusedBy(() => made({ metadata: { a: 1 } })) ?? "", /^metadata/);
});

test("each field of an upload is honoured or refused by its name", () => {
  const upload = (fields: Record<string, string>) => decodeUpload(new Map(Object.entries(fields)));
  const kept = { "expires_after[anchor]": "created_at", "expires_after[seconds]": "3600" };
  assert.deepEqual(upload({ purpose: "batch" }), {});
  assert.deepEqual(upload({ purpose: "batch", ...kept }), { keepMs: 3_600_000 });
  for (const [field, fields] of [
    ["purpose", {}],
    ["purpose", { purpose: "fine-tune" }],
    ["other", { purpose: "batch", other: "1" }],
    ["expires_after.anchor", { purpose: "batch", ...kept, "expires_after[anchor]": "last_active_at" }],
    ["expires_after.seconds", { purpose: "batch", ...kept, "expires_after[seconds]": "3599" }],
    ["expires_after.seconds", { purpose: "batch", ...kept, "expires_after[seconds]": "1e9" }],
    ["expires_after.seconds", { purpose: "batch", "expires_after[anchor]": "created_at" }],
  ] as const)
    assert.equal(
      refusedBy(() => upload(fields)),
      field,
      JSON.stringify(fields),
    );
});

test("each word of a list is honoured or refused by its name", () => {
  assert.deepEqual(decodePage({}), { limit: 20 });
  assert.deepEqual(decodePage({ limit: "3", after: "file-1" }), { limit: 3, after: "file-1" });
  assert.equal(decodePage({ limit: "10000" }).limit, 100, "OpenAI's files take so many");
  assert.deepEqual(FileListQuery.parse({ purpose: "batch", order: "asc" }), { purpose: "batch", order: "asc" });
  for (const schema of [FileListQuery, BatchListQuery])
    for (const [field, value] of [
      ["limit", "0"],
      ["limit", "all"],
      ["after", "x".repeat(129)],
      ["before", "file-1"],
    ] as const)
      assert.equal(
        refusedBy(() => schema.parse({ [field]: value })),
        field,
      );
  assert.equal(
    refusedBy(() => FileListQuery.parse({ order: "newest" })),
    "order",
  );
  const page = encodePage([{ id: "a" }, { id: "b" }], 1);
  assert.deepEqual(page, { object: "list", data: [{ id: "a" }], first_id: "a", last_id: "a", has_more: true });
});
