/**
 * Batches as their owners see them: made, looked at, cancelled. The runner does the work.
 *
 * Invariants: a batch is its tenant's, and nobody else's exists (Wall: T74); open ones are bounded for a tenant. Made by
 * the app.
 */
import { newId } from "#base/ids.ts";
import { type Batch, type BatchAuthor, type BatchRecords, OPEN_STATUSES, type PageRequest } from "#core/batches.ts";
import { Fault, invalid } from "#core/fault.ts";
import type { Grant, Principal } from "#core/principal.ts";
import type { Files } from "./files.ts";

export interface BatchCall {
  readonly inputFileId: string;
  readonly endpoint: string;
  readonly window: string;
  /** Of the window. */
  readonly windowMs: number;
  readonly metadata: Readonly<Record<string, string>> | null;
}

export interface BatchesOptions {
  readonly records: BatchRecords;
  readonly files: Files;
  /** Whether lines may go there. */
  readonly takes: (endpoint: string) => boolean;
  /** There is something to do. */
  readonly wake: () => void;
  /** Of one tenant. */
  readonly mostOpen: number;
  /** Unix milliseconds. For tests. */
  readonly now?: () => number;
}

export class Batches {
  readonly #options: BatchesOptions;
  readonly #now: () => number;

  constructor(options: BatchesOptions) {
    this.#options = options;
    this.#now = options.now ?? Date.now;
  }

  /** @throws Fault invalid_request | rate_limited */
  async create(grant: Grant<"batch">, call: BatchCall): Promise<Batch> {
    const { records, files, takes, wake, mostOpen } = this.#options;
    if (!takes(call.endpoint)) throw invalid("endpoint", "Batches do not go to this endpoint.");
    const { windowMs, ...words } = call;
    const file = await files.get(grant, call.inputFileId).catch((error: unknown) => {
      if (error instanceof Fault && error.kind === "file_not_found")
        throw invalid("input_file_id", "There is no file of this id.");
      throw error;
    });
    if (file.purpose !== "batch") throw invalid("input_file_id", "The file's purpose is not batch.");
    const now = this.#now();
    const batch: Batch = {
      ...words,
      id: `batch_${newId()}`,
      tenant: grant.principal.tenant,
      author: authorOf(grant.principal),
      status: "validating",
      createdAt: now,
      expiresAt: now + windowMs,
      times: {},
      counts: { total: 0, completed: 0, failed: 0 },
    };
    if (!(await records.add(batch, mostOpen)))
      throw new Fault("rate_limited", `A tenant may have ${mostOpen} batches that are not over.`);
    wake();
    return batch;
  }

  /** @throws Fault batch_not_found */
  async get({ principal }: Grant<"batch">, id: string): Promise<Batch> {
    const batch = await this.#options.records.get(principal.tenant, id);
    if (batch === undefined) throw new Fault("batch_not_found", `Batch with id '${id}' not found.`);
    return batch;
  }

  /** @throws Fault invalid_request: no batch of the tenant has the id that it goes on behind */
  async list({ principal }: Grant<"batch">, page: PageRequest): Promise<readonly Batch[]> {
    const found = await this.#options.records.list(principal.tenant, page);
    if (found === undefined) throw invalid("after", "There is no batch of this id to go on behind.");
    return found;
  }

  /** @throws Fault batch_not_found | invalid_request: it is over */
  async cancel(grant: Grant<"batch">, id: string): Promise<Batch> {
    const batch = await this.get(grant, id);
    const times = { ...batch.times, cancelling: this.#now() };
    const { records, wake } = this.#options;
    if (await records.change(id, ["validating", "in_progress"], { status: "cancelling", times })) wake();
    const now = await this.get(grant, id);
    if (!OPEN_STATUSES.includes(now.status) && now.status !== "cancelled")
      throw invalid("id", `A batch with the status ${now.status} cannot be cancelled.`);
    return now;
  }
}

function authorOf({ id, kind, role, scopes, reach, limits, caps, ruledBy }: Principal): BatchAuthor {
  const { networks: _, ...rest } = reach;
  const author = { id, kind, role, scopes: [...scopes], reach: rest, limits, caps };
  return { ...author, ...(ruledBy === undefined ? {} : { ruledBy }) };
}
