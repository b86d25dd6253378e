/**
 * Files and batches as OpenAI's API has them: the words between wire, which prints them, serving, which runs them, and
 * policy, which keeps their records. Times are Unix milliseconds.
 */
import type { Principal, Reach, Role, Scope } from "./principal.ts";

/** `batch`: uploaded. `batch_output`: written by a batch. */
export type FilePurpose = "batch" | "batch_output";

export interface StoredFile {
  readonly id: string;
  readonly tenant: string;
  /** Id of the principal. */
  readonly createdBy: string;
  readonly purpose: FilePurpose;
  /** As the client named it. */
  readonly name: string;
  readonly bytes: number;
  readonly createdAt: number;
  readonly expiresAt: number;
  /** Its content is on another server's disk. */
  readonly elsewhere?: true;
}

export const BATCH_STATUSES = [
  "validating",
  "failed",
  "in_progress",
  "finalizing",
  "completed",
  "expired",
  "cancelling",
  "cancelled",
] as const;
export type BatchStatus = (typeof BATCH_STATUSES)[number];

/** Those that are not over. */
export const OPEN_STATUSES: readonly BatchStatus[] = ["validating", "in_progress", "finalizing", "cancelling"];

export interface BatchCounts {
  readonly total: number;
  readonly completed: number;
  readonly failed: number;
}

/** Why a batch failed as a whole. */
export interface BatchProblem {
  readonly code: string;
  readonly message: string;
}

/** As whom its lines call: who made it, as it was then. */
export interface BatchAuthor {
  readonly id: string;
  readonly kind: Principal["kind"];
  readonly role: Role;
  readonly scopes: readonly Scope[];
  /** Without networks: the address was judged when the batch was made. */
  readonly reach: Reach;
  readonly limits: Principal["limits"];
  readonly caps: Principal["caps"];
  /** Of a token or a certificate. */
  readonly ruledBy?: string;
}

export interface Batch {
  readonly id: string;
  readonly tenant: string;
  readonly author: BatchAuthor;
  /** Where all its lines go. */
  readonly endpoint: string;
  readonly inputFileId: string;
  /** As the client said it: `24h`. */
  readonly window: string;
  readonly metadata: Readonly<Record<string, string>> | null;
  readonly status: BatchStatus;
  readonly createdAt: number;
  readonly expiresAt: number;
  /** When it came to a status. */
  readonly times: Readonly<Partial<Record<BatchStatus, number>>>;
  readonly counts: BatchCounts;
  readonly outputFileId?: string;
  readonly errorFileId?: string;
  readonly problem?: BatchProblem;
}

/** What may change of it. */
export type BatchChange = Partial<
  Pick<Batch, "status" | "times" | "counts" | "outputFileId" | "errorFileId" | "problem">
>;

/** What files may take. */
export interface FileRoom {
  readonly allBytes: number;
  readonly tenantBytes: number;
  readonly tenantFiles: number;
}

/** What files take. */
export interface FilesUsed {
  readonly allBytes: number;
  readonly tenantBytes: number;
  readonly tenantFiles: number;
}

/** What a server has, of every tenant. */
export interface BatchTotals {
  readonly files: number;
  readonly bytes: number;
  readonly batches: ReadonlyMap<BatchStatus, number>;
}

/** A part of a list, newest first. */
export interface PageRequest {
  /** Goes on behind the one with this id. */
  readonly after?: string;
  readonly limit: number;
}

/**
 * Keeps records of files and batches, each for its tenant; what is another tenant's does not exist. A tenant's are found
 * from every server on one store; contents are on the disk of one, which looks after what is its own.
 * @throws Fault policy_unavailable the store is away
 */
export interface BatchRecords {
  /** Of this server, all or nothing. @param room absent: it is added whatever there is @returns false: there is no room */
  addFile(file: StoredFile, room?: FileRoom): Promise<boolean>;
  /** On this server. */
  used(tenant: string): Promise<FilesUsed>;
  file(tenant: string, id: string): Promise<StoredFile | undefined>;
  /** @returns undefined: the tenant has none of the id that it goes on behind */
  files(
    tenant: string,
    page: PageRequest & { readonly purpose?: string; readonly oldestFirst?: boolean },
  ): Promise<readonly StoredFile[] | undefined>;
  removeFile(id: string): Promise<void>;
  /** Ids of those here whose time is over, and of which no open batch reads. */
  expiredFiles(now: number): Promise<readonly string[]>;
  /** Of every tenant, here. */
  fileIds(): Promise<readonly string[]>;
  /** It runs where its input is. @returns false: the tenant has as many open ones as it may */
  add(batch: Batch, mostOpen: number): Promise<boolean>;
  get(tenant: string, id: string): Promise<Batch | undefined>;
  /** As `files`. */
  list(tenant: string, page: PageRequest): Promise<readonly Batch[] | undefined>;
  /** Those that are not over and run here, oldest first, of every tenant. */
  open(): Promise<readonly Batch[]>;
  /** @returns whether it had one of these statuses, and so was changed */
  change(id: string, from: readonly BatchStatus[], change: BatchChange): Promise<boolean>;
  /** Whether an open batch reads the file. */
  reads(fileId: string): Promise<boolean>;
  totals(): Promise<BatchTotals>;
  /** Those that were over before then. */
  removeOver(before: number): Promise<void>;
}
