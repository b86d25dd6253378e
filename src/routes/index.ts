/**
 * Every route of the server. Nothing else is registered.
 */
import type { AnyRoute } from "#http/route.ts";
import type { Services } from "./_services.ts";
import { auditHead, auditRecords, verifyAudit } from "./admin-audit.ts";
import { createKey, deleteKey, disableKey, enableKey, listKeys, rotateKey, showKey } from "./admin-keys.ts";
import { callerRights, explainPolicy, policy, reloadPolicy } from "./admin-policy.ts";
import { usage } from "./admin-usage.ts";
import { chatCompletions } from "./chat-completions.ts";
import { completions } from "./completions.ts";
import { health, ping, pingPost } from "./health.ts";
import { loadLora, unloadLora } from "./lora.ts";
import { models } from "./models.ts";
import { cancelResponse, createResponse, deleteResponse, retrieveResponse } from "./responses.ts";
import { load, metrics, version } from "./service.ts";
import { detokenize, tokenize } from "./tokenize.ts";

export type { Services } from "./_services.ts";

export const routes: readonly AnyRoute<Services>[] = [
  chatCompletions,
  completions,
  createResponse,
  retrieveResponse,
  cancelResponse,
  deleteResponse,
  models,
  tokenize,
  detokenize,
  health,
  ping,
  pingPost,
  version,
  load,
  metrics,
  loadLora,
  unloadLora,
  listKeys,
  showKey,
  createKey,
  rotateKey,
  disableKey,
  enableKey,
  deleteKey,
  usage,
  auditRecords,
  verifyAudit,
  auditHead,
  policy,
  reloadPolicy,
  explainPolicy,
  callerRights,
];
