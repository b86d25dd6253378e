/**
 * Which models are answered by what: --upstream in one line, or `models` of the config file. Read and judged, no socket.
 *
 * Invariants: a name belongs to one model; a key comes from a file that only its owner can read and is never printed; a
 * URL is one that upstream/place.ts takes. Callers: upstreams.ts; secrets.ts for the keys.
 */
import { createPrivateKey, X509Certificate } from "node:crypto";
import { z } from "zod";
import { Secret } from "#base/secret.ts";
import type { Settings } from "#config/settings.ts";
import type { UpstreamCredentials, UpstreamTls } from "#egress/upstream/dial.ts";
import { type UpstreamPlace, UpstreamPlaceError, upstreamPlace } from "#egress/upstream/place.ts";
import { readSecretFile } from "./secret-file.ts";
import { StartupError } from "./startup-error.ts";
import { PEM_CERTIFICATE, pemBlocks, readPrivate } from "./tls-files.ts";
import { TUNING_SHAPE, tuningOf, type UpstreamTuning } from "./upstream-tuning.ts";

export interface UpstreamSource {
  /** In metrics and logs. */
  readonly label: string;
  readonly weight: number;
  readonly place: UpstreamPlace;
}

export interface UpstreamModel {
  /** Undefined: what the upstreams say that they serve. */
  readonly name: string | undefined;
  readonly aliases: readonly string[];
  /** What the upstreams call it, where that is another name. */
  readonly upstreamModel: string | undefined;
  readonly sources: readonly UpstreamSource[];
  /** As they were read. */
  readonly credentials: UpstreamCredentials;
  readonly files: CredentialFiles;
  readonly tuning: UpstreamTuning;
}

/** Where credentials are read from, now or again. */
export interface CredentialFiles {
  readonly "key-file"?: string | undefined;
  readonly ca?: string | undefined;
  readonly cert?: string | undefined;
  readonly "cert-key"?: string | undefined;
  readonly "server-name"?: string | undefined;
  /** As it stands in messages. */
  readonly where: string;
}

export interface ModelPlan {
  /** Names of the model that the engine here answers; undefined: the settings say nothing about it. */
  readonly local: { readonly name: string; readonly aliases: readonly string[] } | undefined;
  readonly upstream: readonly UpstreamModel[];
}

export type UpstreamModelSettings = UpstreamTuning &
  Pick<
    Settings,
    | "upstream"
    | "models"
    | "servedModelName"
    | "upstreamModel"
    | "upstreamKeyFile"
    | "upstreamCa"
    | "upstreamCert"
    | "upstreamCertKey"
    | "upstreamServerName"
    | "upstreamPlainAnywhere"
  >;

const NAME = z
  .string()
  .min(1)
  .max(256)
  .regex(/^[\x21-\x7e]+$/, "is of visible ASCII characters");
const LABEL = z.string().regex(/^[a-z0-9][a-z0-9._-]{0,62}$/i, "is of letters, digits and ._-, at most 63");
const FILE = z.string().min(1);
const SOURCE = z.union([
  z.string(),
  z.strictObject({ url: z.string(), weight: z.number().positive().max(1000).optional(), label: LABEL.optional() }),
]);
const FILES = {
  "key-file": FILE.optional(),
  ca: FILE.optional(),
  cert: FILE.optional(),
  "cert-key": FILE.optional(),
  "server-name": z.string().min(1).max(253).optional(),
};
const MODEL = z.strictObject({
  name: NAME,
  aliases: z.array(NAME).max(64).optional(),
  backend: z.enum(["local", "upstreams"]).optional(),
  upstreams: z.array(SOURCE).min(1).max(256).optional(),
  "upstream-model": NAME.optional(),
  ...FILES,
  ...TUNING_SHAPE,
});
const MODELS = z.array(MODEL).min(1).max(256);

type Model = z.infer<typeof MODEL>;

/** The model that the engine here answers, as the settings name it; reads no file. @throws StartupError */
export function localModel({ models }: Pick<Settings, "models">): ModelPlan["local"] {
  const local =
    models === undefined ? undefined : parsedModels(models).find(({ upstreams }) => upstreams === undefined);
  return local === undefined ? undefined : { name: local.name, aliases: local.aliases ?? [] };
}

