/**
 * Conversations and tools, free of any protocol.
 */
export interface ToolCall {
  readonly id: string;
  readonly name: string;
  /** JSON text, as the model wrote it or the client sent it. */
  readonly arguments: string;
}

export interface ToolDefinition {
  readonly name: string;
  readonly description?: string;
  /** A JSON schema. */
  readonly parameters?: unknown;
  /** The definition as the client sent it (`{type, function}`): what templates print. */
  readonly raw: unknown;
}

export interface ChatMessage {
  readonly role: string;
  /** Text parts of a list are kept apart: templates in "openai" content format want them so. */
  readonly content: string | readonly { readonly type: "text"; readonly text: string }[] | null;
  readonly name?: string;
  readonly reasoning?: string;
  readonly toolCalls?: readonly ToolCall[];
  readonly toolCallId?: string;
}

export type ToolChoice = "none" | "auto" | "required" | { readonly name: string };
