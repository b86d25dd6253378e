/**
 * Which servers live: each adds to its beat, and who sees a beat stand still takes over what the dead one left.
 * Private to responses/.
 *
 * Invariants: nobody compares clocks, only whether a number changed between looks of one's own, so that a machine
 * that slept, itself or with all others, buries nobody; what a dead server worked on is `failed` with a reason, once.
 */
import { stringifyJson } from "#base/json.ts";
import type { ResponseError } from "#core/responses.ts";
import type { Database } from "#policy/store/store.ts";

/** Looks without a beat, after which a server is dead. */
const STILL = 5;
const GONE: ResponseError = { code: "server_error", message: "The server that worked on this response has ended." };

interface Seen {
  readonly beat: number;
  readonly still: number;
}

export class Pulse {
  readonly #db: Database;
  readonly #server: string;
  readonly #seen = new Map<string, Seen>();

  constructor(db: Database, server: string) {
    this.#db = db;
    this.#server = server;
  }

  /** Says that this server lives. */
  async beat(): Promise<void> {
    await this.#db
      .insertInto("response_servers")
      .values({ id: this.#server, beat: 1 })
      .onConflict((conflict) =>
        conflict.column("id").doUpdateSet((eb) => ({ beat: eb("response_servers.beat", "+", 1) })),
      )
      .execute();
  }

  /** Looks at the others, and ends what the dead ones left. */
  async look(): Promise<void> {
    const rows = await this.#db.selectFrom("response_servers").selectAll().where("id", "<>", this.#server).execute();
    const there = new Set(rows.map(({ id }) => id));
    for (const id of this.#seen.keys()) if (!there.has(id)) this.#seen.delete(id);
    for (const { id, beat } of rows) {
      const before = this.#seen.get(id);
      const still = before?.beat === beat ? before.still + 1 : 0;
      this.#seen.set(id, { beat, still });
      if (still >= STILL) await this.bury(id, GONE);
    }
  }

  /** What a server works on fails, and it is gone. */
  async bury(server: string, error: ResponseError): Promise<void> {
    await this.#db.transaction().execute(async (work) => {
      await work
        .updateTable("responses")
        .set({ status: "failed", error: stringifyJson(error), server: null })
        .where("server", "=", server)
        .where("status", "in", ["queued", "in_progress"])
        .execute();
      // Cancelled, and its end never came.
      await work.updateTable("responses").set({ server: null }).where("server", "=", server).execute();
      await work.deleteFrom("response_servers").where("id", "=", server).execute();
    });
    this.#seen.delete(server);
  }
}
