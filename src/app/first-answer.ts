/**
 * The server's first answer, asked over its own HTTP door as any client would: shows that everything works.
 */
import type { Secret } from "#base/secret.ts";
import { LocalClient } from "#egress/local-client.ts";
import type { Address } from "#http/listener.ts";
import { origin } from "./announce.ts";

const QUESTION = "What is Castellan?";

interface Chunk {
  readonly choices?: readonly { readonly delta?: { readonly content?: string } }[];
  readonly usage?: { readonly completion_tokens?: number };
}

/**
 * @param own the server's certificate, where it speaks TLS: it is what has to answer, whatever name it carries
 * @returns the question, the answer and the speed, ready to print
 */
export async function firstAnswer(
  address: Address,
  key: Secret,
  model: string,
  own: string | undefined,
): Promise<string> {
  const tls = own === undefined ? {} : { tls: { pinned: own } };
  const client = new LocalClient(
    "path" in address
      ? { origin: own === undefined ? "http://localhost" : "https://localhost", socketPath: address.path, key, ...tls }
      : { origin: origin(address, own !== undefined), key, ...tls },
  );
  const started = performance.now();
  let first = started;
  let text = "";
  let tokens = 0;
  const body = {
    model,
    messages: [{ role: "user", content: QUESTION }],
    temperature: 0,
    max_tokens: 64,
    stream: true,
    stream_options: { include_usage: true },
  };
  try {
    for await (const chunk of client.stream("/v1/chat/completions", body)) {
      const { choices, usage } = chunk as Chunk;
      const piece = choices?.[0]?.delta?.content ?? "";
      if (text === "" && piece !== "") first = performance.now();
      text += piece;
      tokens = usage?.completion_tokens ?? tokens;
    }
  } finally {
    await client.close();
  }
  const seconds = (performance.now() - started) / 1000;
  const speed = `${tokens} tokens, first after ${Math.round(first - started)} ms, ${(tokens / seconds).toFixed(0)} tokens/s`;
  return `A first answer (${speed}):\n\n  > ${QUESTION}\n  ${text.trim()}\n\n`;
}
