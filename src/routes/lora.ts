/**
 * POST /v1/load_lora_adapter and /v1/unload_lora_adapter: on the operations listener, and only when switched
 * on; on the public one where the operator opened it.
 */
import { key } from "#http/access.ts";
import { text } from "#http/reply.ts";
import type { ReplyDeclaration } from "#http/route.ts";
import { openai } from "#wire/openai/dialect.ts";
import { decodeLoadLora, decodeUnloadLora, LoadLoraBody, UnloadLoraBody } from "#wire/vllm/lora.ts";
import { failures } from "./_answers.ts";
import { KIB, MINUTE, route, SECOND } from "./_services.ts";

const success: ReplyDeclaration = { status: 200, contentType: "text/plain", doc: "What was done, as a sentence." };

export const loadLora = route({
  method: "POST",
  path: "/v1/load_lora_adapter",
  dialect: openai,
  access: key("lora:write"),
  plane: "ops",
  switchedBy: "allowRuntimeLoraUpdating",
  publicBy: "publicLoraRoutes",
  limits: { bodyBytes: 64 * KIB, timeoutMs: 5 * MINUTE },
  body: LoadLoraBody,
  reply: [success, ...failures],
  audit: "metadata",
  doc: "Load a LoRA adapter from one of the operator's folders, and serve it under a name.",
  handler: async ({ caller, body, services, signal }) => {
    const call = decodeLoadLora(body);
    await services.adapters.load(caller, call, signal);
    return text(`Success: LoRA adapter '${call.name}' added successfully.`);
  },
});

export const unloadLora = route({
  method: "POST",
  path: "/v1/unload_lora_adapter",
  dialect: openai,
  access: key("lora:write"),
  plane: "ops",
  switchedBy: "allowRuntimeLoraUpdating",
  publicBy: "publicLoraRoutes",
  limits: { bodyBytes: 64 * KIB, timeoutMs: 30 * SECOND },
  body: UnloadLoraBody,
  reply: [success, ...failures],
  audit: "metadata",
  doc: "Serve a LoRA adapter no longer; answers that it has begun go on.",
  handler: async ({ caller, body, services }) => {
    const name = decodeUnloadLora(body);
    await services.adapters.unload(caller, name);
    return text(`Success: LoRA adapter '${name}' removed successfully.`);
  },
});
