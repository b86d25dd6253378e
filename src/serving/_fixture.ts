/**
 * A served model over a scripted backend and a byte-level tokenizer. Tests only.
 */

import type { CallEvent } from "#core/calls.ts";
import { Fault } from "#core/fault.ts";
import { UNMETERED } from "#core/metering.ts";
import type { Grant, Scope } from "#core/principal.ts";
import { DEFAULT_CAPS } from "#core/request-caps.ts";
import { authorize } from "#policy/authorize.ts";
import { principalOf } from "#policy/roles.ts";
import { fakeTokenizer } from "#prompt/_fake-tokenizer.ts";
import { GrammarCompiler } from "#prompt/grammar/compiler.ts";
import { modelTemplate } from "#prompt/template.ts";
import { type Script, ScriptedBackend } from "./_scripted-backend.ts";
import { type AdapterLoader, Adapters, type AdaptersOptions } from "./adapters.ts";
import type { Serving } from "./context.ts";
import { Models, type ServedModel } from "./models.ts";
import { NO_OBSERVER } from "./observe.ts";
import { makeOutput } from "./output.ts";

/** ids: bytes, then <s>, <|im_start|>, <|im_end|>. */
export const IM_END = 258;

const CHATML =
  "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}" +
  "{% if tools %}{{ tools | tojson }}{% endif %}" +
  "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

export interface Fixture {
  readonly serving: Serving;
  readonly backend: ScriptedBackend;
  readonly model: ServedModel;
  /** Any path is an adapter, except one that ends in "bad". */
  readonly adapters: Adapters;
  /** Numbers that the loader holds now. */
  readonly loaded: ReadonlySet<number>;
}

export function fixture(
  script: Script = {},
  changes: Partial<ServedModel> = {},
  changedAdapters: Partial<AdaptersOptions> = {},
): Fixture {
  const tokenizer = fakeTokenizer({
    specials: ["<s>", "<|im_start|>", "<|im_end|>"],
    bos: "<s>",
    eos: "<|im_end|>",
    addsBos: true,
  });
  const backend = new ScriptedBackend({
    endOfTurn: IM_END,
    ...script,
    model: { vocabularySize: tokenizer.vocabularySize, contextLength: 512, ...script.model },
  });
  const model: ServedModel = {
    names: ["demo", "demo-alias"],
    backend,
    tokenizer,
    template: modelTemplate(CHATML),
    defaults: {},
    parsers: { reasoning: "qwen3", tools: "hermes", holdCalls: false },
    ...changes,
  };
  const serving: Serving = {
    models: new Models([model]),
    caps: DEFAULT_CAPS,
    priorities: false,
    makeOutput,
    observerOf: () => NO_OBSERVER,
    grammars: new GrammarCompiler(),
    shareOf: ({ tenant }) => ({ key: tenant, weight: 1 }),
  };
  const loaded = new Set<number>();
  const loader: AdapterLoader = {
    loadAdapter: async (adapter, path) => {
      await Promise.resolve();
      if (path.endsWith("bad")) throw new Fault("invalid_request", "this GGUF is not an adapter");
      loaded.add(adapter);
    },
    unloadAdapter: (adapter) => void loaded.delete(adapter),
  };
  const adapterParts: Pick<AdaptersOptions, "mostOf" | "digestRequired" | "prepare" | "record"> = {
    mostOf: () => 3,
    digestRequired: false,
    prepare: async ({ path }) => ({ path, sha256: `of ${path}`, form: "gguf", release: () => {} }),
    record: async () => {},
    ...changedAdapters,
  };
  const adapters = new Adapters({ models: serving.models, base: model, loader, most: 2, ...adapterParts });
  return { serving, backend, model, adapters, loaded };
}

/** A reply of this text, ended by the end-of-turn token. */
export function says(text: string): NonNullable<Script["reply"]> {
  const tokens = [...Buffer.from(text), IM_END];
  return () => tokens;
}

export function grant<S extends Scope>(scope: S, tenant = "t"): Grant<S> {
  return authorize(principalOf({ id: "k", tenant, role: "admin" }), scope, UNMETERED);
}

export async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}

/** One line a choice: its text, reasoning and calls together. */
export function summary(events: readonly CallEvent[], choice = 0) {
  const out = {
    text: "",
    reasoning: "",
    calls: [] as { id?: string; name?: string; arguments: string }[],
    finish: "",
    stop: undefined as unknown,
  };
  for (const event of events) {
    if (!("choice" in event) || event.choice !== choice) continue;
    if (event.type === "text") out.text += event.text;
    if (event.type === "reasoning") out.reasoning += event.text;
    if (event.type === "tool-call") {
      out.calls[event.index] ??= {
        ...(event.id === undefined ? {} : { id: event.id }),
        ...(event.name === undefined ? {} : { name: event.name }),
        arguments: "",
      };
      const call = out.calls[event.index];
      if (call !== undefined) call.arguments += event.arguments;
    }
    if (event.type === "finish") {
      out.finish = event.reason;
      out.stop = event.stop;
    }
  }
  return out;
}
