/**
 * What goes wrong with the store as a whole. The message is for the operator and names no secret.
 */
export class StoreError extends Error {
  override readonly name = "StoreError";
}
