/**
 * The rows of the settings table about files and batches. Part of settings.ts, which alone reads it.
 */
import { bytes, integer } from "./kinds.ts";

const BATCHES = "Files and batches";
const MIB = 1024 ** 2;
const GIB = 1024 ** 3;

export const BATCH_SETTINGS = {
  batchConcurrency: integer(8, [1, 4096], {
    section: BATCHES,
    doc: "Lines of batches at once, of all of them together; they wait behind what somebody waits for.",
  }),
  batchTenantBytes: bytes(256 * MIB, [MIB, 1024 * GIB], {
    section: BATCHES,
    doc: "Files of a tenant together at most, uploaded and written; also a batch's answers while it runs.",
  }),
  batchBytes: bytes(2 * GIB, [MIB, 100_000 * GIB], { section: BATCHES, doc: "Files of all tenants together at most." }),
  batchKeepDays: integer(30, [1, 3650], { section: BATCHES, doc: "Files and batches that are over go after so long." }),
} as const;
