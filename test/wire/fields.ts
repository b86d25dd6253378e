/**
 * Every request field that vLLM's routes are documented to have, and what becomes of it here. Walked by fields.test.ts.
 */
import type { Surface } from "./fields/field.ts";
import { GENERATION } from "./fields/generation.ts";
import { POOLING } from "./fields/pooling.ts";
import { SERVICE } from "./fields/service.ts";

export const SURFACES: readonly Surface[] = [...GENERATION, ...POOLING, ...SERVICE];
