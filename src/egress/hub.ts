/**
 * A model hub: from a reference to one file of one commit with its digest, and that file's bytes.
 *
 * The API is spoken by @huggingface/hub over our own way out: it never sees the token, each answer is bounded
 * and read by the strict JSON reader before the library does, and what it returns is checked against schemas.
 * Invariants: a revision becomes a commit once, every later request names that commit; a file without a SHA-256
 * in the hub's metadata is refused (only files in large file storage have one, as every model of use does).
 * Callers: integrity/.
 */
import { listFiles, modelInfo, pathsInfo } from "@huggingface/hub";
import { z } from "zod";
import { JsonError, parseJson } from "#base/json.ts";
import type { Secret } from "#base/secret.ts";
import type { EgressObserver } from "./decision.ts";
import { Egress, type EgressTimeouts, type OutboundRequest, type OutboundResponse, readAll } from "./fetch.ts";
import { chooseFile, refuseSplit } from "./hub-choice.ts";
import { checkFilePath, checkRevision, HubError, type HubReference, isCommit, isGguf, isSha256 } from "./hub-names.ts";
import { EgressError, isLoopback } from "./policy.ts";

export const HUB_ENDPOINT = "https://huggingface.co";
/** Where the hub keeps its large files: its present transfer and CDN hosts, and the older ones by name. */
export const HUB_STORAGE_HOSTS = [
  "*.hf.co",
  "cdn-lfs.huggingface.co",
  "cdn-lfs-us-1.huggingface.co",
  "cdn-lfs-eu-1.huggingface.co",
] as const;

export interface HubOptions {
  /** https, or http on loopback; HUB_ENDPOINT unless said. */
  readonly endpoint?: string;
  readonly token?: Secret;
  /** Hosts that the endpoint may redirect to; HUB_STORAGE_HOSTS unless said. */
  readonly storageHosts?: readonly string[];
  readonly timeouts?: Partial<EgressTimeouts>;
  /** CIDR blocks to which nothing goes. */
  readonly refusedNetworks?: readonly string[];
  /** Told of each request. */
  readonly egress?: EgressObserver;
}

export interface HubFile {
  readonly org: string;
  readonly repo: string;
  /** 40 hexadecimal digits. */
  readonly commit: string;
  readonly path: string;
  /** Bytes. */
  readonly size: number;
  /** 64 hexadecimal digits. */
  readonly sha256: string;
}

const MAX_JSON_BYTES = 16 * 1024 * 1024;
const MAX_ERROR_BYTES = 64 * 1024;
const MAX_LISTED_FILES = 50_000;

const CommitAnswer = z.object({ sha: z.string().refine(isCommit) });
const PathAnswer = z.object({
  type: z.string(),
  path: z.string(),
  size: z.number().int().nonnegative(),
  lfs: z.object({ oid: z.string().refine(isSha256), size: z.number().int().positive() }).nullish(),
});

export class Hub {
  private readonly egress: Egress;
  private readonly endpoint: string;
  private readonly hasToken: boolean;

  /** @throws HubError bad_name when the endpoint is not an address that may be used. */
  constructor(options: HubOptions = {}) {
    const url = endpointUrl(options.endpoint ?? HUB_ENDPOINT);
    this.endpoint = url.href.replace(/\/+$/, "");
    this.hasToken = options.token !== undefined;
    const policy = {
      // A mirror is inside a network as a rule; what everybody uses is not.
      near: this.endpoint !== HUB_ENDPOINT,
      refusedNetworks: options.refusedNetworks ?? [],
      hosts: [url.host, ...(options.storageHosts ?? HUB_STORAGE_HOSTS)],
      plainLoopback: url.protocol === "http:",
      ...(options.token === undefined ? {} : { bearer: { origin: url.origin, token: options.token } }),
    };
    this.egress = new Egress(policy, options.timeouts, options.egress);
  }

  async close(): Promise<void> {
    await this.egress.close();
  }

  /** @throws HubError | EgressError */
  async resolve(reference: HubReference, revision: string, signal?: AbortSignal): Promise<HubFile> {
    checkRevision(revision);
    try {
      return await this.find(reference, revision, signal);
    } catch (error) {
      if (error instanceof HubError || error instanceof EgressError) throw error;
      // The library trips over an answer of another shape before our schemas see it.
      throw badAnswer("gave an answer of another form", error);
    }
  }

  private async find(reference: HubReference, revision: string, signal: AbortSignal | undefined): Promise<HubFile> {
    const name = `${reference.org}/${reference.repo}`;
    const common = { hubUrl: this.endpoint, fetch: this.apiFetch(name, signal) };
    const info = await modelInfo({ name, revision, additionalFields: ["sha"], ...common });
    const commit = checked(CommitAnswer, info).sha;
    const path = await this.choose(reference, commit, common);
    const [found] = await pathsInfo({ repo: { type: "model", name }, paths: [path], revision: commit, ...common });
    if (found === undefined)
      throw new HubError("not_found", `${name} has no file ${path} at commit ${commit.slice(0, 12)}`);
    const answer = checked(PathAnswer, found);
    if (answer.type !== "file" || answer.path !== path)
      throw badAnswer("described another file than the one asked for");
    if (answer.lfs === undefined || answer.lfs === null) {
      throw new HubError("no_digest", `the hub's metadata has no SHA-256 for ${path}, so it cannot be checked`);
    }
    return { org: reference.org, repo: reference.repo, commit, path, size: answer.lfs.size, sha256: answer.lfs.oid };
  }

