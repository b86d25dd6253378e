/**
 * Bodies of the small service routes: /version, /load.
 */
import { z } from "zod";

export const VersionReply = z.object({ version: z.string() });
export const LoadReply = z.object({ server_load: z.int().nonnegative() });
