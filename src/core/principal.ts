/**
 * Who calls, and the proof that they may. The types only; policy/ is the one area that makes values of them.
 */

/** What a key may be used for. A closed list; the policy tables grow with it. */
export const SCOPES = ["inference", "tokenize", "models:read", "metrics:read", "lora:write", "ops"] as const;
export type Scope = (typeof SCOPES)[number];

export interface Principal {
  /** Stable, not secret: safe in logs and metrics. */
  readonly id: string;
  /** Whose resources these are. */
  readonly tenant: string;
  readonly scopes: ReadonlySet<Scope>;
}

declare const granted: unique symbol;

/**
 * Proof that `principal` passed authorization for scope S. Only policy/authorize.ts can make one (the symbol
 * is declared, never defined), so a handler without a key scope has nothing to give to serving.
 */
export interface Grant<S extends Scope> {
  readonly principal: Principal;
  readonly scope: S;
  readonly [granted]: S;
}
