/**
 * Call events → the events of a response, and the response as it stands after each.
 *
 * Invariants: sequence numbers count from 0 without gaps; of items one is open at a time; every opened part and item is
 * closed before the end; the same events give the same bytes, ids included, so that a log of them replays a stream.
 * The part of a reasoning item comes in OpenAI's words or vLLM's: OpenAI's clients know no `reasoning_part`, and refuse
 * what they do not know.
 */
import type { CallEvent, PrintedPosition, Usage } from "#core/calls.ts";
import type { ChatMessage } from "#core/chat.ts";
import type { ResponseBody, ResponseError, ResponseEvent, ResponseStatus, ResponseWriter } from "#core/responses.ts";
import { chatLogprobs } from "#wire/openai/_logprobs.ts";
import { requireHealthy } from "#wire/openai/chat-encode.ts";
import { asMessages, type Item, type ItemStatus, type OpenItem, printItem, reasoningPart, textPart } from "./_items.ts";

export interface WriterOptions {
  /** Show what the prefix cache held (--enable-prompt-tokens-details). */
  readonly cachedTokens: boolean;
  /** Tokens in logprobs print as `token_id:N`. */
  readonly tokensAsIds: boolean;
  /** Whose events a part of reasoning has (--responses-reasoning-events): `content_part`, or `reasoning_part`. */
  readonly reasoningEvents: "openai" | "vllm";
  /** Keep the events, for `log`. */
  readonly logs: boolean;
}

type Delta = Extract<CallEvent, { type: "text" | "reasoning" | "tool-call" }>;
type Fields = Readonly<Record<string, unknown>>;

const OUTCOMES: Readonly<Record<string, ResponseStatus>> = {
  length: "incomplete",
  repetition: "incomplete",
  abort: "cancelled",
};
const ENDS: Readonly<Record<string, string>> = {
  completed: "response.completed",
  failed: "response.failed",
  // There is no event of its own for what was cancelled.
  cancelled: "response.incomplete",
  incomplete: "response.incomplete",
};

export class Writer implements ResponseWriter {
  readonly #head: ResponseBody;
  readonly #options: WriterOptions;
  readonly #log: CallEvent[] = [];
  readonly #items: Item[] = [];
  #open: OpenItem | undefined;
  #sequence = 0;
  #status: ResponseStatus;
  #outcome: ResponseStatus = "completed";
  #reason = "";
  #usage: Usage | undefined;
  #error: ResponseError | undefined;
  #events: ResponseEvent[] = [];

  /** @param head the response as it begins, as body.ts makes it */
  constructor(head: ResponseBody, options: WriterOptions) {
    this.#head = head;
    this.#options = options;
    this.#status = head["status"] as ResponseStatus;
  }

  get status(): ResponseStatus {
    return this.#status;
  }

  begin(): readonly ResponseEvent[] {
    this.#emit("response.created", { response: this.body() });
    return this.#take();
  }

