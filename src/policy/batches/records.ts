/**
 * Records of files and batches in the store: `node` is whose state directory holds the contents, and who runs a batch.
 *
 * Invariants: a tenant finds its own from every server, each server looks after what is its own; what is asked for by a
 * tenant is found in that tenant only (Wall: T74); room is looked at and taken under one lock, so that two uploads at
 * once do not pass what each of them saw room under. Made by the app.
 */
import { parseJson, stringifyJson } from "#base/json.ts";
import {
  type Batch,
  type BatchAuthor,
  type BatchChange,
  type BatchCounts,
  type BatchProblem,
  type BatchRecords,
  type BatchStatus,
  type BatchTotals,
  type FilePurpose,
  type FileRoom,
  type FilesUsed,
  OPEN_STATUSES,
  type StoredFile,
} from "#core/batches.ts";
import { Fault } from "#core/fault.ts";
import { isSegment } from "#core/path-shapes.ts";
import type { BatchTable, FileTable } from "#policy/store/schema.ts";
import type { Database } from "#policy/store/store.ts";

/** Ids in one statement. */
const CHUNK = 500;

export function batchRecords(db: Database, node: string): BatchRecords {
  return answering({ ...fileRecords(db, node), ...records(db, node) });
}

/** Each with what the store throws told as that it is away. @throws Fault policy_unavailable */
function answering(parts: BatchRecords): BatchRecords {
  const asks = Object.entries(parts) as [string, (...given: unknown[]) => Promise<unknown>][];
  return Object.fromEntries(
    asks.map(([name, ask]) => [
      name,
      async (...given: unknown[]) => {
        try {
          return await ask(...given);
        } catch (error) {
          throw new Fault("policy_unavailable", "Files and batches cannot be stored or read at the moment.", {
            detail: error instanceof Error ? error.message : String(error),
            retryAfterMs: 1000,
            cause: error,
          });
        }
      },
    ]),
  ) as unknown as BatchRecords;
}

type FileRecords = Pick<
  BatchRecords,
  "addFile" | "used" | "file" | "files" | "removeFile" | "expiredFiles" | "fileIds" | "reads"
>;

function fileRecords(db: Database, node: string): FileRecords {
  const reads = async (fileId: string): Promise<boolean> =>
    (await openBatches(db).where("input_file_id", "=", fileId).select("id").executeTakeFirst()) !== undefined;
  return {
    addFile: (file, room) =>
      db.transaction().execute(async (transaction) => {
        await lock(transaction);
        const fits = room === undefined || hasRoom(await used(transaction, node, file.tenant), file, room);
        if (fits) await transaction.insertInto("files").values(fileRow(file, node)).execute();
        return fits;
      }),
    used: (tenant) => used(db, node, tenant),
    file: async (tenant, id) => {
      const found = await ownFile(db, tenant, id);
      return found === undefined ? undefined : fileOf(found, node);
    },
    files: async (tenant, { after, limit, purpose, oldestFirst = false }) => {
      const order = oldestFirst ? ("asc" as const) : ("desc" as const);
      const from = after === undefined ? undefined : await ownFile(db, tenant, after);
      if (after !== undefined && from === undefined) return undefined;
      let query = db.selectFrom("files").selectAll().where("tenant", "=", tenant);
      if (purpose !== undefined) query = query.where("purpose", "=", purpose);
      if (from !== undefined)
        query = query.where(({ eb, refTuple, tuple }) =>
          eb(refTuple("created_at", "id"), oldestFirst ? ">" : "<", tuple(from.created_at, from.id)),
        );
      return (await query.orderBy("created_at", order).orderBy("id", order).limit(limit).execute()).map((row) =>
        fileOf(row, node),
      );
    },
    removeFile: async (id) => {
      await db.deleteFrom("files").where("id", "=", id).execute();
    },
    expiredFiles: async (now) => {
      const rows = await db
        .selectFrom("files")
        .select("id")
        .where("node", "=", node)
        .where("expires_at", "<=", now)
        .where("id", "not in", openBatches(db).select("input_file_id"))
        .limit(CHUNK)
        .execute();
      return rows.map(({ id }) => id);
    },
    fileIds: async () =>
      (await db.selectFrom("files").select("id").where("node", "=", node).execute()).map(({ id }) => id),
    reads,
  };
}

