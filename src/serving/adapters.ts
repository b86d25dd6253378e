/**
 * The LoRA adapters that are served: loaded under a name, found like a model, unloaded when nobody needs them.
 *
 * Invariants: a name belongs to one adapter or model of its owner; what a tenant loads exists for that tenant alone (Wall: T51)
 * and takes no name of the server's; a number is never used again, so a request keeps the adapter it
 * began with; two contents never share a name in the prefix cache, also when a name is loaded in place.
 * Made by the app; the routes of the operations listener call it with a grant.
 */
import { Fault, invalid } from "#core/fault.ts";
import { ownedKey } from "#core/owned.ts";
import { type Grant, OPERATOR_TENANT, type Principal } from "#core/principal.ts";
import type { Models, ServedModel } from "./models.ts";

/** What holds the adapters: the engine. */
export interface AdapterLoader {
  loadAdapter(adapter: number, path: string): Promise<void>;
  unloadAdapter(adapter: number): void;
}

export interface AdaptersOptions {
  readonly models: Models;
  /** The model that they change. */
  readonly base: ServedModel;
  readonly loader: AdapterLoader;
  /** Adapters at once. */
  readonly most: number;
  /** Which file a client's path means. @throws Fault */
  readonly fileOf: (path: string) => string;
}

export interface LoadCall {
  readonly name: string;
  readonly path: string;
  /** Take the place of the adapter of that name. */
  readonly inPlace: boolean;
}

const NAME = /^[A-Za-z0-9][A-Za-z0-9._:@/+-]{0,127}$/;

export class Adapters {
  readonly #options: AdaptersOptions;
  /** How often a name was loaded: what it computed before is of no use to what it is now. */
  readonly #times = new Map<string, number>();
  readonly #busy = new Set<string>();
  #numbers = 0;

  constructor(options: AdaptersOptions) {
    this.#options = options;
  }

  /** An adapter that the operator names at start: any file. @throws Fault */
  async preload(name: string, path: string): Promise<void> {
    await this.#load({ name, path, inPlace: false });
  }

  /** @throws Fault invalid_request | engine_failed | engine_unavailable | draining */
  async load({ principal }: Grant<"lora:write">, call: LoadCall): Promise<void> {
    await this.#load({ ...call, path: this.#options.fileOf(call.path) }, ownerOf(principal));
  }

  /** @throws Fault model_not_found: also where it is another tenant's | invalid_request: several tenants have one */
  unload({ principal }: Grant<"lora:write">, name: string): void {
    const owner = ownerOf(principal);
    const served = owner === undefined ? this.#anybodys(name) : this.#options.models.find(name, owner);
    if (served?.lora === undefined || this.#busy.has(busyKey(name, served.owner)))
      throw new Fault("model_not_found", `The lora adapter '${printable(name)}' cannot be found.`, {
        param: "lora_name",
      });
    this.#remove(served);
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

  async #load({ name, path, inPlace }: LoadCall, owner?: string): Promise<void> {
    const before = this.#replaced(name, inPlace, owner);
    this.#busy.add(busyKey(name, owner));
    try {
      const number = ++this.#numbers;
      await this.#options.loader.loadAdapter(number, path);
      if (before !== undefined) this.#remove(before);
      this.#serve(name, number, owner);
    } finally {
      this.#busy.delete(busyKey(name, owner));
    }
  }

  /** What has the name now and gives way to the new one. @throws Fault when it may not, or there is no room */
  #replaced(name: string, inPlace: boolean, owner: string | undefined): ServedModel | undefined {
    const { models, most } = this.#options;
    if (!NAME.test(name)) {
      const message = "lora_name takes letters, digits and ._:@/+-, at most 128 characters, a letter or digit first.";
      throw invalid("lora_name", message);
    }
    const common = models.find(name);
    if (common !== undefined && (common.lora === undefined || owner !== undefined))
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
    const loaded = models.all.filter(({ lora }) => lora !== undefined).length + this.#busy.size;
    if (present === undefined && loaded >= most)
      throw invalid("lora_name", `${most} lora adapters are loaded, and no more fit: unload one first.`);
    return present;
  }

  #serve(name: string, number: number, owner: string | undefined): void {
    const { models, base } = this.#options;
    const adapter = { number, name: owner === undefined ? this.#nameOf(name) : `#${number}` };
    models.add({ ...base, names: [name], lora: { adapter, base }, ...(owner === undefined ? {} : { owner }) });
  }

  /** What the engine and its metrics, which others may read, call an adapter of everybody's; a tenant's has no name there. */
  #nameOf(name: string): string {
    const times = (this.#times.get(name) ?? 0) + 1;
    this.#times.set(name, times);
    return times === 1 ? name : `${name}#${times}`;
  }

  #remove(served: ServedModel): void {
    this.#options.models.remove(served);
    if (served.lora !== undefined) this.#options.loader.unloadAdapter(served.lora.adapter.number);
  }
}

/** What the operator loads is everybody's, as far as their keys go; what a tenant loads is its own. */
function ownerOf({ tenant }: Principal): string | undefined {
  return tenant === OPERATOR_TENANT ? undefined : tenant;
}

function busyKey(name: string, owner = ""): string {
  return ownedKey(owner, name);
}

function printable(name: string): string {
  return name.replace(/[^\x20-\x7e]/g, "?").slice(0, 128);
}