/** Reads the files that are named. @throws StartupError */
export function modelPlan(settings: UpstreamModelSettings): ModelPlan {
  const { upstream, models } = settings;
  if (models === undefined) return { local: undefined, upstream: upstream.length === 0 ? [] : [inOneLine(settings)] };
  if (upstream.length > 0) throw new StartupError("--upstream and models say the same thing: keep one of them");
  const entries = parsedModels(models);
  checkNames(entries);
  const plan = entries.map((entry, at) => ({ entry, where: `models.${at}` }));
  const local = plan.filter(({ entry }) => entry.upstreams === undefined);
  for (const { entry, where } of plan) checkBackend(entry, where);
  if (local.length > 1) throw new StartupError("models: one model at most is answered by the engine here");
  return {
    local: localModel(settings),
    upstream: plan
      .filter(({ entry }) => entry.upstreams !== undefined)
      .map(({ entry, where }) => fromEntry(entry, where, settings)),
  };
}

/** Of all models, so that they can be looked for in what is printed. @throws StartupError */
export function upstreamKeys(settings: UpstreamModelSettings): Secret[] {
  if (settings.upstream.length === 0 && settings.models === undefined) return [];
  return modelPlan(settings).upstream.flatMap(({ credentials: { key } }) => (key === undefined ? [] : [key]));
}

function parsedModels(models: unknown): readonly Model[] {
  const parsed = MODELS.safeParse(kebab(models, 4));
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw new StartupError(["models", ...(issue?.path ?? [])].join(".").concat(`: ${issue?.message}`));
}

/** `key_file` and `keyFile` as `key-file`, as the rest of the config file has it. */
function kebab(value: unknown, depth: number): unknown {
  if (depth === 0 || typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return value.map((item) => kebab(item, depth - 1));
  const name = (key: string): string => key.replace(/[A-Z]/g, (c) => `-${c.toLowerCase()}`).replaceAll("_", "-");
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [name(key), kebab(item, depth - 1)]));
}

function checkNames(entries: readonly Model[]): void {
  const seen = new Set<string>();
  for (const name of entries.flatMap(({ name, aliases = [] }) => [name, ...aliases])) {
    if (seen.has(name)) throw new StartupError(`models: the name ${name} stands twice`);
    seen.add(name);
  }
}

function checkBackend(entry: Model, where: string): void {
  if (entry.backend === "local" && entry.upstreams !== undefined)
    throw new StartupError(`${where}: backend local has no upstreams`);
  if (entry.upstreams !== undefined) return;
  if (entry.backend !== "local") throw new StartupError(`${where}: names no upstreams; or say backend: local`);
  const [extra] = (["upstream-model", ...Object.keys(FILES), ...Object.keys(TUNING_SHAPE)] as (keyof Model)[]).filter(
    (key) => entry[key] !== undefined,
  );
  if (extra !== undefined) throw new StartupError(`${where}.${extra}: backend local has none`);
}

function inOneLine(settings: UpstreamModelSettings): UpstreamModel {
  const [name, ...aliases] = settings.servedModelName;
  const sources = settings.upstream.map((url, at) => source(url, at, "--upstream", settings.upstreamPlainAnywhere));
  const files = {
    "key-file": settings.upstreamKeyFile,
    ca: settings.upstreamCa,
    cert: settings.upstreamCert,
    "cert-key": settings.upstreamCertKey,
    "server-name": settings.upstreamServerName,
    where: "--upstream",
  };
  const tuning = tuningOf({}, settings, "--upstream");
  return { name, aliases, upstreamModel: settings.upstreamModel, sources, ...secured(files, sources), tuning };
}