function records(db: Database, node: string): Omit<BatchRecords, keyof FileRecords> {
  return {
    add: (batch, mostOpen) =>
      db.transaction().execute(async (transaction) => {
        await lock(transaction);
        const open = await openBatches(transaction)
          .where("tenant", "=", batch.tenant)
          .select(({ fn }) => fn.countAll<number>().as("count"))
          .executeTakeFirst();
        const fits = Number(open?.count ?? 0) < mostOpen;
        if (!fits) return false;
        const input = await ownFile(transaction, batch.tenant, batch.inputFileId);
        const row = batchRow(batch, input?.node ?? node);
        await transaction.insertInto("batches").values(row).execute();
        return true;
      }),
    get: async (tenant, id) => {
      const found = await ownBatch(db, tenant, id);
      return found === undefined ? undefined : batchOf(found);
    },
    list: async (tenant, { after, limit }) => {
      const from = after === undefined ? undefined : await ownBatch(db, tenant, after);
      if (after !== undefined && from === undefined) return undefined;
      let query = db.selectFrom("batches").selectAll().where("tenant", "=", tenant);
      if (from !== undefined)
        query = query.where(({ eb, refTuple, tuple }) =>
          eb(refTuple("created_at", "id"), "<", tuple(from.created_at, from.id)),
        );
      return (await query.orderBy("created_at", "desc").orderBy("id", "desc").limit(limit).execute()).map(batchOf);
    },
    open: async () =>
      (await openBatches(db).where("node", "=", node).selectAll().orderBy("created_at").orderBy("id").execute()).map(
        batchOf,
      ),
    change: async (id, from, change) => {
      const { numUpdatedRows } = await db
        .updateTable("batches")
        .set(changed(change))
        .where("id", "=", id)
        .where("status", "in", [...from])
        .executeTakeFirst();
      return Number(numUpdatedRows) > 0;
    },
    totals: () => totals(db, node),
    removeOver: async (before) => {
      await db
        .deleteFrom("batches")
        .where("node", "=", node)
        .where("created_at", "<", before)
        .where("status", "not in", [...OPEN_STATUSES])
        .execute();
    },
  };
}

async function used(db: Database, node: string, tenant: string): Promise<FilesUsed> {
  const of = db.selectFrom("files").where("node", "=", node);
  const all = await of.select(({ fn }) => fn.sum<number | null>("bytes").as("bytes")).executeTakeFirst();
  const own = await of
    .where("tenant", "=", tenant)
    .select(({ fn }) => [fn.sum<number | null>("bytes").as("bytes"), fn.countAll<number>().as("count")])
    .executeTakeFirst();
  return {
    allBytes: Number(all?.bytes ?? 0),
    tenantBytes: Number(own?.bytes ?? 0),
    tenantFiles: Number(own?.count ?? 0),
  };
}

async function totals(db: Database, node: string): Promise<BatchTotals> {
  const files = await db
    .selectFrom("files")
    .where("node", "=", node)
    .select(({ fn }) => [fn.sum<number | null>("bytes").as("bytes"), fn.countAll<number>().as("count")])
    .executeTakeFirst();
  const batches = await db
    .selectFrom("batches")
    .where("node", "=", node)
    .select(({ fn }) => ["status", fn.countAll<number>().as("count")])
    .groupBy("status")
    .execute();
  return {
    files: Number(files?.count ?? 0),
    bytes: Number(files?.bytes ?? 0),
    batches: new Map(batches.map(({ status, count }) => [status as BatchStatus, Number(count)])),
  };
}

function hasRoom(taken: FilesUsed, { bytes }: StoredFile, room: FileRoom): boolean {
  return (
    taken.allBytes + bytes <= room.allBytes &&
    taken.tenantBytes + bytes <= room.tenantBytes &&
    taken.tenantFiles < room.tenantFiles
  );
}

