/**
 * The connections of one listener: which are let in, how many of an address, which handshakes are under way.
 *
 * Invariants (Wall: T62): nothing is allocated for a connection that is over a bound, no TLS and no parser; when the
 * handshakes are full the oldest unfinished one makes room, since an honest one takes milliseconds; every count goes
 * back with the connection. Loopback, Unix sockets and trusted proxies have no bound of their own: they speak for many. Callers: listener.ts.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { canonicalAddress, inNetworks } from "#policy/networks.ts";
import { certificateOf } from "./_certificate.ts";
import type { Counters } from "./counters.ts";
import type { HttpOptions } from "./options.ts";

/** What we know of a connection that can carry requests. */
export interface Line {
  readonly waiting: (readonly [IncomingMessage, ServerResponse])[];
  current: ServerResponse | undefined;
  /** By performance.now(): a request after that is the connection's last. */
  readonly agesAt: number;
  /** Unix milliseconds: when the client's certificate runs out. */
  readonly expiresAt: number;
  /** No request begins on it any more. */
  retired: boolean;
  /** When an answer is over; the same for all of its requests. */
  next: (() => void) | undefined;
}

/** The lines of a listener, by what the requests call their socket. */
export type Lines = Map<Duplex, Line>;

/** A connection that can carry requests from now on. */
export function openLine(lines: Lines, socket: Socket, options: HttpOptions): void {
  const { maxConnectionAgeMs: age } = options;
  lines.set(socket, {
    waiting: [],
    current: undefined,
    agesAt: age === 0 ? Number.POSITIVE_INFINITY : performance.now() + age,
    expiresAt: certificateOf(socket)?.notAfter ?? Number.POSITIVE_INFINITY,
    retired: false,
    next: undefined,
  });
  socket.once("close", () => lines.delete(socket));
}

type Bounds = Pick<HttpOptions, "maxConnectionsPerAddress" | "maxHandshakes" | "proxies">;

export class Connections {
  readonly #bounds: Bounds;
  readonly #counters: Counters;
  readonly #open = new Set<Socket>();
  readonly #perAddress = new Map<string, number>();
  /** In order of their beginning. */
  readonly #handshakes = new Map<string, Socket>();

  constructor(bounds: Bounds, counters: Counters) {
    this.#bounds = bounds;
    this.#counters = counters;
  }

  /** Counts a connection in, unless its address has enough. @returns whether it may stay */
  admit(socket: Socket): boolean {
    const { remoteAddress } = socket;
    const address = inNetworks(this.#bounds.proxies, remoteAddress) ? undefined : sharedBy(remoteAddress);
    const most = this.#bounds.maxConnectionsPerAddress;
    const present = this.#perAddress.get(address ?? "") ?? 0;
    if (address !== undefined && most > 0 && present >= most) return false;
    if (address !== undefined) this.#perAddress.set(address, present + 1);
    this.#open.add(socket);
    this.#counters.sockets++;
    socket.once("close", () => {
      this.#open.delete(socket);
      this.#counters.sockets--;
      if (address !== undefined) this.#leave(address);
    });
    return true;
  }

  #leave(address: string): void {
    const left = (this.#perAddress.get(address) ?? 1) - 1;
    if (left > 0) this.#perAddress.set(address, left);
    else this.#perAddress.delete(address);
  }

  /** A TLS handshake begins on an admitted connection. */
  beginHandshake(socket: Socket): void {
    const end = endOf(socket);
    if (this.#handshakes.size >= this.#bounds.maxHandshakes) {
      const [oldest] = this.#handshakes.values();
      oldest?.destroy();
    }
    this.#handshakes.set(end, socket);
    socket.once("close", () => {
      if (this.#handshakes.get(end) === socket) this.#handshakes.delete(end);
    });
  }

  /** @param socket the encrypted one, which has the same ends */
  endHandshake(socket: Socket): void {
    this.#handshakes.delete(endOf(socket));
  }

  dropHandshakes(): void {
    for (const socket of this.#handshakes.values()) socket.destroy();
  }

  destroyAll(): void {
    for (const socket of this.#open) socket.destroy();
  }
}

/** Clients of a Unix socket have no address and share one place: they are on this machine. */
function endOf({ remoteAddress, remotePort }: Socket): string {
  return `${remoteAddress} ${remotePort}`;
}

/**
 * What counts as one address: an IPv4 address, or the 64 bits of an IPv6 one that a single client has to itself.
 * Undefined: this machine.
 */
export function sharedBy(address: string | undefined): string | undefined {
  const text = address === undefined ? undefined : canonicalAddress(address);
  if (text === undefined || text === "::1" || text.startsWith("127.")) return undefined;
  if (!text.includes(":")) return text;
  const [before = "", after] = text.split("::");
  const head = before === "" ? [] : before.split(":");
  const tail = after === undefined || after === "" ? [] : after.split(":");
  const zeros = after === undefined ? 0 : 8 - head.length - tail.length;
  return `${[...head, ...Array<string>(Math.max(0, zeros)).fill("0"), ...tail].slice(0, 4).join(":")}::/64`;
}
