/**
 * Why a file is not a model that this server serves. `message` names no path: callers add what they want to show.
 */
export type GgufErrorCode = "not-gguf" | "truncated" | "unsupported" | "malformed";

export class GgufError extends Error {
  readonly code: GgufErrorCode;
  constructor(code: GgufErrorCode, message: string) {
    super(message);
    this.name = "GgufError";
    this.code = code;
  }
}
