/**
 * What a client may ask the output to be, free of any protocol. One of the kinds; checked for size by the wire layer,
 * for sense by prompt/grammar.
 */
import type { TagFormat } from "./structural-tag.ts";

export type StructuredOutput =
  /** Valid under a JSON schema; `compact`: no line breaks between its parts. */
  | { readonly kind: "json_schema"; readonly schema: unknown; readonly compact?: true }
  /** Any JSON object. */
  | { readonly kind: "json_object"; readonly compact?: true }
  /** The whole text matches (ECMA-262, flag u). */
  | { readonly kind: "regex"; readonly pattern: string }
  /** One of these texts. */
  | { readonly kind: "choice"; readonly options: readonly string[] }
  /** GBNF, which is also the EBNF of vLLM's backends. */
  | { readonly kind: "grammar"; readonly source: string }
  /** Parts in an order, free text among them. */
  | { readonly kind: "structural_tag"; readonly format: TagFormat }
  /** Calls of these functions and nothing else: one, or as many as the model likes. */
  | {
      readonly kind: "tool_calls";
      readonly tools: readonly CallableTool[];
      readonly many: boolean;
      readonly form: CallForm;
    }
  /** Any text, but what begins like a call is a call of one of these functions. */
  | { readonly kind: "text_with_calls"; readonly tools: readonly CallableTool[]; readonly form: CallForm };

export interface CallableTool {
  readonly name: string;
  readonly parameters: unknown;
}

/** How calls are written: `begin (mark head NAME middle ARGUMENTS close) joint (…) … end`, arguments as JSON. */
export interface CallForm {
  readonly begin: string;
  /** What tells a call from text; "" where nothing does. */
  readonly mark: string;
  readonly head: string;
  readonly name: "json" | "plain";
  /** A number stands behind the name. */
  readonly numbered?: true;
  readonly middle: string;
  readonly close: string;
  readonly joint: string;
  readonly end: string;
}