  push(event: CallEvent): readonly ResponseEvent[] {
    const seen = this.#visible(event);
    if (seen === undefined) return [];
    if (this.#options.logs) this.#log.push(seen);
    switch (seen.type) {
      case "start":
        this.#status = "in_progress";
        this.#emit("response.in_progress", { response: this.body() });
        break;
      case "finish":
        requireHealthy(seen.reason);
        this.#reason = seen.reason;
        this.#outcome = OUTCOMES[seen.reason] ?? "completed";
        this.#close(this.#outcome === "completed" ? "completed" : "incomplete");
        break;
      case "usage":
        this.#usage = seen.usage;
        this.#end(this.#outcome);
        break;
      case "prompt-logprobs":
        break;
      default:
        this.#delta(seen);
    }
    return this.#take();
  }

  stop(status: "failed" | "cancelled", error?: ResponseError): readonly ResponseEvent[] {
    if (this.#status !== "queued" && this.#status !== "in_progress") return [];
    this.#error = error;
    this.#close("incomplete");
    this.#end(status);
    return this.#take();
  }

  body(): ResponseBody {
    return {
      ...this.#head,
      error: this.#error ?? null,
      incomplete_details: this.#incompleteDetails(),
      output: [...this.#items],
      status: this.#status,
      usage: this.#usage === undefined ? null : printUsage(this.#usage),
    };
  }

  answer(): readonly ChatMessage[] {
    return asMessages(this.#items);
  }

  log(): readonly CallEvent[] {
    return this.#log;
  }

  /** What of an event may be seen: nothing else is kept. */
  #visible(event: CallEvent): CallEvent | undefined {
    if (event.type === "start") return { type: "start", model: event.model, prompts: [] };
    if (event.type === "prompt-logprobs") return undefined;
    if (event.type === "usage") {
      if (!event.final) return undefined;
      return this.#options.cachedTokens ? event : { ...event, usage: { ...event.usage, cachedTokens: 0 } };
    }
    if (event.type === "finish" || event.logprobs === undefined || !this.#options.tokensAsIds) return event;
    return { ...event, logprobs: event.logprobs.map(asIds) };
  }

  #delta(event: Delta): void {
    if (event.type === "tool-call") {
      if (this.#open?.kind !== "function_call" || this.#open.call !== event.index) this.#begin("function_call", event);
      const item = this.#open;
      if (item !== undefined && event.arguments !== "") {
        item.text.push(event.arguments);
        this.#emit("response.function_call_arguments.delta", { delta: event.arguments, ...place(item) });
      }
      return;
    }
    const kind = event.type === "text" ? "message" : "reasoning";
    // A last delta that has only tokens says nothing where no text stands.
    if (event.text === "" && (this.#open?.kind !== kind || event.logprobs === undefined)) return;
    if (this.#open?.kind !== kind) this.#begin(kind);
    const item = this.#open;
    if (item === undefined) return;
    item.text.push(event.text);
    if (kind === "reasoning") {
      this.#emit("response.reasoning_text.delta", { content_index: 0, delta: event.text, ...place(item) });
      return;
    }
    const logprobs = this.#printLogprobs(event.logprobs);
    for (const entry of logprobs) item.logprobs.push(entry);
    const { item_id, output_index } = place(item);
    this.#emit("response.output_text.delta", { content_index: 0, delta: event.text, item_id, logprobs, output_index });
  }

  #begin(kind: OpenItem["kind"], call?: Extract<CallEvent, { type: "tool-call" }>): void {
    this.#close("completed");
    const index = this.#items.length;
    const prefix = kind === "message" ? "msg" : kind === "reasoning" ? "rs" : "fc";
    const id = `${prefix}_${String(this.#head["id"]).replace(/^resp_/, "")}_${index}`;
    const names = { callId: call?.id ?? "", name: call?.name ?? "", call: call?.index ?? 0 };
    const item: OpenItem = { kind, id, index, text: [], logprobs: [], ...names };
    this.#open = item;
    const printed = printItem(item, "in_progress");
    const begun = this.#partOf(kind) === "reasoning_part" ? { ...printed, content: null } : printed;
    this.#emit("response.output_item.added", { item: begun, output_index: index });
    if (kind === "function_call") return;
    const part = kind === "message" ? textPart("", []) : reasoningPart("");
    this.#emit(`response.${this.#partOf(kind)}.added`, { content_index: 0, ...place(item), part });
  }

  #close(status: ItemStatus): void {
    const item = this.#open;
    if (item === undefined) return;
    this.#open = undefined;
    const text = item.text.join("");
    const at = place(item);
    if (item.kind === "function_call")
      this.#emit("response.function_call_arguments.done", {
        arguments: text,
        item_id: at.item_id,
        name: item.name,
        output_index: at.output_index,
      });
    else {
      const message = item.kind === "message";
      if (message)
        this.#emit("response.output_text.done", {
          content_index: 0,
          item_id: at.item_id,
          logprobs: item.logprobs,
          output_index: at.output_index,
          text,
        });
      else this.#emit("response.reasoning_text.done", { content_index: 0, ...at, text });
      const part = message ? textPart(text, item.logprobs) : reasoningPart(text);
      this.#emit(`response.${this.#partOf(item.kind)}.done`, { content_index: 0, ...at, part });
    }
    const printed = printItem(item, status);
    this.#items.push(printed);
    this.#emit("response.output_item.done", { item: printed, output_index: item.index });
  }

  #partOf(kind: OpenItem["kind"]): string {
    return kind === "reasoning" && this.#options.reasoningEvents === "vllm" ? "reasoning_part" : "content_part";
  }

  #end(status: ResponseStatus): void {
    this.#status = status;
    this.#emit(ENDS[status] ?? "response.completed", { response: this.body() });
  }

  #incompleteDetails(): Fields | null {
    if (this.#status !== "incomplete") return null;
    return { reason: this.#reason === "length" ? "max_output_tokens" : this.#reason };
  }

  #printLogprobs(positions: readonly PrintedPosition[] | undefined): readonly unknown[] {
    if (positions === undefined) return [];
    return chatLogprobs(positions, { tokensAsIds: false, logprobs: Number(this.#head["top_logprobs"]) }).content;
  }

  #emit(type: string, fields: Fields): void {
    this.#events.push({ ...fields, sequence_number: this.#sequence++, type });
  }

  #take(): readonly ResponseEvent[] {
    const events = this.#events;
    this.#events = [];
    return events;
  }
}

function place({ id, index }: OpenItem) {
  return { item_id: id, output_index: index };
}

function asIds(position: PrintedPosition): PrintedPosition {
  const name = <T extends { token: number; text: string }>(entry: T): T => ({
    ...entry,
    text: `token_id:${entry.token}`,
  });
  return { ...name(position), top: position.top.map(name) };
}

function printUsage(usage: Usage): Fields {
  const { promptTokens: input, completionTokens: output } = usage;
  return {
    input_tokens: input,
    input_tokens_details: { cached_tokens: usage.cachedTokens, input_tokens_per_turn: [], cached_tokens_per_turn: [] },
    output_tokens: output,
    output_tokens_details: {
      reasoning_tokens: usage.reasoningTokens,
      tool_output_tokens: 0,
      output_tokens_per_turn: [],
      tool_output_tokens_per_turn: [],
    },
    total_tokens: input + output,
  };
}
