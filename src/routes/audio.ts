/**
 * POST /v1/audio/transcriptions and /v1/audio/translations, GET /v1/realtime: declared with their walls. No model here
 * hears yet; servers behind this one do (serving/upstreams).
 */
import { Fault } from "#core/fault.ts";
import { key } from "#http/access.ts";
import { openai } from "#wire/openai/dialect.ts";
import { failures, unauthenticated } from "./_answers.ts";
import { KIB, MIB, MINUTE, route } from "./_services.ts";

function deaf(): never {
  throw new Fault("not_implemented", "The model does not support audio: this server runs models of text only.");
}

function audioRoute(path: "/v1/audio/transcriptions" | "/v1/audio/translations", doc: string) {
  return route({
    method: "POST",
    path,
    dialect: openai,
    access: key("audio"),
    plane: "public",
    limits: { bodyBytes: 512 * MIB, timeoutMs: 10 * MINUTE },
    form: { fields: 32, fieldBytes: 16 * KIB, file: "audio" },
    reply: failures,
    audit: "metadata",
    doc,
    handler: async ({ form }) => {
      // The answer is known at the first byte of the file, of which none is kept.
      await form(async () => deaf());
      return deaf();
    },
  });
}

export const transcriptions = audioRoute("/v1/audio/transcriptions", "Transcribe speech: 501 until a model can.");
export const translations = audioRoute(
  "/v1/audio/translations",
  "Translate speech into English: 501 until a model can.",
);

export const realtime = route({
  method: "GET",
  path: "/v1/realtime",
  dialect: openai,
  access: key("audio"),
  plane: "public",
  channel: true,
  limits: { timeoutMs: 60 * MINUTE },
  reply: [unauthenticated, ...failures.filter(({ status }) => [400, 403, 501].includes(status))],
  audit: "metadata",
  // Of models here no upgrade is taken: an answer to a request that asks for one ends its connection (http/_exchange.ts).
  doc: "Transcribe a stream of speech over a WebSocket, where a server behind this one does; 501, and no upgrade, else.",
  handler: deaf,
});
