/**
 * What profiles are made of and where they go: V8's sampling profiler of this process, and a folder of this user's own.
 *
 * The profiler is used in this process; no port is opened for it. No text of a regular expression gets into a profile. Called by operations.ts.
 */
import { constants } from "node:fs";
import { readdir } from "node:fs/promises";
import { type Profiler, Session } from "node:inspector/promises";
import { join } from "node:path";
import { Fault, invalid } from "#core/fault.ts";
import { ModelError } from "#integrity/model-error.ts";
import { openPrivate, privateDirectory } from "#integrity/private-directory.ts";
import type { CpuRecorder, ProfileFolder } from "#serving/profiles.ts";

const SAMPLE_MICROSECONDS = 1000;
/** Files of a folder at most; what is there is the operator's to remove. */
const MOST_FILES = 128;

export function cpuRecorder(): CpuRecorder {
  let session: Session | undefined;
  return {
    start: async () => {
      session = new Session();
      session.connect();
      await session.post("Profiler.enable");
      await session.post("Profiler.setSamplingInterval", { interval: SAMPLE_MICROSECONDS });
      await session.post("Profiler.start");
    },
    stop: async () => {
      if (session === undefined) throw new Error("no profile is being recorded");
      try {
        return withoutPatterns((await session.post("Profiler.stop")).profile);
      } finally {
        session.disconnect();
        session = undefined;
      }
    },
  };
}

/** What V8 calls the code of a regular expression, before its text. */
const EXPRESSION = "RegExp";

/** Wall: T91. An expression may be made of what somebody configured or sent: of its name only the kind is kept. */
function withoutPatterns(profile: Profiler.Profile): Profiler.Profile {
  const nodes = profile.nodes.map((node) =>
    node.callFrame.functionName.startsWith(`${EXPRESSION}:`)
      ? { ...node, callFrame: { ...node.callFrame, functionName: EXPRESSION } }
      : node,
  );
  return { ...profile, nodes };
}

export function profileFolder(path: string): ProfileFolder {
  return {
    ready: async () => {
      await usable(() => privateDirectory(path, true));
      const files = await usable(() => readdir(path));
      if (files.length > MOST_FILES - 2)
        throw invalid("profile", `The folder of profiles holds ${files.length} files: remove some.`);
    },
    write: async (name, text) => {
      const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL;
      const file = await usable(() => openPrivate(join(path, name), flags));
      try {
        await usable(() => file.writeFile(text));
      } finally {
        await file.close();
      }
    },
  };
}

/** @throws Fault invalid_request; the message names no path */
async function usable<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof ModelError) && (error as NodeJS.ErrnoException).code === undefined) throw error;
    const detail = error instanceof Error ? error.message : String(error);
    throw new Fault("invalid_request", "The folder of profiles cannot be used; the log says why.", {
      param: "profile",
      detail,
      cause: error,
    });
  }
}
