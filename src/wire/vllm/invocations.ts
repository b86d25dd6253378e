/**
 * The body of POST /invocations: that of another route. Which one, its fields and the model's tasks tell, in vLLM's
 * order (vllm/entrypoints/sagemaker/api_router.py); the first that fits is taken.
 */
import { z } from "zod";
import { Fault } from "#core/fault.ts";
import type { TaskKind } from "#core/pool.ts";

type Body = Readonly<Record<string, unknown>>;

/** The rest is held against the schema of the route that answers. */
export const InvocationBody = z.looseObject({ model: z.string().nullish() });

export type Invoked = "chat" | "completion" | "embedding" | "classification" | "rerank" | "score" | "pooling";

interface Shape {
  readonly tasks: readonly TaskKind[];
  /** One of these lists of fields is there in whole. */
  readonly fields: readonly (readonly string[])[];
}

const TEXTS = [["input"], ["messages"]] as const;
const SCORED: readonly TaskKind[] = ["score", "embed", "classify"];

const SHAPES: Readonly<Record<Invoked, Shape>> = {
  chat: { tasks: ["generate"], fields: [["messages"]] },
  completion: { tasks: ["generate"], fields: [["prompt"], ["prompt_embeds"]] },
  embedding: { tasks: ["embed"], fields: TEXTS },
  classification: { tasks: ["classify"], fields: TEXTS },
  rerank: { tasks: SCORED, fields: [["query", "documents"]] },
  score: {
    tasks: SCORED,
    fields: [
      ["queries", "documents"],
      ["queries", "items"],
      ["text_1", "text_2"],
      ["data_1", "data_2"],
    ],
  },
  pooling: { tasks: ["embed", "token_embed", "classify", "score"], fields: [...TEXTS, ["data"]] },
};

/** @throws Fault invalid_request: a body that no task of the model takes */
export function invokedBy(body: Body, tasks: readonly TaskKind[]): Invoked {
  const open = (Object.entries(SHAPES) as [Invoked, Shape][]).filter(([, shape]) =>
    shape.tasks.some((task) => tasks.includes(task)),
  );
  const found = open.find(([, { fields }]) => fields.some((names) => names.every((name) => isGiven(body[name]))));
  if (found !== undefined) return found[0];
  const expected = open.map(([name]) => name).join(", ");
  throw new Fault(
    "invalid_request",
    `Cannot find suitable handler for request. Expected one of: ${expected === "" ? "nothing that this model does" : expected}`,
  );
}

function isGiven(value: unknown): boolean {
  return value !== undefined && value !== null;
}
