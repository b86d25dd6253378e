/**
 * What goes wrong with the store as a whole. The message is for the operator and names no secret.
 */
export class StoreError extends Error {
  override readonly name = "StoreError";
}

/** A code where there is one; driver messages about connections name hosts and users, no passwords. */
export function reasonOf(error: unknown): string {
  const { code, message } = error as { code?: unknown; message?: unknown };
  // Node's own error about a URL has the URL in it.
  if (code === "ERR_INVALID_URL") return code;
  const text = typeof message === "string" && message !== "" ? message : undefined;
  return text ?? (typeof code === "string" ? code : "unknown reason");
}
