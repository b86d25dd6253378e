/**
 * The model cache: where files lie, what is known of them, whether they still are what they were.
 *
 *   <root>/models/<org>--<repo>/<commit>/<path>            the file, mode 0600
 *                                       <path>.json         its manifest
 *                                       <path>.partial      a download under way; .partial.json its ETag
 *                                       <path>.lock         held while it is written
 *   <root>/models/<org>--<repo>/resolved/<hash>.json        what a reference led to the last time
 *
 * Invariants: every directory from `models` down is ours alone (0700); a name that stands in a path passed
 * hub-names; a file counts as present only after its whole digest was computed anew. There is no short cut by
 * size and time: whoever can change the bytes can set those.
 * Callers: hub-model.ts, download.ts.
 */
import { createHash, randomUUID } from "node:crypto";
import { constants } from "node:fs";
import { readFile, rename, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { z } from "zod";
import { JsonError, parseJson, stringifyJson } from "#base/json.ts";
import type { HubFile } from "#egress/hub.ts";
import { checkFilePath, isCommit, isSha256 } from "#egress/hub-names.ts";
import { type DigestOptions, sha256OfFile } from "./digest.ts";
import { systemCode } from "./model-error.ts";
import { openPrivate, privateDirectory } from "./private-directory.ts";

/** Paths of one file's things. Their directories exist and were checked. */
export interface CachePlace {
  readonly file: string;
  readonly manifest: string;
  readonly partial: string;
  readonly partialTag: string;
  readonly lock: string;
}

/** Where a file came from: the endpoint's URL, and what the hub said of the file. */
export interface Provenance {
  readonly endpoint: string;
  readonly file: HubFile;
}

const Described = z.object({
  endpoint: z.string(),
  file: z.object({
    org: z.string(),
    repo: z.string(),
    commit: z.string().refine(isCommit),
    path: z.string(),
    size: z.number().int().positive(),
    sha256: z.string().refine(isSha256),
  }),
});

export class ModelCache {
  private readonly models: string;

  private constructor(models: string) {
    this.models = models;
  }

  /** @throws ModelError directory */
  static async open(root: string): Promise<ModelCache> {
    await privateDirectory(root, false);
    const models = join(root, "models");
    await privateDirectory(models, true);
    return new ModelCache(models);
  }

  /** Makes and checks the directories on the way. @throws ModelError directory, HubError bad_name */
  async place(file: Pick<HubFile, "org" | "repo" | "commit" | "path">): Promise<CachePlace> {
    checkFilePath(file.path);
    let directory = this.models;
    const segments = [`${file.org}--${file.repo}`, file.commit, ...file.path.split("/")];
    for (const segment of segments.slice(0, -1)) {
      directory = join(directory, segment);
      await privateDirectory(directory, true);
    }
    const path = join(directory, segments.at(-1) ?? "");
    return {
      file: path,
      manifest: `${path}.json`,
      partial: `${path}.partial`,
      partialTag: `${path}.partial.json`,
      lock: `${path}.lock`,
    };
  }

  /** Computes the digest of what lies there. */
  async check(place: CachePlace, file: HubFile, options: DigestOptions = {}): Promise<"absent" | "good" | "changed"> {
    try {
      await using handle = await openPrivate(place.file, constants.O_RDONLY);
      if ((await handle.stat()).size !== file.size) return "changed";
      return (await sha256OfFile(handle, options)).sha256 === file.sha256 ? "good" : "changed";
    } catch (error) {
      if (systemCode(error) === "ENOENT") return "absent";
      throw error;
    }
  }

  /** Removes the file and what is known of it. */
  async drop(place: CachePlace): Promise<void> {
    for (const path of [place.file, place.manifest]) await rm(path, { force: true });
  }

  /** What was known when the file was stored; undefined when there is none that can be read. */
  async manifest(place: CachePlace): Promise<Provenance | undefined> {
    return readDescribed(place.manifest);
  }

  async writeManifest(place: CachePlace, provenance: Provenance): Promise<void> {
    await writeWhole(place.manifest, provenance);
  }

  /** Keeps what `reference` led to, for a start without network. @param reference any text that names it whole */
  async remember(reference: string, provenance: Provenance): Promise<void> {
    await writeWhole(await this.resolvedPath(reference, provenance.file), provenance);
  }

  async recall(reference: string, model: { org: string; repo: string }): Promise<Provenance | undefined> {
    return readDescribed(await this.resolvedPath(reference, model));
  }

  private async resolvedPath(reference: string, { org, repo }: { org: string; repo: string }): Promise<string> {
    const directory = join(this.models, `${org}--${repo}`, "resolved");
    await privateDirectory(dirname(directory), true);
    await privateDirectory(directory, true);
    return join(directory, `${createHash("sha256").update(reference).digest("hex").slice(0, 32)}.json`);
  }
}

/** Readers see the old text or the new one, never half of it. */
export async function writeWhole(path: string, value: unknown): Promise<void> {
  const fresh = `${path}.${randomUUID()}`;
  await writeFile(fresh, `${stringifyJson(value)}\n`, { flag: "wx", mode: 0o600 });
  await rename(fresh, path);
}

/** A small JSON file of ours against a schema; undefined when it is absent or spoilt. */
export async function readWhole<T extends z.ZodType>(path: string, schema: T): Promise<z.infer<T> | undefined> {
  try {
    const result = schema.safeParse(parseJson(await readFile(path)));
    return result.success ? result.data : undefined;
  } catch (error) {
    if (error instanceof JsonError || systemCode(error) === "ENOENT") return undefined;
    throw error;
  }
}

async function readDescribed(path: string): Promise<Provenance | undefined> {
  return readWhole(path, Described);
}