/** Until the transaction ends, nobody else adds. */
async function lock(transaction: Database): Promise<void> {
  await transaction
    .updateTable("revisions")
    .set(({ eb }) => ({ value: eb("value", "+", 1) }))
    .where("name", "=", "files")
    .execute();
}

function openBatches(db: Database) {
  return db.selectFrom("batches").where("status", "in", [...OPEN_STATUSES]);
}

/** What is no id is nobody's: PostgreSQL would make a failure of some. */
async function ownFile(db: Database, tenant: string, id: string): Promise<FileTable | undefined> {
  if (!isSegment(id)) return undefined;
  return db.selectFrom("files").selectAll().where("tenant", "=", tenant).where("id", "=", id).executeTakeFirst();
}

async function ownBatch(db: Database, tenant: string, id: string): Promise<BatchTable | undefined> {
  if (!isSegment(id)) return undefined;
  return db.selectFrom("batches").selectAll().where("tenant", "=", tenant).where("id", "=", id).executeTakeFirst();
}

function fileRow(file: StoredFile, node: string): FileTable {
  const { id, tenant, createdBy, purpose, name, bytes, createdAt, expiresAt } = file;
  return {
    id,
    node,
    tenant,
    created_by: createdBy,
    purpose,
    name,
    bytes,
    created_at: createdAt,
    expires_at: expiresAt,
  };
}

function fileOf(row: FileTable, node: string): StoredFile {
  return {
    ...(row.node === node ? {} : { elsewhere: true as const }),
    id: row.id,
    tenant: row.tenant,
    createdBy: row.created_by,
    purpose: row.purpose as FilePurpose,
    name: row.name,
    bytes: Number(row.bytes),
    createdAt: Number(row.created_at),
    expiresAt: Number(row.expires_at),
  };
}

function batchRow(batch: Batch, node: string): BatchTable {
  return {
    id: batch.id,
    node,
    tenant: batch.tenant,
    author: stringifyJson(batch.author),
    endpoint: batch.endpoint,
    input_file_id: batch.inputFileId,
    completion_window: batch.window,
    metadata: batch.metadata === null ? null : stringifyJson(batch.metadata),
    status: batch.status,
    created_at: batch.createdAt,
    expires_at: batch.expiresAt,
    times: stringifyJson(batch.times),
    counts: stringifyJson(batch.counts),
    output_file_id: batch.outputFileId ?? null,
    error_file_id: batch.errorFileId ?? null,
    problem: batch.problem === undefined ? null : stringifyJson(batch.problem),
  };
}

function batchOf(row: BatchTable): Batch {
  const { output_file_id: output, error_file_id: errors, problem, metadata } = row;
  return {
    id: row.id,
    tenant: row.tenant,
    author: parseJson(row.author) as unknown as BatchAuthor,
    endpoint: row.endpoint,
    inputFileId: row.input_file_id,
    window: row.completion_window,
    metadata: metadata === null ? null : (parseJson(metadata) as Record<string, string>),
    status: row.status as BatchStatus,
    createdAt: Number(row.created_at),
    expiresAt: Number(row.expires_at),
    times: parseJson(row.times) as Batch["times"],
    counts: parseJson(row.counts) as unknown as BatchCounts,
    ...(output === null ? {} : { outputFileId: output }),
    ...(errors === null ? {} : { errorFileId: errors }),
    ...(problem === null ? {} : { problem: parseJson(problem) as unknown as BatchProblem }),
  };
}

function changed(change: BatchChange): Partial<BatchTable> {
  const { status, times, counts, outputFileId, errorFileId, problem } = change;
  return {
    ...(status === undefined ? {} : { status }),
    ...(times === undefined ? {} : { times: stringifyJson(times) }),
    ...(counts === undefined ? {} : { counts: stringifyJson(counts) }),
    ...(outputFileId === undefined ? {} : { output_file_id: outputFileId }),
    ...(errorFileId === undefined ? {} : { error_file_id: errorFileId }),
    ...(problem === undefined ? {} : { problem: stringifyJson(problem) }),
  };
}