function fromEntry(entry: Model, where: string, settings: UpstreamModelSettings): UpstreamModel {
  const sources = (entry.upstreams ?? []).map((given, at) =>
    source(given, at, `${where}.upstreams.${at}`, settings.upstreamPlainAnywhere),
  );
  const labels = new Set(sources.map(({ label }) => label));
  if (labels.size < sources.length || sources.some((each) => isSlotOf(each, sources)))
    throw new StartupError(`${where}: two upstreams have one label`);
  const { name, aliases = [], "upstream-model": upstreamModel } = entry;
  const { "key-file": key, ca, cert, "cert-key": certKey, "server-name": serverName } = entry;
  const files = { "key-file": key, ca, cert, "cert-key": certKey, "server-name": serverName, where };
  const tuning = tuningOf(entry, settings, where);
  return { name, aliases, upstreamModel, sources, ...secured(files, sources), tuning };
}

/** Servers behind a name are labelled with it and a number. */
function isSlotOf({ label, place }: UpstreamSource, sources: readonly UpstreamSource[]): boolean {
  const [, name] = /^(.+)-\d+$/.exec(label) ?? [];
  const isName = (kind: UpstreamPlace["kind"]): boolean => kind === "addresses" || kind === "srv";
  return !isName(place.kind) && sources.some((other) => other.label === name && isName(other.place.kind));
}

function source(given: z.infer<typeof SOURCE>, at: number, where: string, plainAnywhere: boolean): UpstreamSource {
  const { url, weight = 1, label = `upstream-${at}` } = typeof given === "string" ? { url: given } : given;
  try {
    return { label, weight, place: upstreamPlace(url, plainAnywhere) };
  } catch (error) {
    // The URL is not repeated: a password may stand in it.
    if (error instanceof UpstreamPlaceError) throw new StartupError(`${where}: the URL ${error.message}`);
    throw error;
  }
}

function secured(
  files: CredentialFiles,
  sources: readonly UpstreamSource[],
): Pick<UpstreamModel, "credentials" | "files"> {
  const credentials = readCredentials(files);
  if (credentials.tls !== undefined && !sources.some(({ place }) => place.kind !== "unix" && place.secure))
    throw new StartupError(`${files.where}: names files for TLS, and no upstream is https`);
  return { credentials, files };
}

/** What is in the files now. @throws StartupError */
export function readCredentials(files: CredentialFiles): UpstreamCredentials {
  const tls = tlsOf(files);
  const key = keyOf(files["key-file"], files.where);
  return { ...(key === undefined ? {} : { key }), ...(tls === undefined ? {} : { tls }) };
}

function keyOf(path: string | undefined, where: string): Secret | undefined {
  if (path === undefined) return undefined;
  const text = readSecretFile(path, `${where}: the key file`).toString("utf8").trim();
  if (!/^[\x21-\x7e]{1,4096}$/.test(text)) throw new StartupError(`${where}: the key file holds no key in one line`);
  return new Secret(text);
}

function tlsOf({
  ca,
  cert,
  "cert-key": key,
  "server-name": serverName,
  where,
}: CredentialFiles): UpstreamTls | undefined {
  if ((cert === undefined) !== (key === undefined))
    throw new StartupError(`${where}: a certificate and its key are given together`);
  if (ca === undefined && cert === undefined && serverName === undefined) return undefined;
  return {
    ...(ca === undefined ? {} : { ca: pemBlocks(ca, PEM_CERTIFICATE, "certificate").join("\n") }),
    ...(cert === undefined || key === undefined ? {} : shown(cert, key, where)),
    ...(serverName === undefined ? {} : { serverName }),
  };
}

function shown(certificatePath: string, keyPath: string, where: string): Pick<UpstreamTls, "certificate" | "key"> {
  const chain = pemBlocks(certificatePath, PEM_CERTIFICATE, "certificate");
  const key = readPrivate(keyPath);
  try {
    if (new X509Certificate(chain[0] ?? "").checkPrivateKey(createPrivateKey(key)))
      return { certificate: chain.join("\n"), key: new Secret(key) };
  } catch {
    throw new StartupError(`${where}: the certificate or its key is damaged, or the key is encrypted`);
  }
  throw new StartupError(`${where}: the key in ${keyPath} does not belong to the certificate in ${certificatePath}`);
}
