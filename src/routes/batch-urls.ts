/**
 * Which routes a line of a batch may name: the one table (Wall: T73). A line goes to the declared route itself, with its schema,
 * scope, limits and errors; a route that is not declared, or switched off, is refused by its name.
 */
import type { AnyRoute } from "#http/route.ts";
import type { Services } from "./_services.ts";

/** Taken as they stand. */
const EXACT: readonly string[] = ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"];
/** vLLM takes whatever ends so; a path that is no route of its own goes to the route of this name. */
const ENDINGS: readonly string[] = ["/score", "/rerank"];

/** For messages and docs. */
export const BATCH_URLS: readonly string[] = [...EXACT, ...ENDINGS.map((ending) => `…${ending}`)];

/** @param declared the routes that this server has @returns undefined: no line may go there */
export function batchRoute(url: string, declared: readonly AnyRoute<Services>[]): AnyRoute<Services> | undefined {
  const at = (path: string) =>
    declared.find((route) => route.method === "POST" && route.path === path && route.plane !== "ops");
  if (EXACT.includes(url)) return at(url);
  const ending = ENDINGS.find((one) => url.endsWith(one));
  return ending === undefined ? undefined : (at(url) ?? at(ending));
}
