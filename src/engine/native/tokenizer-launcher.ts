/**
 * Runs the helper process that encodes long texts: started at the first one, started again after a crash, one text at
 * a time, a bounded queue. Used by tokenizer.ts.
 */
import { type ChildProcess, fork } from "node:child_process";
import { entryUrl } from "#base/entry.ts";
import { Fault } from "#core/fault.ts";

export type EncodeRequest = { readonly id: number; readonly parts: readonly string[]; readonly parseSpecial: boolean };
export type EncodeAnswer =
  | { readonly id: number; readonly tokens: Int32Array }
  | { readonly id: number; readonly error: string };

const MAX_WAITING = 64;
const ENTRY = entryUrl("engine/native/tokenizer-process");

interface Waiting {
  readonly resolve: (tokens: Int32Array) => void;
  readonly reject: (error: unknown) => void;
}

export class LongTextEncoder {
  private readonly modelPath: string;
  private child: ChildProcess | undefined;
  private readonly waiting = new Map<number, Waiting>();
  private nextId = 1;
  private closed = false;

  constructor(modelPath: string) {
    this.modelPath = modelPath;
  }

  /** @throws Fault overloaded | invalid_request (the text crashed the tokenizer) */
  encode(parts: readonly string[], parseSpecial: boolean): Promise<Int32Array> {
    if (this.closed) throw new Fault("draining", "the server is shutting down");
    if (this.waiting.size >= MAX_WAITING)
      throw new Fault("overloaded", "too many long texts are waiting", { retryAfterMs: 1000 });
    const id = this.nextId++;
    const child = this.running();
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      this.hold();
      child.send({ id, parts, parseSpecial } satisfies EncodeRequest);
    });
  }

  private running(): ChildProcess {
    if (this.child !== undefined) return this.child;
    const child = fork(ENTRY, [this.modelPath], {
      serialization: "advanced",
      stdio: ["ignore", "ignore", "ignore", "ipc"],
      // The parent's environment holds secrets (Wall: T17).
      env: {},
    });
    child.on("message", (answer: EncodeAnswer) => this.settle(answer));
    child.on("exit", () => this.lost(child));
    child.on("error", () => this.lost(child));
    this.child = child;
    return child;
  }

  /** The idle helper must not keep the server's process alive; a text in work must. */
  private hold(): void {
    const verb = this.waiting.size > 0 ? "ref" : "unref";
    this.child?.[verb]();
    this.child?.channel?.[verb]();
  }

  private settle(answer: EncodeAnswer): void {
    const waiting = this.waiting.get(answer.id);
    this.waiting.delete(answer.id);
    this.hold();
    if ("tokens" in answer) waiting?.resolve(answer.tokens);
    else waiting?.reject(new Fault("invalid_request", "the text cannot be tokenised", { detail: answer.error }));
  }

  /** Texts go in order, so the oldest is what it died of; the others did nothing and may come again. */
  private lost(child: ChildProcess): void {
    if (this.child !== child) return;
    this.child = undefined;
    let guilty = true;
    for (const [id, waiting] of this.waiting) {
      this.waiting.delete(id);
      const detail = "the tokenizer process ended";
      waiting.reject(
        guilty
          ? new Fault("invalid_request", "the text cannot be tokenised", { detail })
          : new Fault("overloaded", "the tokenizer restarted; try again", { detail, retryAfterMs: 100 }),
      );
      guilty = false;
    }
  }

  close(): void {
    this.closed = true;
    this.child?.kill("SIGKILL");
  }
}
