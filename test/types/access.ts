/**
 * What must not compile about who may call what. Each `@ts-expect-error` is an assertion: where the line below it
 * compiles after all, the type check fails. Never run; `tsc` is the test (access.test.ts calls it).
 */
import type { Dialect } from "#core/dialect.ts";
import { UNMETERED } from "#core/metering.ts";
import type { Grant, Principal, Scope } from "#core/principal.ts";
import { type CallerOf, type KeyAccess, key, type OpenAccess, open } from "#http/access.ts";
import { json } from "#http/reply.ts";
import { defineRoute } from "#http/route.ts";
import { authorize } from "#policy/authorize.ts";

declare const dialect: Dialect;
declare const principal: Principal;
/** Stands for everything in serving that reaches a model. */
declare function generate(grant: Grant<"inference">): void;

const route = defineRoute<Record<string, never>>();
const rest = {
  method: "GET",
  path: "/x",
  dialect,
  plane: "public",
  limits: { timeoutMs: 1 },
  reply: [],
  audit: "none",
  doc: "",
} as const;

export const withKey = route({ ...rest, access: key("inference"), handler: ({ caller }) => json(generate(caller)) });

// @ts-expect-error A route says who may call it.
export const withoutAccess = route({ ...rest, handler: () => json({}) });

// @ts-expect-error An open route says why.
export const openWithoutReason = route({ ...rest, access: open(), handler: () => json({}) });

// @ts-expect-error Scopes are a closed list.
export const unknownScope = route({ ...rest, access: key("root"), handler: () => json({}) });

// @ts-expect-error Access is one of the declared kinds.
export const madeUpAccess = route({ ...rest, access: { kind: "public" }, handler: () => json({}) });

export const openReachesModel = route({
  ...rest,
  access: open("a test"),
  // @ts-expect-error An open route has no grant to give.
  handler: ({ caller }) => json(generate(caller)),
});

export const wrongScopeReachesModel = route({
  ...rest,
  access: key("metrics:read"),
  // @ts-expect-error A grant for one scope is none for another.
  handler: ({ caller }) => json(generate(caller)),
});

// @ts-expect-error A grant cannot be written down: its brand has no name outside core.
export const forged: Grant<"inference"> = { principal, scope: "inference", meter: UNMETERED };

// @ts-expect-error Nor is a principal one.
export const promoted: Grant<"inference"> = principal;

export const honest: Grant<"inference"> = authorize(principal, "inference", UNMETERED);

// @ts-expect-error A grant does not change its scope.
export const widened: Grant<"ops"> = honest;

// @ts-expect-error A grant of some scope is not a grant of this one.
export const narrowed: Grant<"inference"> = authorize(principal, "ops" as Scope, UNMETERED);

// @ts-expect-error What a key route gets is never anonymous.
export const anonymous: CallerOf<KeyAccess<"inference">> = { kind: "anonymous" };

// @ts-expect-error What an open route gets is never a grant.
export const granted: CallerOf<OpenAccess> = honest;
