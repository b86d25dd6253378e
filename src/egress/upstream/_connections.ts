/**
 * The connections to one place under one set of credentials: those that are used, those that are free, and who waits.
 *
 * Limits of time stand behind one timer for all of them: an exchange, or an event of one, starts and stops none.
 * Invariants: no more than its limit are open or being made; who waits is served in turn; a connection that is free and
 * too old is not used; no exchange is late for longer than its timer takes. Callers: client.ts.
 */
import { Connection, type ConnectionOwner } from "./_connection.ts";
import type { Dial } from "./dial.ts";
import type { Exchange } from "./exchange.ts";

/** How often connections are looked at that nobody uses. */
const SWEEP_MS = 1000;
/** What Node's timers can wait. */
const MOST_WAIT_MS = 2 ** 31 - 1;

export class Connections {
  readonly #dial: Dial;
  readonly #most: number;
  /** In turn. */
  readonly #waiting = new Set<Exchange>();
  readonly #open = new Set<Connection>();
  /** The one that was used last is the last. */
  #free: Connection[] = [];
  #dialling = 0;
  #sweep: NodeJS.Timeout | undefined;
  /** When the timer looks who is late. */
  #watchedUntil = Number.POSITIVE_INFINITY;
  #watch: NodeJS.Timeout | undefined;
  #closed: PromiseWithResolvers<void> | undefined;

  constructor(dial: Dial, most: number) {
    this.#dial = dial;
    this.#most = most;
  }

  /** On a connection that is free, or the next that will be. */
  carry(exchange: Exchange): void {
    if (this.#closed !== undefined) {
      exchange.failed(closed());
      return;
    }
    this.#owner.watch(exchange.headBy);
    if (this.#carried(exchange)) return;
    this.#waiting.add(exchange);
    exchange.left = () => this.#waiting.delete(exchange);
    this.#connect();
  }

  /** When all that is under way has ended. */
  async close(): Promise<void> {
    this.#closed ??= Promise.withResolvers();
    this.#settle();
    await this.#closed.promise;
  }

  /** At once: what is under way fails. */
  async destroy(): Promise<void> {
    this.#closed ??= Promise.withResolvers();
    for (const exchange of this.#waiting) exchange.failed(closed());
    for (const connection of this.#open) connection.destroy(closed());
    this.#settle();
    await this.#closed.promise;
  }

  readonly #owner: ConnectionOwner = {
    free: (connection) => {
      this.#free.push(connection);
      this.#serve();
    },
    gone: (connection) => {
      this.#open.delete(connection);
      const at = this.#free.indexOf(connection);
      if (at >= 0) this.#free.splice(at, 1);
      this.#connect();
      this.#settle();
    },
    watch: (due) => {
      if (due >= this.#watchedUntil) return;
      this.#watchedUntil = due;
      clearTimeout(this.#watch);
      const wait = Math.min(Math.max(1, Math.ceil(due - performance.now())), MOST_WAIT_MS);
      this.#watch = setTimeout(this.#look, wait).unref();
    },
  };

  /** Who is late is told; the timer is set for the next that may be. */
  readonly #look = (): void => {
    this.#watchedUntil = Number.POSITIVE_INFINITY;
    const now = performance.now();
    for (const exchange of this.#waiting) this.#judge(exchange, now);
    for (const { exchange } of this.#open) if (exchange !== undefined) this.#judge(exchange, now);
  };

  #judge(exchange: Exchange, now: number): void {
    const due = exchange.due(now);
    if (now >= due) exchange.late();
    else this.#owner.watch(due);
  }

  /** Whoever has waited longest goes first. */
  #serve(): void {
    for (const exchange of this.#waiting) if (!this.#carried(exchange)) break;
    if (this.#free.length > 0) this.#sweep ??= setTimeout(this.#tidy, SWEEP_MS).unref();
    this.#settle();
  }

  /** @returns false: there is no connection for it now */
  #carried(exchange: Exchange): boolean {
    for (let free = this.#free.pop(); free !== undefined; free = this.#free.pop()) {
      if (free.usable) {
        this.#waiting.delete(exchange);
        exchange.left = undefined;
        free.carry(exchange);
        return true;
      }
      free.destroy();
    }
    return false;
  }

  /** One for each that waits, up to the limit. */
  #connect(): void {
    while (this.#dialling < this.#waiting.size && this.#dialling + this.#open.size < this.#most) {
      this.#dialling++;
      const connection = new Connection(this.#owner);
      this.#dial(connection.onread, (error, socket) => {
        this.#dialling--;
        if (socket === undefined) this.#undialled(error);
        else if (this.#abandoned) socket.destroy();
        else {
          this.#open.add(connection);
          connection.open(socket);
          this.#owner.free(connection);
        }
        this.#settle();
      });
    }
  }

  /** Each connection is made for one that waits. */
  #undialled(error: Error | undefined): void {
    const [first] = this.#waiting;
    first?.failed(error);
    this.#connect();
  }

  /** Nobody will use a connection any more. */
  get #abandoned(): boolean {
    return this.#closed !== undefined && this.#waiting.size === 0;
  }

  readonly #tidy = (): void => {
    this.#sweep = undefined;
    const unused = this.#free;
    this.#free = unused.filter((connection) => connection.usable);
    for (const connection of unused) if (!connection.usable) connection.destroy();
    if (this.#free.length > 0) this.#sweep = setTimeout(this.#tidy, SWEEP_MS).unref();
  };

  /** Behind `close`, when the last is over. */
  #settle(): void {
    if (!this.#abandoned) return;
    for (const connection of this.#free.splice(0)) connection.destroy();
    if (this.#open.size > 0) return;
    clearTimeout(this.#sweep);
    clearTimeout(this.#watch);
    this.#closed?.resolve();
  }
}

function closed(): Error {
  return new Error("the client is closed");
}
