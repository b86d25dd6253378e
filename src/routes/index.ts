/**
 * Every route of the server. Nothing else is registered.
 */
import type { AnyRoute } from "#http/route.ts";
import type { Services } from "./_services.ts";
import { auditHead, auditRecords, verifyAudit } from "./admin-audit.ts";
import { createKey, deleteKey, disableKey, enableKey, listKeys, rotateKey, showKey } from "./admin-keys.ts";
import { callerRights, explainPolicy, policy, reloadPolicy, testPolicy } from "./admin-policy.ts";
import { usage } from "./admin-usage.ts";
import { realtime, transcriptions, translations } from "./audio.ts";
import { cancelBatch, createBatch, listBatches, showBatch } from "./batches.ts";
import { chatBatch } from "./chat-batch.ts";
import { chatCompletions } from "./chat-completions.ts";
import { completions } from "./completions.ts";
import { chatDerender, completionDerender } from "./derender.ts";
import { collectiveRpc, faultApply, faultStatus, serverInfo, startProfile, stopProfile } from "./diagnostics.ts";
import { cohereEmbed, embeddings, pooling } from "./embeddings.ts";
import { deleteFile, fileContent, listFiles, showFile, uploadFile } from "./files.ts";
import { generate } from "./generate.ts";
import { health, ping, pingPost } from "./health.ts";
import { invocations } from "./invocations.ts";
import { loadLora, unloadLora } from "./lora.ts";
import { countMessageTokens, messages } from "./messages.ts";
import { model, models } from "./models.ts";
import {
  abortRequests,
  isPaused,
  isScaling,
  isSleeping,
  pause,
  resetEncoderCache,
  resetMmCache,
  resetPrefixCache,
  resume,
  scale,
  sleep,
  wakeUp,
} from "./operations.ts";
import { chatRender, completionRender, messagesRender } from "./render.ts";
import { cancelResponse, createResponse, deleteResponse, responseInput, retrieveResponse } from "./responses.ts";
import { classify, generativeScoring, rerank, rerankV1, rerankV2, score, scoreV1 } from "./scores.ts";
import { load, metrics, openapi, upstreamMetrics, version } from "./service.ts";
import { detokenize, tokenize, tokenizerInfo } from "./tokenize.ts";
import { finishWeights, initWeights, startWeights, updateWeights, worldSize } from "./weights.ts";

export type { Services } from "./_services.ts";

export const routes: readonly AnyRoute<Services>[] = [
  chatCompletions,
  chatBatch,
  completions,
  createResponse,
  retrieveResponse,
  responseInput,
  cancelResponse,
  deleteResponse,
  messages,
  countMessageTokens,
  embeddings,
  cohereEmbed,
  pooling,
  classify,
  score,
  scoreV1,
  rerank,
  rerankV1,
  rerankV2,
  generativeScoring,
  uploadFile,
  listFiles,
  showFile,
  fileContent,
  deleteFile,
  createBatch,
  listBatches,
  showBatch,
  cancelBatch,
  chatRender,
  completionRender,
  messagesRender,
  chatDerender,
  completionDerender,
  generate,
  invocations,
  transcriptions,
  translations,
  realtime,
  models,
  model,
  tokenize,
  detokenize,
  tokenizerInfo,
  health,
  ping,
  pingPost,
  version,
  openapi,
  load,
  metrics,
  upstreamMetrics,
  loadLora,
  unloadLora,
  pause,
  resume,
  isPaused,
  sleep,
  wakeUp,
  isSleeping,
  abortRequests,
  scale,
  isScaling,
  resetPrefixCache,
  resetMmCache,
  resetEncoderCache,
  initWeights,
  startWeights,
  updateWeights,
  finishWeights,
  worldSize,
  serverInfo,
  collectiveRpc,
  startProfile,
  stopProfile,
  faultStatus,
  faultApply,
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
  testPolicy,
];
