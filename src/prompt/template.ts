/**
 * Chat templates: a conversation and tools → one text, with the record of which parts the template wrote.
 *
 * Jinja by @huggingface/jinja under a guarded interpreter (_interpreter.ts): a rendering that would hang or grow
 * without bound ends as a 400. Rendering is synchronous and holds no state between calls.
 * Callers: serving, through encode.ts.
 */
import { parse, tokenize } from "@huggingface/jinja";
import type { ChatMessage, ToolDefinition } from "#core/chat.ts";
import { Fault, invalid } from "#core/fault.ts";
import { Budget, DEFAULT_TEMPLATE_LIMITS, TemplateLimitError, type TemplateLimits } from "./_budget.ts";
import { detectContentFormat } from "./_content-format.ts";
import { TemplateRefusal, templateGlobals } from "./_globals.ts";
import { GuardedInterpreter } from "./_interpreter.ts";
import { isList, isMap, isString, type Node, newScope, type Value } from "./_jinja.ts";
import { type Runs, sliceRuns } from "./_provenance.ts";
import { type ContentFormat, checkKwargs, contentText, KNOWN_ROLES, messageVariables } from "./_variables.ts";

export interface RenderInput {
  readonly messages: readonly ChatMessage[];
  readonly tools: readonly ToolDefinition[];
  readonly documents?: readonly unknown[];
  readonly addGenerationPrompt: boolean;
  readonly continueFinalMessage: boolean;
  readonly kwargs: Readonly<Record<string, unknown>>;
  /** The spelling of the model's bos and eos tokens; empty when it has none. */
  readonly bosToken: string;
  readonly eosToken: string;
  /** For strftime_now; the time of the call unless given. */
  readonly now?: Date;
}

export interface Rendered {
  readonly text: string;
  /** Which parts of `text` the template wrote, and which the client. */
  readonly runs: Runs;
}

export interface ChatTemplate {
  /** Absent: there is none that can be used. */
  readonly source?: string;
  readonly contentFormat: ContentFormat;
  /** @throws Fault invalid_request (refused by the template, over the limits, a reserved name, bad tool arguments) */
  render(input: RenderInput): Rendered;
}

/** The source is not a template that can be used. */
export class TemplateSourceError extends Error {}

/**
 * The template of a model, as it is: without one, or with a broken one, chat calls get a clear 400 and every other
 * route works (vLLM does the same).
 */
export function modelTemplate(source: string | undefined, limits: Partial<TemplateLimits> = {}): ChatTemplate {
  const refuse = (message: string): ChatTemplate => ({
    contentFormat: "string",
    render: () => {
      throw new Fault("invalid_request", message);
    },
  });
  if (source === undefined) {
    return refuse("The model has no chat template, so it reads no messages: give it text, as a prompt or an input.");
  }
  try {
    return compileTemplate(source, limits);
  } catch (error) {
    if (error instanceof TemplateSourceError)
      return refuse(`The model's chat template cannot be used: ${error.message}`);
    throw error;
  }
}

/** @throws TemplateSourceError (too long, not Jinja, or made to stall the parser) */
export function compileTemplate(source: string, overrides: Partial<TemplateLimits> = {}): ChatTemplate {
  const limits = { ...DEFAULT_TEMPLATE_LIMITS, ...overrides };
  const program = parseSource(source, limits);
  const contentFormat = detectContentFormat(program);
  const splitThink = source.includes("</think>") || source.includes("reasoning");
  return {
    source,
    contentFormat,
    render: (input) => {
      checkFlags(input);
      checkKwargs(input.kwargs);
      const messages = messageVariables(input.messages, contentFormat, splitThink);
      const budget = new Budget(limits);
      const rendered = attempt(() => run(program, source.length, budget, input, messages));
      return input.continueFinalMessage ? cutAfterFinalMessage(rendered, messages) : rendered;
    },
  };
}

// One of the package's expressions walks each run of white space again from each of its places.
const MAX_SPACE_RUN = 1024;

function parseSource(source: string, limits: TemplateLimits): Node {
  if (source.length > limits.maxSourceChars) {
    throw new TemplateSourceError(`its source is longer than ${limits.maxSourceChars} characters`);
  }
  let spaces = 0;
  for (let i = 0; i < source.length; i++) {
    spaces = isSpace(source.charCodeAt(i)) ? spaces + 1 : 0;
    if (spaces > MAX_SPACE_RUN)
      throw new TemplateSourceError(`it has more than ${MAX_SPACE_RUN} white space characters in a row`);
  }
  try {
    return parse(tokenize(source, { lstrip_blocks: true, trim_blocks: true })) as unknown as Node;
  } catch (error) {
    throw new TemplateSourceError(error instanceof RangeError ? "it nests too deeply" : shorten(messageOf(error)));
  }
}

