/**
 * A model from a hub, on disk and checked: the one call that joins hub, download and cache.
 *
 * Invariants: the path that comes back names bytes whose SHA-256 was computed in this call and equals the hub's
 * (or, without network, what the hub said when they were stored); two processes that want one file download it
 * once. A commit with a file name that is in the cache needs no network at all.
 * Callers: app.
 */

import type { Secret } from "#base/secret.ts";
import type { EgressObserver } from "#egress/decision.ts";
import type { EgressTimeouts } from "#egress/fetch.ts";
import { HUB_ENDPOINT, Hub, type HubFile } from "#egress/hub.ts";
import { checkRevision, HubError, type HubReference, isCommit, isGguf } from "#egress/hub-names.ts";
import { EgressError } from "#egress/policy.ts";
import { type CachePlace, ModelCache, type Provenance } from "./cache.ts";
import { download } from "./download.ts";
import { withLock } from "./lock.ts";
import { ModelError, toModelError } from "./model-error.ts";

export interface ModelProgress {
  /** `verify`: bytes on disk are hashed · `download`: bytes come in. */
  readonly phase: "verify" | "download";
  /** The file's path in its repository. */
  readonly file: string;
  /** Bytes. */
  readonly done: number;
  readonly total: number;
}

export interface FetchModelOptions {
  /** Made with mode 0700 when it is not there; refused when others may write to it. */
  readonly cacheDir: string;
  /** https, or http on loopback. HUB_ENDPOINT unless said. */
  readonly endpoint?: string;
  readonly token?: Secret;
  /** A branch, a tag or a commit (40 digits: pinned for good); `main` unless said. */
  readonly revision?: string;
  /** Use the cache alone. */
  readonly offline?: boolean;
  /** Hosts the endpoint may redirect downloads to; the public hub's own unless said. */
  readonly storageHosts?: readonly string[];
  /** CIDR blocks to which nothing goes. */
  readonly refusedNetworks?: readonly string[];
  readonly onProgress?: (progress: ModelProgress) => void;
  readonly onWarning?: (message: string) => void;
  readonly egress?: EgressObserver;
  readonly signal?: AbortSignal;
  readonly timeouts?: Partial<EgressTimeouts>;
  /** First pause before a broken download goes on; milliseconds. */
  readonly retryDelayMs?: number;
}

export interface FetchedModel {
  readonly path: string;
  readonly commit: string;
  readonly sha256: string;
  readonly bytes: number;
  readonly fromCache: boolean;
}

/** @throws ModelError, and nothing else unless there is a bug. */
export async function fetchModel(reference: HubReference, options: FetchModelOptions): Promise<FetchedModel> {
  let hub: Hub | undefined;
  try {
    const revision = options.revision ?? "main";
    checkRevision(revision);
    const endpoint = (options.endpoint ?? HUB_ENDPOINT).replace(/\/+$/, "");
    hub = new Hub({ ...options, endpoint });
    return await new Fetch(hub, await ModelCache.open(options.cacheDir), reference, endpoint, revision, options).run();
  } catch (error) {
    throw toModelError(error);
  } finally {
    await hub?.close();
  }
}

/** One call of fetchModel. */
class Fetch {
  private readonly hub: Hub;
  private readonly cache: ModelCache;
  private readonly reference: HubReference;
  private readonly endpoint: string;
  private readonly revision: string;
  private readonly options: FetchModelOptions;

  constructor(
    hub: Hub,
    cache: ModelCache,
    reference: HubReference,
    endpoint: string,
    revision: string,
    options: FetchModelOptions,
  ) {
    this.hub = hub;
    this.cache = cache;
    this.reference = reference;
    this.endpoint = endpoint;
    this.revision = revision;
    this.options = options;
  }

  async run(): Promise<FetchedModel> {
    const known = await this.pinned();
    if (known !== undefined) {
      const place = await this.cache.place(known.file);
      if ((await this.verified(place, known.file)) === "good") return present(place, known.file, true);
    }
    const { file, fresh } = await this.locate();
    const place = await this.cache.place(file);
    const state = await this.verified(place, file);
    if (state === "good") {
      if (fresh) await this.cache.writeManifest(place, { endpoint: this.endpoint, file });
      return present(place, file, true);
    }
    // What is to be written must be what the hub says now, not what we once noted.
    return this.store(fresh ? file : await this.ask(state));
  }

