/**
 * Transactions that are known before they begin, and so can be told to a database as a whole. Types only.
 */

/** A statement that reads nothing. */
export interface Step {
  /** As the store's own query builder compiles it. */
  readonly sql: string;
  readonly parameters: readonly unknown[];
  /** Where it changes no row, the transaction ends with it: what follows is left out. */
  readonly decides?: boolean;
}
