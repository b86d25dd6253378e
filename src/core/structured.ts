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

/** How calls are written: `begin (mark head NAME middle ARGUMENTS close) joint (…) … end`. */
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
  /** One call a turn. */
  readonly single?: true;
  /** Absent: a JSON object. */
  readonly arguments?: ArgumentForm;
  /** Of the texts above those that the vocabulary has as control tokens, with their ids: no text is such a token. */
  readonly tokens?: Readonly<Record<string, number>>;
}

export type ArgumentForm = PythonArguments | TaggedArguments;

/** `a=1, b="x"`, values as Python's literals. */
export interface PythonArguments {
  readonly kind: "python";
}

/** `open KEY middle VALUE close after` for each: text as it is, other values as JSON. */
export interface TaggedArguments {
  readonly kind: "tagged";
  readonly open: string;
  readonly middle: string;
  readonly close: string;
  readonly after: string;
  /** Texts that would end a value as well. */
  readonly excludes: readonly string[];
}