  /** A commit and a file name that were stored before from this endpoint. */
  private async pinned(): Promise<Provenance | undefined> {
    const { org, repo, selector } = this.reference;
    if (!isCommit(this.revision) || selector === undefined || !isGguf(selector)) return undefined;
    const place = await this.cache.place({ org, repo, commit: this.revision, path: selector });
    const found = await this.cache.manifest(place);
    const same =
      found?.endpoint === this.endpoint && found.file.path === selector && found.file.commit === this.revision;
    return same && this.isAsked(found) ? found : undefined;
  }

  private async locate(): Promise<{ file: HubFile; fresh: boolean }> {
    if (this.options.offline === true) return { file: (await this.recall()).file, fresh: false };
    try {
      return { file: await this.resolve(), fresh: true };
    } catch (error) {
      if (!isUnreachable(error)) throw error;
      const last = await this.cache.recall(this.key(), this.reference);
      if (last === undefined || !this.isAsked(last)) throw error;
      const commit = last.file.commit.slice(0, 12);
      this.options.onWarning?.(
        `the hub cannot be reached (${error.message}); using ${this.revision} as it was last seen, commit ${commit}`,
      );
      return { file: last.file, fresh: false };
    }
  }

  private async recall(): Promise<Provenance> {
    const last = await this.cache.recall(this.key(), this.reference);
    if (last !== undefined && this.isAsked(last)) return last;
    throw this.offline("it was never resolved with network");
  }

  private async resolve(): Promise<HubFile> {
    const file = await this.hub.resolve(this.reference, this.revision, this.options.signal);
    await this.cache.remember(this.key(), { endpoint: this.endpoint, file });
    return file;
  }

  private async ask(state: "absent" | "changed"): Promise<HubFile> {
    if (this.options.offline !== true) return this.resolve();
    if (state === "absent") throw this.offline("its file is not in the cache");
    throw new ModelError(
      "digest",
      "the file in the cache is not the one that was stored; it cannot be replaced offline",
    );
  }

  private async store(file: HubFile): Promise<FetchedModel> {
    const place = await this.cache.place(file);
    const { signal, onWarning, retryDelayMs } = this.options;
    const onWait = (): void => onWarning?.(`another process is downloading ${file.path}; waiting for it`);
    return withLock(place.lock, { signal, onWait }, async (lost) => {
      const state = await this.verified(place, file);
      if (state === "good") return present(place, file, true);
      if (state === "changed")
        onWarning?.(`${file.path} in the cache does not have the hub's SHA-256; downloading it anew`);
      await this.cache.drop(place);
      await download(this.hub, file, place, {
        signal: signal === undefined ? lost : AbortSignal.any([signal, lost]),
        onBytes: this.reporter("download", file),
        ...(retryDelayMs === undefined ? {} : { retryDelayMs }),
      });
      await this.cache.writeManifest(place, { endpoint: this.endpoint, file });
      return present(place, file, false);
    });
  }

  private verified(place: CachePlace, file: HubFile): Promise<"absent" | "good" | "changed"> {
    return this.cache.check(place, file, { onBytes: this.reporter("verify", file), signal: this.options.signal });
  }

  private reporter(phase: ModelProgress["phase"], file: HubFile): (done: number) => void {
    return (done) => this.options.onProgress?.({ phase, file: file.path, done, total: file.size });
  }

  /** Names what was asked for, whole: another hub or another revision has another key. */
  private key(): string {
    const { org, repo, selector } = this.reference;
    return [this.endpoint, org, repo, this.revision, selector ?? ""].join("\n");
  }

  private isAsked(found: Provenance): boolean {
    return found.file.org === this.reference.org && found.file.repo === this.reference.repo;
  }

  private offline(why: string): ModelError {
    return new ModelError("offline", `${this.reference.org}/${this.reference.repo} cannot be had offline: ${why}`);
  }
}

function isUnreachable(error: unknown): error is EgressError | HubError {
  return (
    (error instanceof EgressError && error.transient) || (error instanceof HubError && error.code === "unavailable")
  );
}

function present(place: CachePlace, file: HubFile, fromCache: boolean): FetchedModel {
  return { path: place.file, commit: file.commit, sha256: file.sha256, bytes: file.size, fromCache };
}
