/**
 * The thread that compiles grammars: a source comes, its tables or the refusal go back. Started by compiler.ts only.
 */
import { parentPort } from "node:worker_threads";
import type { StructuredOutput } from "#core/structured.ts";
import { GrammarError } from "./builder.ts";
import { grammarOf } from "./compile.ts";
import type { Compiled } from "./compiler.ts";

function compile(wanted: StructuredOutput): Compiled {
  try {
    return { grammar: grammarOf(wanted) };
  } catch (error) {
    if (error instanceof GrammarError) return { refused: error.message };
    throw error;
  }
}

parentPort?.on("message", (wanted: StructuredOutput) => parentPort?.postMessage(compile(wanted)));
