/**
 * `castellan chat`: a small streaming chat in the terminal. Lines from a pipe work as well as a person's.
 */
import { createInterface } from "node:readline";
import { ClientError, type LocalClient } from "#egress/local-client.ts";
import { type ConnectionOptions, chooseModel, connect } from "./connection.ts";
import { FAILURE, fail } from "./serve.ts";

export interface ChatOptions extends ConnectionOptions {
  readonly system?: string;
  readonly temperature?: number;
  readonly maxTokens: number;
  readonly think?: boolean;
}

interface Message {
  readonly role: "system" | "user" | "assistant";
  readonly content: string;
}

interface Chunk {
  readonly choices?: readonly { readonly delta?: { readonly content?: string; readonly reasoning?: string } }[];
  readonly error?: { readonly message?: string };
}

/** @returns the exit code */
export async function runChat(options: ChatOptions): Promise<number> {
  try {
    const client = connect(options);
    const model = await chooseModel(client, options.model);
    await converse(client, model, options);
    await client.destroy();
    return 0;
  } catch (error) {
    if (error instanceof ClientError) return fail(error.message, FAILURE);
    throw error;
  }
}

async function converse(client: LocalClient, model: string, options: ChatOptions): Promise<void> {
  const person = process.stdin.isTTY === true;
  const opening: Message[] = options.system === undefined ? [] : [{ role: "system", content: options.system }];
  let messages = opening;
  const lines = createInterface({
    input: process.stdin,
    output: process.stdout,
    terminal: person,
    prompt: person ? "> " : "",
  });
  let answering: AbortController | undefined;
  // Ctrl-C stops the answer; without one it ends the chat.
  lines.on("SIGINT", () => (answering === undefined ? lines.close() : answering.abort()));
  if (person) process.stdout.write(`Talking to ${model}. /reset forgets, /exit ends.\n`);
  // A pipe is at its end long before its lines are answered; a closed interface cannot prompt.
  let open = true;
  lines.on("close", () => {
    open = false;
  });
  lines.prompt();
  for await (const line of lines) {
    const text = line.trim();
    if (text === "/exit") break;
    if (text === "/reset") messages = opening;
    else if (text !== "") {
      answering = new AbortController();
      const asked: Message[] = [...messages, { role: "user", content: text }];
      const answer = await ask(client, model, asked, options, answering.signal);
      answering = undefined;
      if (answer !== undefined) messages = [...asked, { role: "assistant", content: answer }];
    }
    if (open) lines.prompt();
  }
  if (open) lines.close();
}

/** @returns the answer, or undefined when it failed */
async function ask(
  client: LocalClient,
  model: string,
  messages: readonly Message[],
  options: ChatOptions,
  signal: AbortSignal,
): Promise<string | undefined> {
  const body = {
    model,
    messages,
    stream: true,
    max_tokens: options.maxTokens,
    ...(options.temperature === undefined ? {} : { temperature: options.temperature }),
    ...(options.think ? { chat_template_kwargs: { enable_thinking: true } } : {}),
  };
  const printer = new Printer();
  try {
    for await (const chunk of client.stream("/v1/chat/completions", body, signal)) {
      const { choices, error } = chunk as Chunk;
      if (error !== undefined) throw new ClientError(error.message ?? "the server failed");
      printer.reasoning(choices?.[0]?.delta?.reasoning ?? "");
      printer.content(choices?.[0]?.delta?.content ?? "");
    }
  } catch (error) {
    if ((error as Error).name === "AbortError") printer.note("(stopped)");
    else if (error instanceof ClientError) {
      printer.note(`(${error.message})`);
      return undefined;
    } else throw error;
  }
  printer.end();
  return printer.text;
}

/** Escape sequences of a model must not reach the terminal. */
function harmless(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is taken out
  return text.replace(/[\x00-\x08\x0b-\x1f\x7f-\x9f]/g, "");
}

class Printer {
  text = "";
  private readonly color = process.stdout.isTTY === true;
  private thinking = false;

  reasoning(text: string): void {
    if (text === "") return;
    if (!this.thinking && this.color) process.stdout.write("\u001b[2m");
    this.thinking = true;
    process.stdout.write(harmless(text));
  }

  content(text: string): void {
    if (text === "") return;
    this.endThinking();
    this.text += text;
    process.stdout.write(harmless(text));
  }

  private endThinking(): void {
    if (!this.thinking) return;
    this.thinking = false;
    process.stdout.write(this.color ? "\u001b[0m\n" : "\n");
  }

  note(text: string): void {
    this.endThinking();
    process.stdout.write(` ${text}`);
  }

  end(): void {
    this.endThinking();
    process.stdout.write("\n");
  }
}
