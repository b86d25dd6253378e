/**
 * The audit log as the rest of the program sees it: records in, promises out that hold once they are on the disk.
 *
 * Invariants: what waits is written together, in the order in which it came; a promise resolves only for a record that
 * is on the disk, and is settled within `timeoutMs` whatever the disk does; while the log cannot be written it tries
 * again by itself, and what it could not take stands in it as a counted gap afterwards.
 * Callers: gate.ts, app, and whoever changes keys or policy (`event`).
 */
import type { Log } from "#base/log.ts";
import { gathered, turnOver } from "#base/turn.ts";
import { LockBusy } from "./_lock.ts";
import type { Note } from "./_position.ts";
import { DISK, Writer, type WriterOptions } from "./_writer.ts";
import type { Appender } from "./append.ts";
import { type Actor, body, type EventKind, KINDS, type RecordKind } from "./record.ts";

export const FAILURE_REASONS = [
  "full",
  "permission",
  "missing",
  "closed",
  "busy",
  "timeout",
  "queue",
  "other",
] as const;
export type FailureReason = (typeof FAILURE_REASONS)[number];

/** The record is not in the log, or nobody may rely on it. */
export class AuditFailure extends Error {
  override readonly name = "AuditFailure";
  readonly reason: FailureReason;

  constructor(reason: FailureReason, cause?: unknown) {
    super(`the audit log cannot be written (${reason})`, { cause });
    this.reason = reason;
  }
}

export interface AuditStats {
  readonly records: Readonly<Record<RecordKind, number>>;
  readonly failures: Readonly<Record<FailureReason, number>>;
  /** Calls that went on without a record, because the operator said so. */
  readonly unrecorded: number;
  /** Records that wait. */
  readonly queue: number;
  readonly healthy: boolean;
}

type Unset = "disk" | "now" | "checkpointRecords" | "checkpointMs";

export interface AuditLogOptions extends Omit<WriterOptions, Unset>, Partial<Pick<WriterOptions, Unset>> {
  readonly log: Log;
  /** How long a record may take. */
  readonly timeoutMs?: number;
}

/** Records that go to the disk together, and one promise for all of them. */
export class RecordGroup {
  readonly kinds: RecordKind[] = [];
  readonly texts: string[] = [];
  characters = 0;
  /** Number of the first of them, once it is written. */
  first = 0;
  /** Rejects with AuditFailure. */
  readonly written: Promise<void>;
  readonly #settled = Promise.withResolvers<void>();

  constructor() {
    this.written = this.#settled.promise;
    // Not everybody waits for it.
    this.written.catch(() => {});
  }

  get size(): number {
    return this.texts.length;
  }

  get full(): boolean {
    return this.size >= GROUP || this.characters >= GROUP_CHARACTERS;
  }

  add(kind: RecordKind, text: string): void {
    this.kinds.push(kind);
    this.texts.push(text);
    this.characters += text.length;
  }

  resolve(first: number): void {
    this.first = first;
    this.#settled.resolve();
  }

  reject(failure: AuditFailure): void {
    this.#settled.reject(failure);
  }
}

/** What could not be recorded since the log failed. */
interface Gap {
  since: number;
  refused: number;
  unrecorded: number;
  reason: FailureReason;
}

const TIMEOUT_MS = 5000;
const RETRY_MS = 1000;
const TICK_MS = 1000;
const CHECKPOINT_RECORDS = 4096;
const CHECKPOINT_MS = 60_000;
const GROUP = 2048;
const GROUP_CHARACTERS = 1 << 20;
const QUEUE = 65_536;

export class AuditLog {
  readonly #writer: Writer;
  readonly #log: Log;
  readonly #now: () => number;
  readonly #timeoutMs: number;
  /** What waits, in its order; only to the last is still added. */
  readonly #groups: RecordGroup[] = [];
  /** Records in them. */
  #waiting = 0;
  #running: Promise<void> | undefined;
  /** A commit that did not come back in time. Nothing is written until it does. */
  #stuck: Promise<unknown> | undefined;
  #gap: Gap | undefined;
  #triedAt = 0;
  readonly #timer: NodeJS.Timeout;
  readonly #records = zeros(KINDS);
  readonly #failures = zeros(FAILURE_REASONS);
  #unrecorded = 0;
  #closed = false;
  /** Called once a group. @param seconds from taking the lock to being on the disk */
  onGroup: (seconds: number, records: number) => void = () => {};