function isSpace(code: number): boolean {
  return code === 0x20 || (code >= 0x09 && code <= 0x0d) || (code >= 0xa0 && /\s/.test(String.fromCharCode(code)));
}

function checkFlags(input: RenderInput): void {
  if (input.messages.length === 0) throw invalid("messages", "`messages` must hold at least one message");
  if (!input.continueFinalMessage) return;
  if (input.addGenerationPrompt) {
    throw invalid(
      "continue_final_message",
      "`continue_final_message` and `add_generation_prompt` exclude each other; set one of them to false",
    );
  }
  const last = input.messages.at(-1) as ChatMessage;
  if (contentText(last.content).trim() === "") {
    throw invalid(
      `messages.${input.messages.length - 1}.content`,
      "`continue_final_message` needs content in the last message",
    );
  }
}

function run(program: Node, sourceLength: number, budget: Budget, input: RenderInput, messages: unknown[]): Rendered {
  const scope = newScope();
  const interpreter = new GuardedInterpreter(scope, budget, sourceLength);
  const variables: Record<string, unknown> = {
    ...templateGlobals(budget, input.now ?? new Date()),
    tools: input.tools.length > 0 ? input.tools.map((tool) => tool.raw) : null,
    documents: input.documents ?? null,
    add_generation_prompt: input.addGenerationPrompt,
  };
  for (const [name, value] of Object.entries(variables)) scope.set(name, value);
  for (const [name, value] of Object.entries(input.kwargs)) scope.set(name, value);
  trustRoles(interpreter, scope.set("messages", messages));
  interpreter.trust(scope.set("bos_token", input.bosToken));
  interpreter.trust(scope.set("eos_token", input.eosToken));
  const result = interpreter.run(program);
  if (!isString(result)) throw new Error("a template makes text");
  return { text: result.value, runs: interpreter.runsOf(result) };
}

function trustRoles(interpreter: GuardedInterpreter, messages: Value): void {
  if (!isList(messages)) return;
  for (const message of messages.value) {
    const role = isMap(message) ? message.value.get("role") : undefined;
    if (role && isString(role) && KNOWN_ROLES.has(role.value)) interpreter.trust(role);
  }
}

/** Whatever goes wrong inside a template is the template's or the conversation's fault: a 400, never a 500. */
function attempt(render: () => Rendered): Rendered {
  try {
    return render();
  } catch (error) {
    if (error instanceof Fault) throw error;
    const message = messageOf(error);
    if (error instanceof TemplateRefusal)
      throw new Fault("invalid_request", `The chat template refused the conversation: ${shorten(message)}`, {
        param: "messages",
      });
    if (error instanceof TemplateLimitError)
      throw new Fault("invalid_request", `The conversation cannot be rendered: ${message}.`, { param: "messages" });
    if (error instanceof RangeError)
      throw new Fault("invalid_request", "The conversation cannot be rendered: it is too large or nests too deeply.", {
        param: "messages",
        cause: error,
      });
    throw new Fault("invalid_request", "The chat template failed on this conversation.", {
      param: "messages",
      detail: message,
      cause: error,
    });
  }
}

const MAX_MESSAGE = 300;

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** One line of at most 300 characters, without what looks like a file path. */
function shorten(message: string): string {
  const line = message
    .slice(0, 4 * MAX_MESSAGE)
    .replace(/[\s\p{Cc}]+/gu, " ")
    .trim();
  const safe = line
    .split(" ")
    .map((word) => (/^["'(]?(?:[A-Za-z]:\\|\/)[^ ]+[/\\]/.test(word) ? "…" : word))
    .join(" ");
  return safe.length > MAX_MESSAGE ? `${safe.slice(0, MAX_MESSAGE)}…` : safe;
}

/**
 * Ends the text with the last message's content, so that the model goes on in it.
 * As transformers does (utils/chat_template_utils.py): the last place of the trimmed content, with the spaces after
 * it when the template kept them.
 */
function cutAfterFinalMessage(rendered: Rendered, messages: readonly unknown[]): Rendered {
  const last = messages.at(-1) as { readonly content: string | readonly { readonly text: string }[] };
  const content = typeof last.content === "string" ? last.content : (last.content.at(-1)?.text ?? "");
  const trimmed = content.trim();
  const at = rendered.text.lastIndexOf(trimmed);
  if (trimmed === "" || at < 0) {
    throw invalid(
      "continue_final_message",
      "the chat template does not print the last message as it is, so it cannot be continued",
    );
  }
  const spaced = content.trimStart();
  const end = at + (rendered.text.startsWith(spaced, at) ? spaced.length : trimmed.length);
  return { text: rendered.text.slice(0, end), runs: sliceRuns(rendered.runs, 0, end) };
}
