/**
 * One function of WebAssembly, written as expressions in TypeScript: each answers the bytes of its code. Only the
 * instructions that are used, by their numbers in the specification (core 3.0, section 5.4).
 *
 * The module has a memory of fixed size and exports it as `memory`, and the function as `run`: numbers in, a number out.
 * An expression pushes one value, a statement none; the engine's validator refuses what does not fit together. Private to
 * base.
 */

export type Code = readonly number[];

/** What the vector instructions begin with. */
const SIMD = 0xfd;

type Type = 0x7f | 0x7e | 0x7b;
export const I32: Type = 0x7f;
export const I64: Type = 0x7e;
export const V128: Type = 0x7b;

/** A parameter or a variable. */
export interface Local {
  readonly get: Code;
  set(value: Code): Code;
}

export class FunctionBody {
  readonly params: readonly Type[];
  readonly variables: Type[] = [];
  /** Sets the constants. */
  readonly prologue: Code[] = [];
  readonly #constants = new Map<string, Local>();

  constructor(...params: readonly Type[]) {
    this.params = params;
  }

  param(index: number): Local {
    return local(index);
  }

  /** Zero at first. */
  variable(type: Type): Local {
    return local(this.params.length + this.variables.push(type) - 1);
  }

  /** A vector that is made once, before the loop: V8 makes one anew wherever its instruction stands, for three others. */
  vector(bytes: readonly number[]): Code {
    const key = bytes.join();
    const known = this.#constants.get(key);
    if (known !== undefined) return known.get;
    const made = this.variable(V128);
    this.#constants.set(key, made);
    this.prologue.push(made.set([SIMD, 0x0c, ...bytes]));
    return made.get;
  }

  /** The same byte sixteen times. */
  splat(byte: number): Code {
    return this.vector(new Array<number>(16).fill(byte));
  }
}

function local(index: number): Local {
  return { get: [0x20, ...unsigned(index)], set: (value) => [...value, 0x21, ...unsigned(index)] };
}

// Statements

export const block = (...statements: readonly Code[]): Code => statements.flat();
export const when = (condition: Code, ...body: readonly Code[]): Code => [
  ...condition,
  0x04,
  0x40,
  ...body.flat(),
  0x0b,
];
/** Once, and again as long as the condition holds. */
export const repeated = (condition: Code, ...body: readonly Code[]): Code => [
  0x03,
  0x40,
  ...body.flat(),
  ...condition,
  0x0d,
  0x00,
  0x0b,
];
/** For ever, until it is left by `answer`. */
export const loop = (...body: readonly Code[]): Code => [0x03, 0x40, ...body.flat(), 0x0c, 0x00, 0x0b];
/** The loop from its start. @param depth how many `when` and loops lie between */
export const again = (depth: number): Code => [0x0c, depth];
export const answer = (value: Code): Code => [...value, 0x0f];

// Expressions

type Unary = (value: Code) => Code;
type Binary = (left: Code, right: Code) => Code;
const unary =
  (...opcode: Code): Unary =>
  (value) => [...value, ...opcode];
const binary =
  (...opcode: Code): Binary =>
  (left, right) => [...left, ...right, ...opcode];

export const i32 = {
  of: (value: number): Code => [0x41, ...signed(BigInt(value))],
  /** Of one byte. */
  load8: (at: Code, offset: number): Code => [...at, 0x2d, 0x00, ...unsigned(offset)],
  equal: binary(0x46),
  differ: binary(0x47),
  isZero: unary(0x45),
  add: binary(0x6a),
  sub: binary(0x6b),
  or: binary(0x72),
  shl: binary(0x74),
  /** The lower half of an i64. */
  wrap: unary(0xa7),
} as const;

export const i64 = {
  of: (value: bigint): Code => [0x42, ...signed(BigInt.asIntN(64, value))],
  /** Trailing zeros; 64 of zero. */
  ctz: unary(0x7a),
  isZero: unary(0x50),
  differ: binary(0x52),
  sub: binary(0x7d),
  and: binary(0x83),
  or: binary(0x84),
  xor: binary(0x85),
  shl: binary(0x86),
  shr: binary(0x88),
  /** Of an i32, without a sign. */
  extend: unary(0xad),
} as const;

/** Vectors of sixteen bytes; comparisons answer 0 or 255 a byte. */
export const v128 = {
  load: (at: Code, offset: number): Code => [...at, SIMD, 0x00, 0x00, ...unsigned(offset)],
  /** Bytes of `left` at the places that `right` says; what of places from 16 on each processor says for itself (relaxed), of those from 128 on 0. */
  swizzle: binary(SIMD, ...unsigned(0x100)),
  equal: binary(SIMD, 0x23),
  and: binary(SIMD, 0x4e),
  /** Bits of `left` that `right` has not. */
  without: binary(SIMD, 0x4f),
  or: binary(SIMD, 0x50),
  xor: binary(SIMD, 0x51),
  any: unary(SIMD, 0x53),
  /** The highest bit of each byte, as an i32. */
  bitmask: unary(SIMD, 0x64),
  sub: binary(SIMD, ...unsigned(0x71)),
  /** Of bytes without a sign. */
  min: binary(SIMD, ...unsigned(0x77)),
} as const;

/** @param pages of 64 KiB @returns the module's bytes */
export function moduleOf(body: FunctionBody, statements: Code, pages: number): Uint8Array<ArrayBuffer> {
  const { params, variables, prologue } = body;
  const code = [...list(variables.map((type) => [1, type])), ...prologue.flat(), ...statements, 0x00, 0x0b];
  return Uint8Array.from([
    ...[0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00],
    ...section(1, list([[0x60, ...list(params.map((type) => [type])), ...list([[I32]])]])),
    ...section(3, list([[0]])),
    ...section(5, list([[0x01, ...unsigned(pages), ...unsigned(pages)]])),
    ...section(
      7,
      list([
        [...named("memory"), 0x02, 0],
        [...named("run"), 0x00, 0],
      ]),
    ),
    ...section(10, list([[...unsigned(code.length), ...code]])),
  ]);
}

function section(id: number, content: Code): Code {
  return [id, ...unsigned(content.length), ...content];
}

function list(entries: readonly Code[]): Code {
  return [...unsigned(entries.length), ...entries.flat()];
}

function named(name: string): Code {
  return list([...Buffer.from(name)].map((byte) => [byte]));
}

/** LEB128. */
function unsigned(value: number): Code {
  return value < 0x80 ? [value] : [(value & 0x7f) | 0x80, ...unsigned(value >>> 7)];
}

function signed(value: bigint): Code {
  const low = Number(value & 0x7fn);
  const rest = value >> 7n;
  const last = (rest === 0n && (low & 0x40) === 0) || (rest === -1n && (low & 0x40) !== 0);
  return last ? [low] : [low | 0x80, ...signed(rest)];
}