  /** @throws StateError a head that cannot be read */
  constructor(options: AuditLogOptions) {
    const { log, timeoutMs = TIMEOUT_MS, now = Date.now, ...writer } = options;
    const defaults = { disk: DISK, checkpointRecords: CHECKPOINT_RECORDS, checkpointMs: CHECKPOINT_MS };
    this.#writer = new Writer({ ...defaults, ...writer, now });
    this.#log = log;
    this.#now = now;
    this.#timeoutMs = timeoutMs;
    this.#timer = setInterval(() => this.#tick(), TICK_MS).unref();
  }

  /** Who waits for the disk from now on; undefined: nobody but the writer. */
  appendBy(appender: Appender | undefined): void {
    this.#writer.appender = appender;
  }

  get healthy(): boolean {
    return this.#gap === undefined;
  }

  stats(): AuditStats {
    return {
      records: this.#records,
      failures: this.#failures,
      unrecorded: this.#unrecorded,
      queue: this.#waiting,
      healthy: this.healthy,
    };
  }

  /**
   * @param fields in their order, or printed with a comma before each; no secret, nothing unbounded
   * @returns the record's number, once it is on the disk. @throws AuditFailure
   */
  async append(kind: RecordKind, fields: object | string, at = this.#now()): Promise<number> {
    const group = this.enter(kind, fields, at);
    const place = group.size - 1;
    await group.written;
    return group.first + place;
  }

  /** As `append`, for who waits with others. @returns those that the record goes with; it is the last of them so far */
  enter(kind: RecordKind, fields: object | string, at = this.#now()): RecordGroup {
    if (this.#closed) return refusedGroup(new AuditFailure("closed"));
    if (this.#stuck !== undefined) return this.#refuse("timeout");
    if (this.#waiting >= QUEUE) return this.#refuse("queue");
    let group = this.#groups.at(-1);
    if (group === undefined || group.full) {
      group = new RecordGroup();
      this.#groups.push(group);
    }
    group.add(kind, body(kind, at, fields));
    this.#waiting++;
    gathered();
    this.#running ??= this.#run();
    return group;
  }

  /**
   * Something that happened to the server, its keys or its policy; to be awaited before it takes effect.
   * @param subject what it was done to, e.g. a key's id
   * @param details no secret in it
   * @throws AuditFailure
   */
  async event(event: EventKind, actor: Actor, subject: string | undefined, details: object = {}): Promise<void> {
    await this.append("event", { event, actor, subject: subject ?? null, details });
  }

  /** A call went on though it could not be recorded. */
  passedUnrecorded(): void {
    this.#unrecorded++;
    if (this.#gap === undefined) return;
    this.#gap.unrecorded++;
    this.#gap.refused--;
  }

  /** Writes what waits, and signs the head. No record is taken afterwards. */
  async close(): Promise<void> {
    // The last calls' ends are on their way.
    await new Promise(setImmediate);
    if (this.#closed) return;
    this.#closed = true;
    clearInterval(this.#timer);
    await this.#running;
    if (this.#stuck === undefined) await this.#commit(new RecordGroup(), true);
    await this.#writer.close();
  }

  async #run(): Promise<void> {
    while (this.#groups.length > 0) {
      // What comes in it goes together, and under load what comes in some.
      await turnOver();
      const group = this.#groups.shift() as RecordGroup;
      this.#waiting -= group.size;
      await this.#commit(group);
    }
    this.#running = undefined;
  }

  async #commit(group: RecordGroup, sign = false): Promise<void> {
    const began = performance.now();
    const gap = this.#gap === undefined ? undefined : { ...this.#gap };
    const texts = gap === undefined ? group.texts : [this.#gapText(gap), ...group.texts];
    this.#triedAt = this.#now();
    try {
      const { first, notes, head } = await this.#inTime(this.#writer.commit(texts, sign));
      if (gap !== undefined) this.#recovered(gap);
      for (const note of notes) this.#noted(note);
      for (const kind of group.kinds) this.#records[kind]++;
      group.resolve(gap === undefined ? first : first + 1);
      if (head !== undefined) {
        this.#records.checkpoint++;
        this.#log("info", "head of the audit log", head);
      }
      this.onGroup((performance.now() - began) / 1000, group.size);
    } catch (error) {
      const failure = error instanceof AuditFailure ? error : new AuditFailure(reasonOf(error), error);
      this.#failed(failure);
      this.#count(failure.reason, group.size);
      group.reject(failure);
    }
  }

  /** @throws AuditFailure timeout: the commit may still happen, and blocks others until it has */
  #inTime<T>(commit: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#stuck = commit
          .catch(() => {})
          .then(() => {
            this.#stuck = undefined;
          });
        reject(new AuditFailure("timeout"));
      }, this.#timeoutMs);
      commit.then(
        (done) => {
          clearTimeout(timer);
          resolve(done);
        },
        (error: unknown) => {
          clearTimeout(timer);
          reject(error);
        },
      );
    });
  }

  #refuse(reason: FailureReason): RecordGroup {
    this.#count(reason, 1);
    return refusedGroup(new AuditFailure(reason));
  }

  #count(reason: FailureReason, records: number): void {
    if (records === 0) return;
    this.#failures[reason] += records;
    this.#gap ??= { since: this.#now(), refused: 0, unrecorded: 0, reason };
    this.#gap.refused += records;
  }

