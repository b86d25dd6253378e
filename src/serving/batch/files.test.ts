import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import type { FileRoom } from "#core/batches.ts";
import type { Grant } from "#core/principal.ts";
import { memoryRecords } from "#test/fixtures/batches.ts";
import { Files, type Upload } from "./files.ts";

const ROOM: FileRoom = { allBytes: 1500, tenantBytes: 1000, tenantFiles: 5 };

function rig(t: TestContext, room = ROOM) {
  const folder = mkdtempSync(join(tmpdir(), "castellan-files-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const records = memoryRecords();
  return { folder, records, files: new Files({ records, folder, room, keepMs: 1000 }) };
}

const grant = (tenant: string): Grant<"batch"> => ({ principal: { tenant, id: "k" } }) as unknown as Grant<"batch">;

const form = (upload: Partial<Upload>) => async (take: (upload: Upload) => Promise<void>) => {
  await take({ name: "in.jsonl", atLeast: 0, content: pieces(0), ...upload });
  return {};
};

/** @param between resolves: the next piece comes */
async function* pieces(
  count: number,
  bytes = 100,
  between?: (at: number) => Promise<void>,
): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < count; at++) {
    yield Buffer.alloc(bytes, "x");
    await between?.(at);
  }
}

const full = { kind: "payload_too_large" } as const;

test("a file ends where the room does, not when all of it has come", async (t) => {
  const { files, folder } = rig(t);
  let sent = 0;
  const counted = pieces(1000, 100, async () => {
    sent++;
  });
  await assert.rejects(files.upload(grant("a"), form({ content: counted })), full);
  assert.equal(sent, 10, "the eleventh piece is refused");
  assert.deepEqual(readdirSync(folder), []);
  await files.upload(grant("a"), form({ content: pieces(10) }));
});

test("what a request announces is refused before a byte of it is read", async (t) => {
  const { files } = rig(t);
  const content = (async function* (): AsyncGenerator<Uint8Array> {
    yield assert.fail("it is read");
  })();
  await assert.rejects(files.upload(grant("a"), form({ content, atLeast: 1001 })), full);
});

test("uploads at once have one room together: a tenant's, and all tenants'", async (t) => {
  const { files, records, folder } = rig(t);
  const going = Promise.withResolvers<void>();
  const half = (tenant: string): Promise<unknown> =>
    files.upload(grant(tenant), form({ atLeast: 600, content: pieces(6, 100, () => going.promise) }));
  const begun = half("a");
  while (readdirSync(folder).length === 0) await new Promise(setImmediate);
  await assert.rejects(half("a"), full, "600 and 600 of 1000");
  const other = half("b");
  await assert.rejects(files.upload(grant("c"), form({ atLeast: 600 })), full, "1800 of 1500");
  going.resolve();
  await Promise.all([begun, other]);
  assert.deepEqual(await records.used("a"), { allBytes: 1200, tenantBytes: 600, tenantFiles: 1 });
  await files.upload(grant("c"), form({ content: pieces(3) }));
  await assert.rejects(files.upload(grant("c"), form({ content: pieces(1) })), full);
});

test("many uploads at once take no more than there is, and what is left goes to one alone", async (t) => {
  const { files, records, folder } = rig(t, { allBytes: 1e6, tenantBytes: 1000, tenantFiles: 100 });
  for (let round = 0; round < 5; round++)
    await Promise.allSettled(
      Array.from({ length: 4 }, () => files.upload(grant("a"), form({ content: pieces(3, 100, async () => {}) }))),
    );
  for (let left = 1000 - (await records.used("a")).tenantBytes; left >= 300; left -= 300)
    await files.upload(grant("a"), form({ content: pieces(3) }));
  assert.equal((await records.used("a")).tenantBytes, 900);
  assert.equal(readdirSync(folder).length, 3);
});

test("an upload that is refused or broken off holds no room", async (t) => {
  const { files } = rig(t);
  const broken = (async function* (): AsyncGenerator<Uint8Array> {
    yield Buffer.alloc(900);
    throw new Error("gone");
  })();
  await assert.rejects(files.upload(grant("a"), form({ content: broken })), /gone/);
  await files.upload(grant("a"), form({ content: pieces(10) }));
});

test("a content is read piece by piece, and nothing is open that nobody reads", async (t) => {
  const { files } = rig(t, { allBytes: 1e6, tenantBytes: 1e6, tenantFiles: 5 });
  const { id } = await files.upload(grant("a"), form({ content: pieces(3, 65_000) }));
  const open = (): number => readdirSync("/proc/self/fd").length;
  const before = open();
  const unread = await files.content(grant("a"), id);
  await unread.pieces[Symbol.asyncIterator]().return?.();
  assert.equal(open(), before);
  const { pieces: read, length } = await files.content(grant("a"), id);
  const sizes: number[] = [];
  for await (const piece of read) sizes.push(piece.length);
  assert.deepEqual([length, sizes], [195_000, [65_536, 65_536, 63_928]]);
  assert.equal(open(), before);
  await assert.rejects(files.content(grant("b"), id), { kind: "file_not_found" });
});

test("sweeping takes what a crash left, and nothing of a batch that is open", async (t) => {
  const { files, folder, records } = rig(t);
  await records.add({ id: "batch_1", tenant: "a", status: "in_progress" } as never, 1);
  const names = ["batch_1.rows", "batch_1.rows.state", "batch_2.rows", "batch_2.rows.output", "file-9", ".upload-1"];
  for (const name of names) {
    writeFileSync(join(folder, name), "x");
    utimesSync(join(folder, name), 1, 1);
  }
  writeFileSync(join(folder, "batch_3.rows"), "young");
  await files.sweep();
  assert.deepEqual(readdirSync(folder).sort(), ["batch_1.rows", "batch_1.rows.state", "batch_3.rows"]);
});

test("a list goes on behind a file of the tenant, and behind nothing else", async (t) => {
  const { files } = rig(t);
  const [first, second] = [await files.upload(grant("a"), form({})), await files.upload(grant("a"), form({}))];
  assert.deepEqual(await files.list(grant("a"), { limit: 9, after: second.id }), [first]);
  for (const [tenant, after] of [
    ["a", "file-none"],
    ["b", first.id],
  ] as const)
    await assert.rejects(files.list(grant(tenant), { limit: 9, after }), { kind: "invalid_request", param: "after" });
});
