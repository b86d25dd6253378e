/**
 * The input of a batch from a URL, and its output to one: https, to hosts that --batch-url-hosts names, through the guard.
 *
 * Invariants: the run itself works on files of this machine, private to its user; what is uploaded is whole, or nothing is;
 * what a URL has behind its path (signatures) is in no message and no record. Called by run-batch.ts.
 */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, mkdtemp, open, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createLog } from "#base/log.ts";
import { createRedact } from "#base/redact.ts";
import type { Settings } from "#config/settings.ts";
import { decided, type EgressObserver } from "#egress/decision.ts";
import { type GuardOptions, guardedExchange } from "#egress/guarded-fetch.ts";
import { EgressError } from "#egress/policy.ts";
import { checkEgress, egressRecords } from "./egress.ts";
import { givenSecrets } from "./secrets.ts";
import { StartupError } from "./startup-error.ts";

export interface BatchPlaces {
  readonly input: string;
  readonly output: string;
  /** --output-tmp-dir: where files are that are fetched or to be put; one of this run's unless said. */
  readonly folder: string | undefined;
}

export interface LocalPlaces {
  readonly input: string;
  readonly output: string;
  /** Puts the output where it belongs. @throws StartupError: the rows are kept, and it says where */
  deliver(): Promise<void>;
  /** Takes away what no later run goes on with. */
  clean(): Promise<void>;
}

/** For tests: over what the rest says. */
type Loosened = Partial<Pick<GuardOptions, "ca" | "resolve" | "loopback">>;

const MINUTE = 60_000;
const DEADLINE_MS = 60 * MINUTE;
const IDLE_MS = MINUTE;
const MAX_URL = 8192;
/** Of what a server answers to an upload. */
const MAX_ANSWER = 64 * 1024;
const IS_URL = /^[a-z][a-z0-9+.-]*:\/\//i;

export function isUrl(place: string): boolean {
  return IS_URL.test(place);
}

/** A place as it may be shown. */
export function shownPlace(place: string): string {
  return isUrl(place) ? (place.split(/[?#]/)[0] ?? "") : place;
}

/** @throws StartupError */
export async function localPlaces(
  { input, output, folder: named }: BatchPlaces,
  settings: Settings,
  loosened: Loosened = {},
): Promise<LocalPlaces> {
  checkEgress(settings);
  const folder = await ownFolder(named);
  const observer = egressRecords(createLog(settings.logLevel, createRedact(givenSecrets(settings))));
  const transfer = new Transfer(settings, observer, loosened);
  const local = {
    input: isUrl(input) ? join(folder, fileName("input", input)) : input,
    output: isUrl(output) ? join(folder, fileName("output", output)) : output,
  };
  let state: "open" | "delivered" | "undeliverable" = "open";
  const clean = async (): Promise<void> => {
    if (local.input !== input) await rm(local.input, { force: true });
    if (local.output !== output && state === "delivered") await rm(local.output, { force: true });
    if (named === undefined && state !== "undeliverable") await rm(folder, { recursive: true, force: true });
  };
  const deliver = async (): Promise<void> => {
    state = "undeliverable";
    if (local.output !== output) await transfer.put(local.output, output);
    state = "delivered";
  };
  try {
    if (local.input !== input) await transfer.get(input, local.input);
  } catch (error) {
    await clean();
    throw error;
  }
  return { ...local, deliver, clean };
}

/** The same for the same place at every run, so that a run goes on where one was broken off. */
function fileName(what: "input" | "output", url: string): string {
  return `${what}-${createHash("sha256").update(shownPlace(url)).digest("hex").slice(0, 16)}.jsonl`;
}

async function ownFolder(named: string | undefined): Promise<string> {
  try {
    if (named === undefined) return await mkdtemp(join(tmpdir(), "castellan-batch-"));
    await mkdir(named, { recursive: true, mode: 0o700 });
    return named;
  } catch (error) {
    throw new StartupError(
      `${named ?? tmpdir()} cannot hold files (${(error as NodeJS.ErrnoException).code ?? "error"})`,
    );
  }
}

class Transfer {
  readonly #settings: Settings;
  readonly #observer: EgressObserver;
  readonly #loosened: Loosened;

  constructor(settings: Settings, observer: EgressObserver, loosened: Loosened) {
    this.#settings = settings;
    this.#observer = observer;
    this.#loosened = loosened;
  }

  /** @throws StartupError */
  async get(url: string, path: string): Promise<void> {
    await this.#stated(url, "fetched", () =>
      decided({ kind: "batch-input" }, this.#observer, async (trace) => {
        const file = await open(path, "w", 0o600);
        try {
          const options = { ...this.#options(this.#settings.batchBytes), trace };
          const sink = async (chunk: Buffer): Promise<void> => void (await file.appendFile(chunk));
          succeeded(await guardedExchange(url, options, { method: "GET" }, sink), [200]);
        } finally {
          await file.close();
        }
      }),
    );
  }

  /** @throws StartupError */
  async put(path: string, url: string): Promise<void> {
    const { size } = await stat(path);
    const outbound = {
      method: "PUT",
      type: "application/jsonl",
      bytes: size,
      body: () => createReadStream(path),
    } as const;
    await this.#stated(url, `put; its rows are in ${path}`, () =>
      decided({ kind: "batch-output" }, this.#observer, async (trace) => {
        const options = { ...this.#options(MAX_ANSWER), trace };
        succeeded(await guardedExchange(url, options, outbound, () => {}), [200, 201, 202, 204]);
      }),
    );
  }

  #options(maxBytes: number): GuardOptions {
    const { batchUrlHosts, egressRefusedNetworks } = this.#settings;
    return {
      hosts: batchUrlHosts,
      refusedNetworks: egressRefusedNetworks,
      deadlineMs: DEADLINE_MS,
      idleMs: IDLE_MS,
      maxBytes,
      maxUrlLength: MAX_URL,
      accept: "application/jsonl, */*;q=0.5",
      ...this.#loosened,
    };
  }

  async #stated(url: string, what: string, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      if (!(error instanceof EgressError)) throw error;
      const hint = error.rule === 3 ? " (--batch-url-hosts names those that may be)" : "";
      throw new StartupError(`${shownPlace(url)} cannot be ${what}: ${error.message}${hint}`);
    }
  }
}

function succeeded({ status }: { readonly status: number }, good: readonly number[]): void {
  if (!good.includes(status)) throw new EgressError("protocol", `the server answers ${status}`, undefined, 8);
}
