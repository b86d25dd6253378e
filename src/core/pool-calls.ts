/**
 * What the wire layer hands to serving where numbers are wanted instead of text, and what serving gives back: text level.
 */
import type { Prompt, TemplateOptions, Usage } from "./calls.ts";
import type { ChatMessage } from "./chat.ts";
import type { PoolOutput, PoolTask } from "./pool.ts";

/** Keep only so many tokens of an input, from one side; -1 = the window. */
export interface Truncation {
  readonly tokens: number;
  readonly side: "left" | "right";
  /** The request's field, for messages. */
  readonly field: string;
}

/** What every call of the family may say. */
export interface PoolOptions {
  /** Absent: the first served model. */
  readonly model?: string;
  readonly truncate?: Truncation;
  readonly useActivation?: boolean;
  /** Absent: as urgent as the principal's requests are. */
  readonly priority?: number;
  /** The answer's id, as its tenant knows it. */
  readonly callId?: string;
}

export type PoolSource =
  | {
      readonly kind: "prompts";
      readonly prompts: readonly Prompt[];
      readonly addSpecialTokens: boolean;
      /** The request's field, for messages. */
      readonly field: string;
      /** More tokens than this in one input are refused, where nothing is truncated. */
      readonly mostTokens?: number;
    }
  | { readonly kind: "chat"; readonly messages: readonly ChatMessage[]; readonly template: TemplateOptions };

export interface PoolCall extends PoolOptions {
  /** Absent: what the model does first. */
  readonly task?: PoolTask;
  /** What the client asked for, for the refusal of a model that cannot: "Embeddings". */
  readonly api: string;
  readonly source: PoolSource;
  readonly dimensions?: number;
  /** Vectors will be printed as bits, eight to a byte: their size has to be a multiple of eight. */
  readonly packed?: boolean;
}

export interface PoolAnswer {
  /** Served name to print. */
  readonly model: string;
  readonly task: PoolTask;
  /** One an input, in their order. */
  readonly outputs: readonly PoolOutput[];
  /** Names of the classes; empty where the model names none. */
  readonly labels: readonly string[];
  readonly usage: Usage;
}

/** Texts against texts: one query against all documents, or each against its own. */
export interface ScoreCall extends PoolOptions {
  readonly api: string;
  readonly queries: readonly string[];
  readonly documents: readonly string[];
  /** Names of the two fields, for messages. */
  readonly fields: readonly [queries: string, documents: string];
  /** Cut before anything is put together; absent: not at all. */
  readonly queryTokens?: number;
  readonly documentTokens?: number;
  /** Variables for the model's template for pairs, where it has one that takes some. */
  readonly kwargs?: Readonly<Record<string, unknown>>;
}

/** How likely a model that generates goes on with one of the labels. */
export interface LabelCall extends Omit<PoolOptions, "truncate" | "useActivation"> {
  readonly query: Prompt;
  readonly items: readonly Prompt[];
  /** Token ids; the score is the first one's. */
  readonly labels: readonly number[];
  /** Shares among the labels, not in the whole vocabulary. */
  readonly amongLabels: boolean;
  readonly itemFirst: boolean;
  readonly addSpecialTokens: boolean;
  readonly cacheSalt?: string;
}

export interface ScoreAnswer {
  readonly model: string;
  /** One a document or item, in their order. */
  readonly scores: readonly number[];
  readonly usage: Usage;
}
