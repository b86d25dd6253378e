/**
 * The LoRA adapters that are served: loaded under a name, found like a model, unloaded when nobody needs them.
 *
 * Invariants: a name belongs to one adapter or model of its owner; what a tenant loads exists for that tenant alone (Wall: T51)
 * and takes no name of the server's; a tenant has so many at most, and loads one at a time (Wall: T101); a number is
 * never used again, so a request keeps the adapter it
 * began with; two contents never share a name in the prefix cache, also when a name is loaded in place; a change stands
 * in the audit log, with the digest of what is loaded, before it is made.
 * Made by the app; the routes of the operations listener call it with a grant.
 */
import { Fault, invalid } from "#core/fault.ts";
import { ownedKey } from "#core/owned.ts";
import { type Grant, OPERATOR_TENANT, type Principal } from "#core/principal.ts";
import type { Actor } from "#policy/audit/record.ts";
import { actorOf, type RecordEvent, recorded } from "./_administration.ts";
import type { Models, ServedModel } from "./models.ts";

/** What holds the adapters: the engine. */
export interface AdapterLoader {
  loadAdapter(adapter: number, path: string): Promise<void>;
  unloadAdapter(adapter: number): void;
}

/** A private copy of what a path led to. */
export interface PreparedAdapter {
  readonly path: string;
  /** Of what was at the path. */
  readonly sha256: string;
  readonly form: string;
  /** It is not in use any more. */
  release(): void;
}

export interface AdapterSource {
  readonly path: string;
  /** What it has to be: lower-case hexadecimal. */
  readonly sha256?: string | undefined;
  /** The tenant that asks; undefined: the operator. */
  readonly owner: string | undefined;
  /** Named at the start: it may lie anywhere. */
  readonly anywhere?: true;
}

export interface AdaptersOptions {
  readonly models: Models;
  /** The model that they change. */
  readonly base: ServedModel;
  readonly loader: AdapterLoader;
  /** Adapters at once. */
  readonly most: number;
  /** Of one tenant at once. */
  readonly mostOf: (tenant: string) => number;
  /** Nothing is loaded whose digest was not named. */
  readonly digestRequired: boolean;
  /** @throws Fault invalid_request | overloaded | cancelled */
  readonly prepare: (source: AdapterSource, signal?: AbortSignal) => Promise<PreparedAdapter>;
  readonly record: RecordEvent;
}

export interface LoadCall {
  readonly name: string;
  readonly path: string;
  readonly sha256?: string | undefined;
  /** Take the place of the adapter of that name. */
  readonly inPlace: boolean;
  /** A name of the model that it changes; absent: the only one there is. */
  readonly base?: string | undefined;
}

const NAME = /^[A-Za-z0-9][A-Za-z0-9._:@/+-]{0,127}$/;
/** No path is made of a name here; who makes one elsewhere should not be led astray. */
const DOTS = /(?:^|\/)\.{1,2}(?:\/|$)/;

const SERVER: Actor = { kind: "server", id: "server" };

/** A load under way, or what is loaded. */
interface Slot {
  readonly name: string;
  readonly owner: string | undefined;
}

export class Adapters {
  readonly #options: AdaptersOptions;
  /** How often a name was loaded: what it computed before is of no use to what it is now. */
  readonly #times = new Map<string, number>();
  readonly #busy = new Map<string, Slot>();
  readonly #files = new Map<number, PreparedAdapter>();
  #numbers = 0;

  constructor(options: AdaptersOptions) {
    this.#options = options;
  }

  /** An adapter that the operator names at start: any file. @throws Fault */
  async preload(name: string, path: string, sha256?: string): Promise<void> {
    await this.#load({ name, owner: undefined }, { path, sha256, owner: undefined, anywhere: true }, false, SERVER);
  }

  /** @throws Fault invalid_request | overloaded | policy_unavailable | engine_failed | engine_unavailable | draining */
  async load({ principal }: Grant<"lora:write">, call: LoadCall, signal?: AbortSignal): Promise<void> {
    const { name, path, sha256, inPlace, base } = call;
    if (base !== undefined && !this.#options.base.names.includes(base))
      throw invalid("base_model_name", `The model '${printable(base)}' takes no adapters here.`);
    const owner = ownerOf(principal);
    await this.#load({ name, owner }, { path, sha256, owner }, inPlace, actorOf(principal), signal);
  }

  /** @throws Fault model_not_found: also where it is another tenant's | invalid_request: several tenants have one | policy_unavailable */
  async unload({ principal }: Grant<"lora:write">, name: string): Promise<void> {
    const found = this.#unloadable(principal, name);
    await recorded(this.#options.record("adapter.unload", actorOf(principal), undefined, told(name, found.owner)));
    // Whoever was faster has done it.
    if (this.#unloadable(principal, name) === found) this.#remove(found);
  }

  #unloadable(principal: Principal, name: string): ServedModel {
    const owner = ownerOf(principal);
    const served = owner === undefined ? this.#anybodys(name) : this.#options.models.find(name, owner);
    if (served?.lora?.base !== this.#options.base || this.#busy.has(busyKey(name, served.owner)))
      throw new Fault("model_not_found", `The lora adapter '${printable(name)}' cannot be found.`, {
        param: "lora_name",
      });
    return served;
  }

  /** For the operator: everybody's, else the one tenant's that has it. */
  #anybodys(name: string): ServedModel | undefined {
    const { models } = this.#options;
    const common = models.find(name);
    if (common !== undefined) return common;
    const owned = models.all.filter(({ owner, names }) => owner !== undefined && names.includes(name));
    if (owned.length > 1) throw invalid("lora_name", `${owned.length} tenants have an adapter of this name.`);
    return owned[0];
  }

  async #load(slot: Slot, source: AdapterSource, inPlace: boolean, actor: Actor, signal?: AbortSignal): Promise<void> {
    const { name, owner } = slot;
    const before = this.#replaced(name, inPlace, owner);
    if (this.#options.digestRequired && source.sha256 === undefined)
      throw invalid("sha256", "This server loads no adapter whose sha256 is not named (--require-lora-digest).");
    this.#busy.set(busyKey(name, owner), slot);
    try {
      const file = await this.#options.prepare(source, signal);
      await this.#take(slot, file, before, actor).catch((error: unknown) => {
        file.release();
        throw error;
      });
    } finally {
      this.#busy.delete(busyKey(name, owner));
    }
  }

