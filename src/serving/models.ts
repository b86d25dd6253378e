/**
 * Which model answers under which name; every lookup of a model goes through here. The models are fixed at start,
 * LoRA adapters of them come and go (adapters.ts).
 */
import type { Backend } from "#core/backend.ts";
import type { SamplingInput } from "#core/calls.ts";
import { Fault } from "#core/fault.ts";
import type { AdapterReference } from "#core/generate.ts";
import type { Tokenizer } from "#core/model.ts";
import { mayUse } from "#core/name-patterns.ts";
import type { ReasoningFamily, ToolFamily } from "#core/parser-families.ts";
import type { Principal } from "#core/principal.ts";
import type { PairTemplate } from "#prompt/pair-template.ts";
import type { ChatTemplate } from "#prompt/template.ts";

export interface ServedModel {
  /** At least one; the first is printed in answers (--served-model-name). */
  readonly names: readonly [string, ...string[]];
  readonly backend: Backend;
  /** The tenant whose it is: for nobody else it exists. Absent: everybody's. */
  readonly owner?: string;
  /** Of a LoRA adapter: which one, the model that it changes, and the SHA-256 of what was loaded, where it was here. */
  readonly lora?: { readonly adapter: AdapterReference; readonly base: ServedModel; readonly sha256?: string };
  readonly tokenizer: Tokenizer;
  readonly template: ChatTemplate;
  /** Of a model that scores pairs: what it was trained to see around them; absent: its own tokens alone. */
  readonly pairs?: PairTemplate;
  /** What stands where a request says nothing: the model's generation config and the operator's override of it. */
  readonly defaults: SamplingInput;
  readonly parsers: {
    /** How reasoning is split from the answer (--reasoning-parser); undefined: it is not. */
    readonly reasoning: ReasoningFamily | undefined;
    /** How tool calls are read out of the answer (--enable-auto-tool-choice, --tool-call-parser); undefined: they are not. */
    readonly tools: ToolFamily | undefined;
    /** Hold calls of the model's own choice to the tools' names and schemas (--hold-tool-calls). */
    readonly holdCalls: boolean;
  };
}

/**
 * The name under which work is counted, limited and priced. A name that a tenant gave itself would be one that the
 * operator said nothing of.
 */
export function countedAs({ names, owner, lora }: ServedModel): string {
  return owner === undefined || lora === undefined ? names[0] : lora.base.names[0];
}

export interface VisibleModel {
  readonly model: ServedModel;
  readonly names: readonly string[];
  readonly parent?: string;
}

export class Models {
  private readonly served: ServedModel[];
  private readonly byName = new Map<string, ServedModel>();
  /** By tenant, then by name: two tenants may give one name to two things. */
  private readonly owned = new Map<string, Map<string, ServedModel>>();

  /** @throws Error when there is no model, or two share a name */
  constructor(served: readonly [ServedModel, ...ServedModel[]]) {
    this.served = [];
    for (const model of served) this.add(model);
  }

  /** @throws Error when a name is taken */
  add(model: ServedModel): void {
    const names = this.namesOf(model.owner);
    for (const name of model.names) {
      if (names.has(name)) throw new Error(`two models are served under the name ${name}`);
      names.set(name, model);
    }
    this.served.push(model);
  }

  /** Calls that have begun with it go on. */
  remove(model: ServedModel): void {
    this.served.splice(this.served.indexOf(model), 1);
    const names = this.namesOf(model.owner);
    for (const name of model.names) names.delete(name);
    if (model.owner !== undefined && names.size === 0) this.owned.delete(model.owner);
  }

  private namesOf(owner: string | undefined): Map<string, ServedModel> {
    if (owner === undefined) return this.byName;
    const names = this.owned.get(owner) ?? new Map<string, ServedModel>();
    this.owned.set(owner, names);
    return names;
  }

  /** What answers under this name, if anything does: of this owner, or of everybody. */
  find(name: string, owner?: string): ServedModel | undefined {
    return owner === undefined ? this.byName.get(name) : this.owned.get(owner)?.get(name);
  }

  /**
   * What a principal may not use does not exist for it.
   * @param name absent: the first that it may use. @throws Fault model_not_found
   */
  resolve(name: string | undefined, principal: Principal): ServedModel {
    const model =
      name === undefined ? this.visibleTo(principal)[0]?.model : (this.find(name, principal.tenant) ?? this.find(name));
    if (model === undefined || (name !== undefined && !sees(principal, model, name)))
      throw new Fault("model_not_found", `The model \`${name?.slice(0, 200)}\` does not exist.`, { param: "model" });
    return model;
  }

  /** The models that a principal may use, and under which names; of an adapter the model it changes, if that one is too. */
  visibleTo(principal: Principal): readonly VisibleModel[] {
    return this.served
      .filter(({ owner }) => owner === undefined || owner === principal.tenant)
      .map((model) => ({ model, names: model.names.filter((name) => sees(principal, model, name)) }))
      .filter(({ names }) => names.length > 0)
      .map((visible) => {
        const base = visible.model.lora?.base;
        const parent = base?.names.find((name) => sees(principal, base, name));
        return parent === undefined ? visible : { ...visible, parent };
      });
  }

  /**
   * Whether what came from the model of this name is for a principal: if it sees the model, under any of its names. One
   * that is served no longer may have been a model or an adapter, so both lists have to hold its name.
   */
  mayKnow(name: string, principal: Principal): boolean {
    const model = this.find(name, principal.tenant) ?? this.find(name);
    if (model !== undefined) return model.names.some((own) => sees(principal, model, own));
    return mayUse(principal, "models", name) && mayUse(principal, "adapters", name);
  }

  get all(): readonly ServedModel[] {
    return this.served;
  }

  /** Whether every backend can take work. */
  get ready(): boolean {
    return this.served.every((model) => model.backend.state() === "ready");
  }
}

function sees(principal: Principal, model: ServedModel, name: string): boolean {
  return mayUse(principal, model.lora === undefined ? "models" : "adapters", name);
}