  #failed(failure: AuditFailure): void {
    if (this.#gap !== undefined) return;
    this.#gap = { since: this.#now(), refused: 0, unrecorded: 0, reason: failure.reason };
    const { cause } = failure;
    const error = cause instanceof Error ? cause.message : undefined;
    this.#log("error", "the audit log cannot be written", { reason: failure.reason, error });
  }

  #gapText({ since, ...counts }: Gap): string {
    return body("gap", this.#now(), { since: new Date(since).toISOString(), ...counts });
  }

  #recovered(gap: Gap): void {
    this.#records.gap++;
    const { refused, unrecorded, reason } = gap;
    this.#log("warn", "the audit log can be written again", { reason, refused, unrecorded });
    // What was refused while that record was on its way is for the next one.
    const { refused: all, unrecorded: passed } = this.#gap ?? gap;
    const rest = { refused: all - refused, unrecorded: passed - unrecorded };
    this.#gap = rest.refused + rest.unrecorded > 0 ? { since: this.#now(), reason, ...rest } : undefined;
  }

  #noted({ kind, fields }: Note): void {
    this.#records[kind]++;
    if (kind === "repair")
      this.#log("warn", "a crash had left an unfinished line in the audit log; it is taken away", fields);
    else this.#log("error", "the audit log is damaged: castellan audit verify shows where", fields);
  }

  /** Once a second: a checkpoint that is due, or another try. */
  #tick(): void {
    if (this.#running !== undefined || this.#stuck !== undefined) return;
    const due = this.#writer.dueAt;
    const now = this.#now();
    if (this.#gap === undefined ? due !== undefined && now >= due : now >= this.#triedAt + RETRY_MS) {
      this.#running = this.#commit(new RecordGroup(), this.#gap === undefined).then(() => this.#run());
    }
  }
}

function refusedGroup(failure: AuditFailure): RecordGroup {
  const group = new RecordGroup();
  group.reject(failure);
  return group;
}

function zeros<K extends string>(keys: readonly K[]): Record<K, number> {
  return Object.fromEntries(keys.map((key) => [key, 0])) as Record<K, number>;
}

const REASONS: Readonly<Record<string, FailureReason>> = {
  ENOSPC: "full",
  EDQUOT: "full",
  EFBIG: "full",
  EACCES: "permission",
  EPERM: "permission",
  EROFS: "permission",
  ENOENT: "missing",
  ENOTDIR: "missing",
  EBADF: "closed",
};

function reasonOf(error: unknown): FailureReason {
  if (error instanceof LockBusy) return "busy";
  return REASONS[(error as NodeJS.ErrnoException).code ?? ""] ?? "other";
}
