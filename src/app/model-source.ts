/**
 * From the name of a model to a GGUF on disk whose header was read and judged.
 */
import { readFileSync } from "node:fs";
import { basename, resolve } from "node:path";
import { Secret } from "#base/secret.ts";
import type { Environment } from "#config/environment.ts";
import type { Settings } from "#config/settings.ts";
import type { EgressObserver } from "#egress/decision.ts";
import { HubError, type HubReference } from "#egress/hub-names.ts";
import { GgufError } from "#engine/gguf/errors.ts";
import { type ModelFacts, modelFacts } from "#engine/gguf/facts.ts";
import { readGgufHeader } from "#engine/gguf/header.ts";
import type { ModelProgress } from "#integrity/hub-model.ts";
import { ModelError } from "#integrity/model-error.ts";
import { parseModelReference } from "#integrity/model-reference.ts";
import { cacheDirectory, DEMO_MODEL } from "./paths.ts";
import { StartupError } from "./startup-error.ts";

export interface ModelSource {
  readonly path: string;
  /** What it is called when --served-model-name says nothing. */
  readonly name: string;
  readonly facts: ModelFacts;
  /** For people: which commit, which digest. */
  readonly origin: string;
}

export interface SourceEvents {
  /** Told of what the hub is asked. */
  readonly egress?: EgressObserver;
  readonly onProgress: (progress: ModelProgress) => void;
  readonly onWarning: (message: string) => void;
}

/** @throws StartupError, one line that says what is wrong with which model */
export async function findModel(
  named: string | undefined,
  settings: Settings,
  env: Environment,
  events: SourceEvents,
): Promise<ModelSource> {
  const reference = referenceOf(named);
  if (reference.kind === "hub") return fromHub(reference, settings, env, events);
  if (reference.kind === "demo")
    return {
      path: DEMO_MODEL,
      name: "castellan-demo",
      facts: judged(DEMO_MODEL, "the demo model"),
      origin: "built in",
    };
  const path = resolve(reference.path);
  return {
    path,
    name: basename(path).replace(/\.gguf$/i, ""),
    facts: judged(path, reference.path),
    origin: "local file",
  };
}

/** Whether it is on a hub; what is no name at all is said by findModel. */
export function namesHub(named: string | undefined): boolean {
  return named?.startsWith("hf:") === true;
}

function referenceOf(named: string | undefined): ReturnType<typeof parseModelReference> {
  try {
    return parseModelReference(named);
  } catch (error) {
    if (error instanceof HubError) throw new StartupError(error.message);
    throw error;
  }
}

async function fromHub(
  reference: HubReference,
  settings: Settings,
  env: Environment,
  events: SourceEvents,
): Promise<ModelSource> {
  const { fetchModel } = await import("#integrity/hub-model.ts");
  try {
    const model = await fetchModel(reference, {
      cacheDir: cacheDirectory(settings.downloadDir, env),
      endpoint: settings.hfEndpoint,
      refusedNetworks: settings.egressRefusedNetworks,
      ...(settings.hfToken === undefined ? {} : { token: new Secret(settings.hfToken) }),
      ...(settings.revision === undefined ? {} : { revision: settings.revision }),
      ...(settings.hfStorageHosts.length > 0 ? { storageHosts: settings.hfStorageHosts } : {}),
      offline: settings.offline,
      ...events,
    });
    const name = `${reference.org}/${reference.repo}`;
    return {
      path: model.path,
      name,
      facts: judged(model.path, name),
      origin: `commit ${model.commit}, sha256 ${model.sha256}`,
    };
  } catch (error) {
    if (!(error instanceof ModelError)) throw error;
    const hint = error.code === "forbidden" ? " (--hf-storage-hosts names the hosts of a hub of your own)" : "";
    throw new StartupError(`${reference.org}/${reference.repo}: ${error.message}${hint}`);
  }
}

function judged(path: string, shown: string): ModelFacts {
  try {
    return modelFacts(readGgufHeader(path));
  } catch (error) {
    if (error instanceof GgufError) throw new StartupError(`${shown}: ${error.message}`);
    const code = (error as NodeJS.ErrnoException).code;
    if (code === "ENOENT") throw new StartupError(`${shown}: there is no such file`);
    if (code !== undefined) throw new StartupError(`${shown} cannot be read (${code})`);
    throw error;
  }
}

/** Whether a file may take the place of a model that is served. @throws StartupError; names no path */
export function checkWeights(path: string, served: ModelFacts): void {
  const facts = judged(path, "the file");
  const other = (["architecture", "parameters", "vocabularySize", "kvBytesPerToken"] as const).find(
    (fact) => facts[fact] !== served[fact],
  );
  if (other !== undefined) throw new StartupError(`the file: ${other} is ${facts[other]}, not ${served[other]}`);
}

/** --chat-template: Jinja text, or the file that holds it. Text is told by its braces. */
export function chatTemplateText(setting: string | undefined): string | undefined {
  if (setting === undefined || setting.includes("{{") || setting.includes("{%")) return setting;
  try {
    return readFileSync(setting, "utf8");
  } catch (error) {
    throw new StartupError(
      `--chat-template ${setting} cannot be read (${(error as NodeJS.ErrnoException).code ?? "error"})`,
    );
  }
}
