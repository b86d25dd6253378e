/**
 * What the routes need of the server. The app makes one value of it at start.
 */

import type { RequestCaps } from "#core/request-caps.ts";
import { defineRoute, type ListenerPlane } from "#http/route.ts";
import type { Adapters } from "#serving/adapters.ts";
import type { Administration } from "#serving/administration.ts";
import type { Batches } from "#serving/batch/batches.ts";
import type { Files } from "#serving/batch/files.ts";
import type { Serving } from "#serving/context.ts";
import type { Responses } from "#serving/responses.ts";
import type { ServerOperations } from "#serving/server-operations.ts";

export interface Services {
  readonly serving: Serving;
  readonly responses: Responses;
  readonly adapters: Adapters;
  readonly admin: Administration;
  readonly files: Files;
  readonly batches: Batches;
  readonly operations: ServerOperations;
  readonly caps: RequestCaps;
  readonly usage: {
    /** --enable-prompt-tokens-details */
    readonly cachedTokens: boolean;
    /** --enable-force-include-usage */
    readonly always: boolean;
  };
  /** What `return_tokens_as_token_ids` is when a request says nothing. */
  readonly tokensAsIds: boolean;
  /** What stands in front of a text, by Cohere's `input_type`. */
  readonly embedPrefixes: ReadonlyMap<string, string>;
  /** Of this server, e.g. "0.1.0". */
  readonly version: string;
  /** The routes of a listener, as OpenAPI's JSON text. */
  readonly openapi: (plane: ListenerPlane) => string;
  /** Requests in flight that count as load. */
  readonly load: () => number;
  /** Prometheus text 0.0.4. */
  readonly metrics: () => Promise<string>;
  /** false from the moment the server begins to drain. */
  readonly accepting: () => boolean;
}

export const route = defineRoute<Services>();

export const KIB = 1024;
export const MIB = 1024 * KIB;
export const SECOND = 1000;
export const MINUTE = 60 * SECOND;