  /**
   * Asks for the file's bytes from `offset` on. With an `etag` a changed file comes whole (RFC 9110, If-Range).
   * @returns an answer of status 200, 206 or 416; the caller checks which bytes it holds.
   * @throws HubError | EgressError
   */
  async open(
    file: HubFile,
    from: { offset: number; etag?: string | undefined },
    signal?: AbortSignal,
  ): Promise<OutboundResponse> {
    const headers: Record<string, string> = {};
    if (from.offset > 0) headers["range"] = `bytes=${from.offset}-`;
    if (from.offset > 0 && from.etag !== undefined) headers["if-range"] = from.etag;
    const path = file.path.split("/").map(encodeURIComponent).join("/");
    const address = `${this.endpoint}/${file.org}/${file.repo}/resolve/${file.commit}/${path}`;
    const response = await this.egress.fetch(address, { headers, ...(signal === undefined ? {} : { signal }) });
    if ([200, 206, 416].includes(response.status)) return response;
    throw await this.failure(response, `${file.org}/${file.repo}`);
  }

  private async choose(reference: HubReference, commit: string, common: Api): Promise<string> {
    const { selector } = reference;
    if (selector !== undefined && isGguf(selector)) {
      checkFilePath(selector);
      refuseSplit(selector);
      return selector;
    }
    const repo = { type: "model", name: `${reference.org}/${reference.repo}` } as const;
    const paths: string[] = [];
    for await (const entry of listFiles({ repo, recursive: true, revision: commit, ...common })) {
      if (typeof entry?.path !== "string") throw badAnswer("listed something that is not a file");
      if (entry.type === "file") paths.push(entry.path);
      if (paths.length > MAX_LISTED_FILES) throw badAnswer(`lists more than ${MAX_LISTED_FILES} files`);
    }
    return chooseFile(paths, selector);
  }

  /** A fetch for the library: bounded, strict, and failures told in our words. At most 100 requests (pages). */
  private apiFetch(name: string, signal: AbortSignal | undefined): typeof fetch {
    let left = 100;
    return async (input, init) => {
      if (--left < 0) throw badAnswer("answers in too many pages");
      const response = await this.egress.fetch(String(input), apiRequest(init, signal));
      if (response.status !== 200) throw await this.failure(response, name);
      const body = await readAll(response, MAX_JSON_BYTES);
      try {
        parseJson(body);
      } catch (error) {
        if (error instanceof JsonError)
          throw badAnswer(`answered with something that is not JSON: ${error.message}`, error);
        throw error;
      }
      const link = response.headers.get("link");
      return new Response(body as Uint8Array<ArrayBuffer>, { headers: link === undefined ? {} : { link } });
    };
  }

  /** The hub's X-Error-Code says more than the status (huggingface_hub, hf_raise_for_status). */
  private async failure(response: OutboundResponse, name: string): Promise<HubError> {
    const { status } = response;
    const code = response.headers.get("x-error-code") ?? "";
    const said = await reason(response);
    if (code === "GatedRepo")
      return new HubError("unauthorized", `${name} is gated: ${this.tokenAdvice("accept its terms on the hub")}`);
    if (code === "RevisionNotFound") return new HubError("not_found", `${name} has no such revision`);
    if (code === "EntryNotFound") return new HubError("not_found", `${name} has no such file at this commit`);
    if (status === 401 || status === 403) {
      return new HubError(
        "unauthorized",
        `the hub refuses ${name}, which is private, gated, or not there: ${this.tokenAdvice("ask its owner for access")}`,
      );
    }
    if (status === 404) return new HubError("not_found", `the hub has no model ${name}`);
    const later = status === 429 || status >= 500;
    return new HubError(later ? "unavailable" : "bad_answer", `the hub answered ${status}${said}`);
  }

  private tokenAdvice(otherwise: string): string {
    return this.hasToken ? `the token given may not read it; ${otherwise}` : "a token is needed (HF_TOKEN)";
  }
}

interface Api {
  readonly hubUrl: string;
  readonly fetch: typeof fetch;
}

function apiRequest(init: RequestInit | undefined, signal: AbortSignal | undefined): OutboundRequest {
  const body = typeof init?.body === "string" ? init.body : undefined;
  return {
    method: init?.method === "POST" ? "POST" : "GET",
    headers: { accept: "application/json", ...(body === undefined ? {} : { "content-type": "application/json" }) },
    ...(body === undefined ? {} : { body }),
    ...(signal === undefined ? {} : { signal }),
  };
}

function endpointUrl(text: string): URL {
  const url = URL.parse(text);
  const usable = url !== null && url.username === "" && url.password === "" && url.search === "" && url.hash === "";
  if (!usable) throw new HubError("bad_name", "the hub's endpoint is not a URL of the form https://host");
  if (url.protocol !== "https:" && !(url.protocol === "http:" && isLoopback(url.hostname))) {
    throw new HubError("bad_name", "the hub's endpoint must be https (http is for loopback only)");
  }
  return url;
}

function checked<T extends z.ZodType>(schema: T, value: unknown): z.infer<T> {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  throw badAnswer(
    `gave metadata of another form: ${result.error.issues
      .map((issue) => issue.path.join("."))
      .join(", ")
      .slice(0, 200)}`,
  );
}

/** A short, printable line of the hub's own; nothing when it sent a page or nonsense. */
async function reason(response: OutboundResponse): Promise<string> {
  try {
    if (!(response.headers.get("content-type") ?? "").startsWith("application/json")) return "";
    const answer = z.object({ error: z.string() }).safeParse(parseJson(await readAll(response, MAX_ERROR_BYTES)));
    return answer.success ? `: ${answer.data.error.replace(/\P{ASCII}|\p{Cc}/gu, " ").slice(0, 200)}` : "";
  } catch (error) {
    if (error instanceof JsonError || error instanceof EgressError) return "";
    throw error;
  } finally {
    response.close();
  }
}

function badAnswer(what: string, cause?: unknown): HubError {
  return new HubError("bad_answer", `the hub ${what}`, cause);
}
