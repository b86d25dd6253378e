/**
 * What records of files and batches must do over every store: registered by records.test.ts.
 */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { Secret } from "#base/secret.ts";
import type { Batch, BatchRecords, FileRoom, StoredFile } from "#core/batches.ts";
import { scratchState } from "#policy/store/store.contract.ts";
import { openStore } from "#policy/store/store.ts";
import { batchRecords } from "./records.ts";

export interface RecordsContract {
  readonly name: string;
  readonly skip: string | undefined;
  place(): Promise<string | undefined>;
}

const ROOM: FileRoom = { allBytes: 1000, tenantBytes: 600, tenantFiles: 5 };

function file(id: string, tenant: string, more: Partial<StoredFile> = {}): StoredFile {
  const rest = {
    createdBy: "key",
    purpose: "batch",
    name: "ä.jsonl",
    bytes: 100,
    createdAt: 1,
    expiresAt: 50,
  } as const;
  return { id, tenant, ...rest, ...more };
}

function batch(id: string, tenant: string, more: Partial<Batch> = {}): Batch {
  return {
    id,
    tenant,
    author: {
      id: "key",
      kind: "key",
      role: "user",
      scopes: ["batch"],
      reach: { models: ["a*"] },
      limits: {},
      caps: {},
    },
    endpoint: "/v1/completions",
    inputFileId: "file-1",
    window: "24h",
    metadata: { a: "b" },
    status: "validating",
    createdAt: 1,
    expiresAt: 100,
    times: {},
    counts: { total: 0, completed: 0, failed: 0 },
    ...more,
  };
}

