/**
 * The room that files have, as it is taken while they are written: what this process is writing counts beside what is
 * stored, so that uploads at once and answers of running batches are refused before they have filled the disk.
 *
 * Invariants: what is held and what the store says are looked at and moved without a gap in between (Wall: T74); another
 * process on the same store is seen when the store is asked, and judged for good under the store's own lock. Private to
 * files.ts.
 */
import type { BatchRecords, FileRoom, StoredFile } from "#core/batches.ts";
import { Fault } from "#core/fault.ts";

/** Room that one writer holds until it lets go. */
export interface Held {
  /** There are so many bytes, or will be; fewer than were said before change nothing. @throws Fault payload_too_large */
  reach(bytes: number): void;
  /** The same for bytes that are there anyhow. */
  grow(bytes: number): void;
  /** Nothing more should be written. */
  isFull(): boolean;
  /** Asks the store anew what is stored. */
  refresh(): Promise<void>;
  release(): void;
}

interface Own {
  stored: number;
  files: number;
  held: number;
  holders: number;
}

export class Room {
  readonly #records: Pick<BatchRecords, "used" | "addFile">;
  readonly #room: FileRoom;
  readonly #tenants = new Map<string, Own>();
  #stored = 0;
  #held = 0;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(records: Pick<BatchRecords, "used" | "addFile">, room: FileRoom) {
    this.#records = records;
    this.#room = room;
  }

  async hold(tenant: string): Promise<Held> {
    const own = this.#tenants.get(tenant) ?? { stored: 0, files: 0, held: 0, holders: 0 };
    this.#tenants.set(tenant, own);
    own.holders++;
    const held = this.#holder(tenant, own);
    try {
      await held.refresh();
      return held;
    } catch (error) {
      held.release();
      throw error;
    }
  }

  /** @param anyhow whether there is room or not @throws Fault payload_too_large */
  async add(file: StoredFile, held: Held, anyhow: boolean): Promise<void> {
    await this.#alone(async () => {
      if (!(await this.#records.addFile(file, anyhow ? undefined : this.#room))) throw this.full();
      const own = this.#tenants.get(file.tenant);
      if (own !== undefined) own.stored += file.bytes;
      this.#stored += file.bytes;
      if (!anyhow) held.release();
    });
  }

  full(): Fault {
    const { tenantBytes, tenantFiles, allBytes } = this.#room;
    return new Fault(
      "payload_too_large",
      `There is no room: files of a tenant have ${tenantBytes} bytes and ${tenantFiles} places, all together ${allBytes} bytes. Delete some.`,
    );
  }

  #holder(tenant: string, own: Own): Held {
    const { allBytes, tenantBytes, tenantFiles } = this.#room;
    let [mine, released] = [0, false];
    const fits = (more: number): boolean =>
      own.stored + own.held + more <= tenantBytes && this.#stored + this.#held + more <= allBytes;
    const grow = (bytes: number): void => {
      const more = Math.max(0, bytes - mine);
      mine += more;
      own.held += more;
      this.#held += more;
    };
    return {
      grow,
      reach: (bytes) => {
        if (own.files >= tenantFiles || !fits(Math.max(0, bytes - mine))) throw this.full();
        grow(bytes);
      },
      isFull: () => !fits(1),
      refresh: () => this.#alone(() => this.#ask(tenant, own)),
      release: () => {
        if (released) return;
        released = true;
        own.held -= mine;
        this.#held -= mine;
        if (--own.holders === 0) this.#tenants.delete(tenant);
      },
    };
  }

  async #ask(tenant: string, own: Own): Promise<void> {
    const used = await this.#records.used(tenant);
    own.stored = used.tenantBytes;
    own.files = used.tenantFiles;
    this.#stored = used.allBytes;
  }

  /** One after the other: what the store said stays true until what it is for has been done. */
  #alone<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#turn.then(work);
    this.#turn = done.catch(() => {});
    return done;
  }
}
