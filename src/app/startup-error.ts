/**
 * The server cannot start, and the operator can mend it: one line for people, exit code 1, no stack.
 */
export class StartupError extends Error {
  constructor(message: string) {
    super(message);
    this.name = "StartupError";
  }
}