export function recordsContract({ name, skip, place }: RecordsContract): void {
  const it = (what: string, run: (records: (node?: string) => BatchRecords) => Promise<void>): void => {
    test(`${name}: ${what}`, { skip: skip ?? false }, async (t: TestContext) => {
      const url = await place();
      const state = scratchState(t);
      const store = await openStore({ state, ...(url === undefined ? {} : { databaseUrl: new Secret(url) }) });
      t.after(() => store.close());
      await run((node = "a") => batchRecords(store.db, node));
    });
  };
  const ids = (found?: readonly { readonly id: string }[]): string | undefined => found?.map(({ id }) => id).join(" ");

  it("what is no id is nobody's", async (open) => {
    const records = open();
    for (const id of ["a\0b", "", "é"]) {
      assert.equal(await records.file("t", id), undefined);
      assert.equal(await records.get("t", id), undefined);
      assert.equal(await records.list("t", { after: id, limit: 1 }), undefined);
    }
  });

  it("a file is what was added, for its tenant, from every server", async (open) => {
    const records = open();
    const one = file("file-1", "acme", { expiresAt: 1_900_000_000_000, bytes: 600 });
    assert.equal(await records.addFile(one, ROOM), true);
    assert.deepEqual(await records.file("acme", "file-1"), one);
    assert.equal(await records.file("other", "file-1"), undefined);
    assert.deepEqual(await open("b").file("acme", "file-1"), { ...one, elsewhere: true });
    assert.deepEqual(await open("b").files("acme", { limit: 1 }), [{ ...one, elsewhere: true }]);
    assert.deepEqual([await records.fileIds(), await open("b").fileIds()], [["file-1"], []]);
    assert.deepEqual(await open("b").expiredFiles(2_000_000_000_000), []);
    await open("b").removeFile("file-1");
    assert.deepEqual(await records.fileIds(), []);
    assert.equal(await records.file("acme", "file-1"), undefined);
  });

  it("there is no more room than there is, for many at once", async (open) => {
    const records = open();
    const many = Array.from({ length: 12 }, (_, i) => i);
    const added = await Promise.all(
      many.map((i) => records.addFile(file(`file-${i}`, i % 2 === 0 ? "acme" : "b", { bytes: 150 }), ROOM)),
    );
    assert.equal(added.filter(Boolean).length, 6, "six of 150 are 900 of 1000");
    const of = async (tenant: string) => (await records.files(tenant, { limit: 100 })) ?? [];
    const left = await of("acme");
    assert.ok(left.length <= 4, "four of 150 are 600");
    for (const { id } of [...left, ...(await of("b"))]) await records.removeFile(id);
    for (let i = 0; i < 5; i++)
      assert.equal(await records.addFile(file(`small-${i}`, "acme", { bytes: 1 }), ROOM), true);
    assert.equal(await records.addFile(file("small-5", "acme", { bytes: 1 }), ROOM), false, "five places");
    assert.equal(await records.addFile(file("small-6", "b", { bytes: 1 }), ROOM), true);
  });

  it("what a batch has written is added whatever there is, and counts", async (open) => {
    const records = open();
    assert.equal(await records.addFile(file("file-1", "acme", { bytes: 600 }), ROOM), true);
    assert.equal(await records.addFile(file("file-2", "acme", { bytes: 500, purpose: "batch_output" })), true);
    await records.addFile(file("file-3", "other", { bytes: 7 }));
    assert.deepEqual(await records.used("acme"), { allBytes: 1107, tenantBytes: 1100, tenantFiles: 2 });
    assert.deepEqual(await records.used("nobody"), { allBytes: 1107, tenantBytes: 0, tenantFiles: 0 });
    assert.deepEqual(await open("b").used("acme"), { allBytes: 0, tenantBytes: 0, tenantFiles: 0 });
    assert.equal(await records.addFile(file("file-4", "third", { bytes: 1 }), ROOM), false);
  });

  it("files are listed newest first, or oldest, behind one, by purpose", async (open) => {
    const records = open();
    const room = { allBytes: 1e6, tenantBytes: 1e6, tenantFiles: 100 };
    for (const [id, createdAt] of [
      ["a", 1],
      ["b", 2],
      ["c", 2],
      ["d", 3],
    ] as const)
      await records.addFile(file(id, "acme", { createdAt, purpose: id === "b" ? "batch_output" : "batch" }), room);
    await records.addFile(file("x", "other"), room);
    assert.equal(ids(await records.files("acme", { limit: 10 })), "d c b a");
    assert.equal(ids(await records.files("acme", { limit: 2, after: "c" })), "b a");
    assert.equal(ids(await records.files("acme", { limit: 2, after: "b", oldestFirst: true })), "c d");
    assert.equal(ids(await records.files("acme", { limit: 10, purpose: "batch" })), "d c a");
    assert.equal(await records.files("acme", { limit: 10, after: "x" }), undefined, "another tenant's");
  });

  it("what is over its time goes, but not what an open batch reads", async (open) => {
    const records = open();
    await records.addFile(file("file-1", "acme"), ROOM);
    await records.addFile(file("file-2", "acme"), ROOM);
    await records.addFile(file("file-3", "acme", { expiresAt: 51 }), ROOM);
    assert.equal(await records.add(batch("batch_1", "acme"), 5), true);
    assert.equal(await records.reads("file-1"), true);
    assert.equal(await records.reads("file-2"), false);
    assert.deepEqual(await records.expiredFiles(50), ["file-2"]);
    await records.change("batch_1", ["validating"], { status: "completed" });
    assert.equal(await records.reads("file-1"), false);
    assert.deepEqual([...(await records.expiredFiles(50))].sort(), ["file-1", "file-2"]);
  });

  it("a batch is what was added and what it changed to, once", async (open) => {
    const records = open();
    const one = batch("batch_1", "acme");
    assert.equal(await records.add(one, 2), true);
    assert.deepEqual(await records.get("acme", "batch_1"), one);
    assert.equal(await records.get("other", "batch_1"), undefined);
    assert.deepEqual(await open("b").get("acme", "batch_1"), one);
    const change = { status: "failed", times: { failed: 7 }, counts: { total: 3, completed: 1, failed: 2 } } as const;
    const more = { outputFileId: "o", errorFileId: "e", problem: { code: "c", message: "m" } };
    assert.equal(await records.change("batch_1", ["in_progress"], change), false);
    assert.equal(await records.change("batch_1", ["validating", "cancelling"], { ...change, ...more }), true);
    assert.equal(await records.change("batch_1", ["validating", "cancelling"], { status: "completed" }), false);
    assert.deepEqual(await records.get("acme", "batch_1"), { ...one, ...change, ...more });
  });

  it("what there is on a server, in all", async (open) => {
    const records = open();
    assert.deepEqual(await records.totals(), { files: 0, bytes: 0, batches: new Map() });
    await records.addFile(file("file-1", "acme"), ROOM);
    await records.addFile(file("file-2", "other"), ROOM);
    for (const id of ["batch_1", "batch_2", "batch_3"]) await records.add(batch(id, "acme"), 5);
    await records.change("batch_2", ["validating"], { status: "failed" });
    const batches = new Map([
      ["failed", 1],
      ["validating", 2],
    ]);
    assert.deepEqual(await records.totals(), { files: 2, bytes: 200, batches });
    assert.equal((await open("b").totals()).files, 0);
  });

  it("a batch runs where its input is, whoever was asked for it, and anyone can cancel it", async (open) => {
    const [here, there] = [open(), open("b")];
    await there.addFile(file("file-1", "acme"), ROOM);
    await there.addFile(file("file-2", "other"), ROOM);
    assert.equal(await here.add(batch("batch_1", "acme"), 2), true);
    assert.equal(await here.add(batch("batch_2", "acme", { inputFileId: "file-2" }), 2), true, "another tenant's");
    assert.equal(await there.add(batch("batch_3", "acme"), 2), false, "they are counted together");
    assert.deepEqual([ids(await here.open()), ids(await there.open())], ["batch_2", "batch_1"]);
    assert.equal(await here.reads("file-1"), true);
    assert.equal(await here.change("batch_1", ["validating"], { status: "cancelling" }), true);
    assert.equal((await there.open())[0]?.status, "cancelling");
    assert.equal(ids(await there.list("acme", { limit: 9 })), "batch_2 batch_1");
  });

  it("open batches are bounded for a tenant, and found; those that were over long ago go", async (open) => {
    const records = open();
    const added = await Promise.all([1, 2, 3, 4].map((i) => records.add(batch(`b${i}`, "acme", { createdAt: i }), 2)));
    assert.equal(added.filter(Boolean).length, 2);
    assert.equal(await records.add(batch("other", "b", { createdAt: 9 }), 2), true);
    const found = await records.open();
    assert.equal(found.length, 3);
    assert.equal(found.at(-1)?.id, "other");
    assert.deepEqual(await open("b").open(), []);
    const first = found[0]?.id ?? "";
    await records.change(first, ["validating"], { status: "cancelled" });
    assert.equal(await records.add(batch("b9", "acme", { createdAt: 10 }), 2), true);
    assert.equal(ids(await records.list("acme", { limit: 1 })), "b9");
    assert.equal((await records.list("acme", { limit: 9, after: "b9" }))?.length, 2);
    await records.removeOver(8);
    assert.equal(await records.get("acme", first), undefined);
    assert.equal((await records.open()).length, 3);
  });
}
