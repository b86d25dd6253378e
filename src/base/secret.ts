/**
 * A value that must not be printed: every accidental way to text gives "[secret]".
 *
 * Invariant: the only way out is `expose()`, so a search for that word finds every use.
 */
import { inspect } from "node:util";

const REDACTED = "[secret]";

export class Secret {
  readonly #value: string;

  constructor(value: string) {
    this.#value = value;
  }

  /** The value itself. Never pass it to a log, an error or a child's command line. */
  expose(): string {
    return this.#value;
  }

  toString(): string {
    return REDACTED;
  }

  toJSON(): string {
    return REDACTED;
  }

  [inspect.custom](): string {
    return REDACTED;
  }
}
