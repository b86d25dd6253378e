/**
 * Has an accepted connection read into a buffer of ours, as `onread` of net.connect has a dialled one.
 *
 * Why: a stream's read makes a buffer of 64 KiB each time, and events and turns around it. Node offers `onread` for
 * connections that it dials only; for those that it accepts the same fields of its socket are set here. They are no
 * interface: where one of them is not there nothing is touched, and the connection is read as any other. Invariant: memory
 * that may be read to is kept by the socket. Callers: _plain-connection.ts.
 */
import type { Socket } from "node:net";

export interface Reads {
  /**
   * @param size bytes came to the buffer that was given last
   * @returns whether the connection is read on
   */
  came(size: number): boolean;
  /** Where the next bytes go; asked behind each `came`. */
  into(): Uint8Array;
}

/** By Node's names. */
interface Fields {
  readonly kBuffer: symbol;
  readonly kBufferCb: symbol;
  readonly kBufferGen: symbol;
}

const NAMES = ["kBuffer", "kBufferCb", "kBufferGen"] as const;

let fields: Fields | undefined;

/** To be called before anything has come. @returns false: this connection cannot, and is as it was */
export function readTo(socket: Socket, reads: Reads): boolean {
  const handle = (socket as { _handle?: { useUserBuffer?: (buffer: Uint8Array) => void } | null })._handle;
  fields ??= fieldsOf(socket);
  if (fields === undefined || typeof handle?.useUserBuffer !== "function") return false;
  const first = reads.into();
  Object.assign(socket, {
    [fields.kBuffer]: first,
    [fields.kBufferCb]: (size: number) => reads.came(size),
    [fields.kBufferGen]: () => reads.into(),
  });
  handle.useUserBuffer(first);
  return true;
}

function fieldsOf(socket: Socket): Fields | undefined {
  const named = new Map(Object.getOwnPropertySymbols(socket).map((symbol) => [symbol.description, symbol]));
  const found = NAMES.map((name) => [name, named.get(name)] as const);
  return found.every(([, symbol]) => symbol !== undefined)
    ? (Object.fromEntries(found) as unknown as Fields)
    : undefined;
}
