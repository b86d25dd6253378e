/**
 * Why a token proves nothing. The reason is for the operator's log, names no value of the token, and is never sent: to
 * the client a bad token is a wrong key (Wall: T01).
 */
import type { JsonValue } from "#base/json.ts";

export type Claims = Readonly<Record<string, JsonValue>>;

export class TokenProblem extends Error {
  constructor(reason: string) {
    super(reason);
    this.name = "TokenProblem";
  }
}
