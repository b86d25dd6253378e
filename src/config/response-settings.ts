/**
 * The rows of the settings table that are about stored responses. Spread into SETTINGS, under its rules.
 */
import { bytes, choice, integer, seconds, switched } from "./kinds.ts";

const MIB = 1024 * 1024;
const GIB = 1024 * MIB;
const section = "Responses";

export const RESPONSE_SETTINGS = {
  responsesStore: switched(false, {
    section,
    doc: "Keep responses of /v1/responses in the database, to be read, continued and worked on in the background.",
    loosens: "what is said and answered is kept in the database",
    variables: ["VLLM_ENABLE_RESPONSES_API_STORE"],
  }),
  responsesReasoningEvents: choice("openai", ["openai", "vllm"], {
    section,
    doc: "Events around reasoning in streams of /v1/responses: content_part, or vLLM's reasoning_part.",
  }),
  responsesKeepDays: integer(30, [1, 3650], { section, doc: "Days after which a stored response goes." }),
  maxResponses: integer(100_000, [1, 100_000_000], {
    section,
    doc: "Stored responses of all tenants; over it the oldest goes of the tenant that has most.",
  }),
  maxResponsesOfTenant: integer(10_000, [1, 100_000_000], {
    section,
    doc: "Stored responses of a tenant; over it its oldest goes.",
  }),
  maxResponseBytes: bytes(4 * GIB, [16 * MIB, 65_536 * GIB], {
    section,
    doc: "Size of the stored responses of all tenants, as --max-responses.",
  }),
  maxResponseBytesOfTenant: bytes(512 * MIB, [16 * MIB, 65_536 * GIB], {
    section,
    doc: "Size of the stored responses of a tenant.",
  }),
  maxBackgroundResponses: integer(64, [0, 100_000], {
    section,
    doc: "Background responses that this server works on at once.",
  }),
  maxBackgroundResponsesOfTenant: integer(8, [0, 100_000], {
    section,
    doc: "Background responses of a tenant that this server works on at once.",
  }),
  backgroundTimeout: seconds(3600, [1, 604_800], { section, doc: "Until a background response has to be complete." }),
} as const;
