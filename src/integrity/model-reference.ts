/**
 * What `serve MODEL` names. Pure.
 *
 * Callers: app and cli.
 */
import { type HubReference, parseHubReference } from "#egress/hub-names.ts";

export type ModelReference =
  | { readonly kind: "demo" }
  | { readonly kind: "path"; readonly path: string }
  | ({ readonly kind: "hub" } & HubReference);

/**
 * Nothing is the demo model, `hf:org/repo[:file or quantisation]` a model on a hub, anything else a path
 * (`./hf:x` for a file of such a name).
 * @throws HubError bad_name
 */
export function parseModelReference(text: string | undefined): ModelReference {
  if (text === undefined || text === "") return { kind: "demo" };
  if (text.startsWith("hf:")) return { kind: "hub", ...parseHubReference(text.slice(3)) };
  return { kind: "path", path: text };
}
