/**
 * What the open requests of one engine are, and how many prompt tokens it still has to compute for them.
 *
 * Invariant: a request stands here from its submission to its end; its prompt counts until it is computed.
 * Used by supervisor.ts only.
 */
import type { GenerateRequest } from "#core/generate.ts";
import type { Matches } from "./pooling/desk.ts";

export class Workload {
  readonly #requests = new Map<number, GenerateRequest>();
  readonly #prompts = new Map<number, number>();
  #promptTokens = 0;

  /** Tokens of prompts that are still to be computed. */
  get promptTokens(): number {
    return this.#promptTokens;
  }

  add(number: number, request: GenerateRequest): void {
    this.#requests.set(number, request);
    this.addPrompt(number, request.prompt.length);
  }

  /** Of a pooling request: only what it costs. */
  addPrompt(number: number, tokens: number): void {
    this.#prompts.set(number, tokens);
    this.#promptTokens += tokens;
  }

  promptDone(number: number): void {
    this.#promptTokens -= this.#prompts.get(number) ?? 0;
    this.#prompts.delete(number);
  }

  delete(number: number): void {
    this.#requests.delete(number);
    this.promptDone(number);
  }

  matching(matches: Matches): number[] {
    return [...this.#requests].filter(([, request]) => matches(request)).map(([number]) => number);
  }
}