  async #take(
    { name, owner }: Slot,
    file: PreparedAdapter,
    before: ServedModel | undefined,
    actor: Actor,
  ): Promise<void> {
    const { record, loader } = this.#options;
    const { sha256, form, path } = file;
    await recorded(record("adapter.load", actor, undefined, { ...told(name, owner), sha256, form }));
    const number = ++this.#numbers;
    await loader.loadAdapter(number, path);
    this.#files.set(number, file);
    if (before !== undefined) this.#remove(before);
    this.#serve(name, number, owner, sha256);
  }

  /** What has the name now and gives way to the new one. @throws Fault when it may not, or there is no room */
  #replaced(name: string, inPlace: boolean, owner: string | undefined): ServedModel | undefined {
    const { models, most } = this.#options;
    checkAdapterName(name);
    const common = models.find(name);
    if (common !== undefined && (common.lora?.base !== this.#options.base || owner !== undefined))
      throw invalid(
        "lora_name",
        `The name '${name}' belongs to a model${owner === undefined ? "" : " of the server"}.`,
      );
    const present = models.find(name, owner);
    if (this.#busy.has(busyKey(name, owner))) throw invalid("lora_name", `The lora adapter '${name}' is being loaded.`);
    if (present !== undefined && !inPlace) {
      const message = `The lora adapter '${name}' has already been loaded. If you want to load the adapter in place, set 'load_inplace' to True.`;
      throw invalid("lora_name", message);
    }
    if (owner !== undefined) this.#checkShare(owner, present !== undefined);
    const loaded = models.all.filter(({ lora }) => lora?.base === this.#options.base).length + this.#busy.size;
    if (present === undefined && loaded >= most)
      throw invalid("lora_name", `${most} lora adapters are loaded, and no more fit: unload one first.`);
    return present;
  }

  /** @throws Fault overloaded | invalid_request */
  #checkShare(owner: string, replaces: boolean): void {
    const { models, mostOf } = this.#options;
    const isOwn = (slot: { readonly owner?: string | undefined }): boolean => slot.owner === owner;
    if ([...this.#busy.values()].some(isOwn))
      throw new Fault("overloaded", "Another lora adapter of the tenant is being loaded.", { retryAfterMs: 1000 });
    const most = mostOf(owner);
    const own = models.all.filter((model) => model.lora !== undefined && isOwn(model)).length;
    if (!replaces && own >= most)
      throw invalid("lora_name", `The tenant may have ${most} lora adapters loaded, and has them: unload one first.`);
  }

  #serve(name: string, number: number, owner: string | undefined, sha256: string): void {
    const { models, base } = this.#options;
    const adapter = { number, name: owner === undefined ? this.#nameOf(name) : `#${number}` };
    models.add({ ...base, names: [name], lora: { adapter, base, sha256 }, ...(owner === undefined ? {} : { owner }) });
  }

  /** What the engine and its metrics, which others may read, call an adapter of everybody's; a tenant's has no name there. */
  #nameOf(name: string): string {
    const times = (this.#times.get(name) ?? 0) + 1;
    this.#times.set(name, times);
    return times === 1 ? name : `${name}#${times}`;
  }

  #remove(served: ServedModel): void {
    this.#options.models.remove(served);
    if (served.lora === undefined) return;
    const { number } = served.lora.adapter;
    this.#options.loader.unloadAdapter(number);
    this.#files.get(number)?.release();
    this.#files.delete(number);
  }
}

/** Whether an adapter may be served under it. */
export function isAdapterName(name: string): boolean {
  return NAME.test(name) && !DOTS.test(name);
}

/** @throws Fault invalid_request */
export function checkAdapterName(name: string): void {
  if (isAdapterName(name)) return;
  const message =
    "lora_name takes letters, digits and ._:@/+-, at most 128 characters, a letter or digit first, no part of dots.";
  throw invalid("lora_name", message);
}

/** What the operator loads is everybody's, as far as their keys go; what a tenant loads is its own. */
function ownerOf({ tenant }: Principal): string | undefined {
  return tenant === OPERATOR_TENANT ? undefined : tenant;
}

/** Of an adapter, in the audit log. */
function told(name: string, owner: string | undefined): object {
  return { name, ...(owner === undefined ? {} : { owner }) };
}

function busyKey(name: string, owner = ""): string {
  return ownedKey(owner, name);
}

function printable(name: string): string {
  return name.replace(/[^\x20-\x7e]/g, "?").slice(0, 128);
}
