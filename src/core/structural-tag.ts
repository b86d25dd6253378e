/**
 * A structural tag, free of any protocol: an output made of parts, some of them free text that turns into structure at
 * certain strings (xgrammar's formats). Sizes and shapes are checked by the wire layer, sense by prompt/grammar.
 */
export type TagFormat =
  | { readonly kind: "const_string"; readonly value: string }
  | { readonly kind: "json_schema"; readonly schema: unknown }
  | { readonly kind: "regex"; readonly pattern: string }
  | { readonly kind: "grammar"; readonly source: string }
  /** Text in which none of these strings stands; inside a tag it ends where the tag does. */
  | { readonly kind: "any_text"; readonly excludes: readonly string[] }
  | { readonly kind: "sequence"; readonly elements: readonly TagFormat[] }
  | { readonly kind: "or"; readonly elements: readonly TagFormat[] }
  /** max absent: without end. */
  | { readonly kind: "repeat"; readonly content: TagFormat; readonly min: number; readonly max?: number }
  | Tag
  | TriggeredTags
  /** Tags and nothing else, with a separator between them. */
  | {
      readonly kind: "tags_with_separator";
      readonly tags: readonly Tag[];
      readonly separator: string;
      readonly atLeastOne: boolean;
      readonly stopAfterFirst: boolean;
    };

/** `begin content end`, where `end` is one of these. */
export interface Tag {
  readonly kind: "tag";
  readonly begin: string;
  readonly content: TagFormat;
  readonly ends: readonly [string, ...string[]];
}

/** Free text; where it comes to a trigger, one of the tags that begin with it follows. */
export interface TriggeredTags {
  readonly kind: "triggered_tags";
  readonly triggers: readonly string[];
  readonly tags: readonly Tag[];
  readonly excludes: readonly string[];
  /** It begins with a tag. */
  readonly atLeastOne: boolean;
  /** It ends with the first tag. */
  readonly stopAfterFirst: boolean;
}
