/**
 * The stream of a response from a server behind this one → call events, for what goes on here without its client: so it
 * is written, kept, cut off and streamed again as one of the engine here.
 *
 * Invariants: of what came only what this API has is taken (text, reasoning, function calls, how it ended); ids, numbers
 * and order are made anew; what cannot be read is left out, and nothing comes behind the end; at most one event is held,
 * bounded. Callers: serving/upstreams.
 */
import { tryParseJson } from "#base/json.ts";
import type { CallEvent, PrintedLogprob, PrintedPosition } from "#core/calls.ts";
import { Fault } from "#core/fault.ts";
import { NO_USAGE } from "#core/metering.ts";
import { isObject, type JsonObject } from "#wire/openai/_compound.ts";
import { readUsage } from "./usage.ts";

/** Characters of one event. */
const MAX_EVENT = 32 * 1024 * 1024;
const LINE_END = /\r\n|\n/;

type Taken = readonly CallEvent[];
const NONE: Taken = [];

interface Call {
  readonly index: number;
  /** Characters of its arguments so far. */
  told: number;
}

export class ResponseEvents {
  readonly #model: string;
  readonly #decoder = new TextDecoder();
  /** Of the line that has begun. */
  #line: string[] = [];
  /** Characters of the event that has begun. */
  #held = 0;
  /** Data of the event that has begun. */
  #data: string[] = [];
  #begun = false;
  #ended = false;
  readonly #calls = new Map<unknown, Call>();
  /** Places in the output of which something came. */
  readonly #told = new Set<unknown>();

  /** @param model as it is printed */
  constructor(model: string) {
    this.#model = model;
  }

  /** The response has said that it is over. */
  get ended(): boolean {
    return this.#ended;
  }

  /** @throws Fault upstream_failed: the response says that it failed, or an event is too long */
  take(chunk: Uint8Array): Taken {
    const text = this.#decoder.decode(chunk, { stream: true });
    this.#line.push(text);
    this.#held += text.length;
    if (this.#held > MAX_EVENT) throw unreadable();
    if (!text.includes("\n")) return NONE;
    const lines = this.#line.join("").split(LINE_END);
    // A carriage return at the end may be half of a line's end: it is looked at with what follows.
    this.#line = lines.splice(-1);
    return lines.flatMap((line) => this.#take(line));
  }

  #take(line: string): Taken {
    if (line.startsWith("data:")) this.#data.push(line.slice(5));
    if (line !== "") return NONE;
    this.#held = this.#line.reduce((sum, { length }) => sum + length, 0);
    const data = this.#data.splice(0);
    return data.length === 0 ? NONE : this.#event(data.join("\n"));
  }

  #event(text: string): Taken {
    const value = tryParseJson(text);
    const type = isObject(value) ? value["type"] : undefined;
    if (!isObject(value) || typeof type !== "string" || this.#ended) return NONE;
    if (type === "error" || type === "response.failed") throw failed();
    if (!type.startsWith("response.")) return NONE;
    const start: Taken = this.#begun ? NONE : [{ type: "start", model: this.#model, prompts: [] }];
    this.#begun = true;
    return [...start, ...this.#pieces(type, value)];
  }

  #pieces(type: string, event: JsonObject): Taken {
    switch (type) {
      case "response.output_text.delta":
        return this.#text("text", event["output_index"], event["delta"], event["logprobs"]);
      case "response.reasoning_text.delta":
        return this.#text("reasoning", event["output_index"], event["delta"]);
      case "response.function_call_arguments.delta":
        return this.#arguments(event["output_index"], event["delta"]);
      case "response.output_item.added":
        return this.#call(event["output_index"], event["item"]);
      case "response.output_item.done":
        return this.#item(event["output_index"], event["item"]);
      case "response.completed":
      case "response.incomplete":
        return this.#end(type, event["response"]);
      default:
        return NONE;
    }
  }

  #text(type: "text" | "reasoning", place: unknown, text: unknown, logprobs?: unknown): Taken {
    if (typeof text !== "string") return NONE;
    this.#told.add(place);
    const positions = type === "text" && Array.isArray(logprobs) ? logprobs.flatMap(positionOf) : [];
    return [{ type, choice: 0, text, ...(positions.length === 0 ? {} : { logprobs: positions }) }];
  }

  /** A function call begins. */
  #call(place: unknown, item: unknown): Taken {
    if (!isObject(item) || item["type"] !== "function_call" || this.#calls.has(place)) return NONE;
    const { call_id: id, name } = item;
    if (typeof id !== "string" || typeof name !== "string") return NONE;
    const call = { index: this.#calls.size, told: 0 };
    this.#calls.set(place, call);
    return [{ type: "tool-call", choice: 0, index: call.index, id, name, arguments: "" }];
  }

  #arguments(place: unknown, text: unknown): Taken {
    const call = this.#calls.get(place);
    if (call === undefined || typeof text !== "string" || text === "") return NONE;
    call.told += text.length;
    return [{ type: "tool-call", choice: 0, index: call.index, arguments: text }];
  }

  /** What a whole item has that was not told in pieces. */
  #item(place: unknown, item: unknown): Taken {
    if (!isObject(item)) return NONE;
    if (item["type"] === "function_call") {
      const begun = this.#call(place, item);
      const text = this.#calls.get(place)?.told === 0 ? item["arguments"] : undefined;
      return [...begun, ...this.#arguments(place, text)];
    }
    const kind = item["type"] === "message" ? "text" : item["type"] === "reasoning" ? "reasoning" : undefined;
    const { content } = item;
    if (kind === undefined || this.#told.has(place) || !Array.isArray(content)) return NONE;
    return content.flatMap((part: unknown) =>
      isObject(part) ? this.#text(kind, place, part["text"], part["logprobs"]) : NONE,
    );
  }

  #end(type: string, response: unknown): Taken {
    if (!isObject(response)) return NONE;
    const { output } = response;
    const rest = Array.isArray(output) ? output.flatMap((item: unknown, place) => this.#item(place, item)) : NONE;
    this.#ended = true;
    return [
      ...rest,
      { type: "finish", choice: 0, reason: type === "response.completed" ? "stop" : "length" },
      { type: "usage", usage: readUsage(response["usage"]) ?? NO_USAGE, final: true },
    ];
  }
}

/** No number of a token came: the text tells tokens apart. */
function positionOf(entry: unknown): readonly PrintedPosition[] {
  const drawn = logprobOf(entry, 0);
  if (drawn === undefined) return [];
  const top = isObject(entry) && Array.isArray(entry["top_logprobs"]) ? entry["top_logprobs"] : [];
  const others = top.map((one: unknown, i) => logprobOf(one, i + 1)).filter((one) => one !== undefined);
  return [{ ...drawn, top: others.map((one) => (one.text === drawn.text ? { ...one, token: 0 } : one)) }];
}

function logprobOf(entry: unknown, token: number): PrintedLogprob | undefined {
  if (!isObject(entry)) return undefined;
  const { token: text, logprob, bytes } = entry;
  if (typeof text !== "string" || typeof logprob !== "number") return undefined;
  const told = Array.isArray(bytes) && bytes.every((byte) => Number.isInteger(byte)) ? (bytes as number[]) : undefined;
  return { token, text, logprob, bytes: told ?? [...Buffer.from(text)], rank: token };
}

function failed(): Fault {
  return new Fault("upstream_failed", "The model's server failed.", { detail: "the response says so" });
}

function unreadable(): Fault {
  return new Fault("upstream_failed", "The model's server gave no answer that can be read.");
}
