/**
 * LoRA adapters of servers behind this one: a name that any of them says it has is served like a model, and the operator
 * loads and unloads one at all servers of a model.
 *
 * Invariants: a name is asked only of servers that have it (balancer.ts); it never takes the place of a model or of
 * another pool's adapter; every tenant's keys see it as far as their reach goes, so only the operator's tenant changes it
 * (Wall: T51), and a change stands in the audit log before it is sent. What a path leads to is a matter of the servers:
 * nothing of it is looked at here. Made by app; called by its relay.
 */
import { newId } from "#base/ids.ts";
import { type JsonValue, stringifyJson } from "#base/json.ts";
import type { Log } from "#base/log.ts";
import { Fault, invalid } from "#core/fault.ts";
import { OPERATOR_TENANT, type Principal } from "#core/principal.ts";
import type { UpstreamRequest } from "#core/relay.ts";
import { actorOf, type RecordEvent, recorded } from "#serving/_administration.ts";
import { checkAdapterName, isAdapterName, type LoadCall } from "#serving/adapters.ts";
import type { Models, ServedModel } from "#serving/models.ts";
import { joinAnswers, type Operate, type OperatedAnswer } from "./operate.ts";
import type { UpstreamPool } from "./pool.ts";

export interface AdaptedModel {
  readonly base: ServedModel;
  readonly pool: UpstreamPool;
}

export interface UpstreamAdaptersOptions {
  readonly models: Models;
  readonly adapted: readonly AdaptedModel[];
  readonly operate: Pick<Operate, "ask">;
  readonly record: RecordEvent;
  /** Nothing is loaded whose digest was not named, and no server behind this one takes one. */
  readonly digestRequired: boolean;
  readonly log: Log;
}

const PATH_CHARACTERS = 4096;
/** No engine here has it. */
const NO_NUMBER = 0;
const MOST_TOLD = 4096;

export class UpstreamAdapters {
  readonly #options: UpstreamAdaptersOptions;
  /** Names that could not be served, told once. */
  readonly #taken = new Set<string>();

  constructor(options: UpstreamAdaptersOptions) {
    this.#options = options;
    for (const each of options.adapted) {
      each.pool.onAdapters(() => this.#follow(each));
      this.#follow(each);
    }
  }

  /** Whose servers a load is for; undefined: not theirs. @param alone there is no engine here @throws Fault */
  target(base: string | undefined, alone: boolean): AdaptedModel | undefined {
    const { adapted } = this.#options;
    if (base !== undefined) {
      const found = adapted.find((each) => each.base.names.includes(base));
      if (found === undefined && alone)
        throw new Fault("model_not_found", "No model of this name takes adapters.", { param: "base_model_name" });
      return found;
    }
    if (!alone) return undefined;
    if (adapted.length > 1)
      throw invalid("base_model_name", "base_model_name says which of the models here the adapter is for.");
    return adapted[0];
  }

  /** Whose servers have it; undefined: none of theirs. */
  holder(name: string): AdaptedModel | undefined {
    const base = this.#options.models.find(name)?.lora?.base;
    return this.#options.adapted.find((each) => each.base === base);
  }

  /** @throws Fault forbidden | invalid_request | not_implemented | policy_unavailable | upstream_* */
  async load({ base, pool }: AdaptedModel, principal: Principal, call: LoadCall, signal: AbortSignal): Promise<void> {
    const { models, record, digestRequired } = this.#options;
    operatorOnly(principal);
    checkAdapterName(call.name);
    if (call.sha256 !== undefined || digestRequired)
      throw new Fault("not_implemented", "A digest cannot be checked where the file is on another server.", {
        param: "sha256",
      });
    if (call.path.length > PATH_CHARACTERS) throw invalid("lora_path", "lora_path is too long.");
    const present = models.find(call.name);
    if (present !== undefined && present.lora?.base !== base)
      throw invalid("lora_name", `The name '${call.name}' belongs to a model.`);
    const missing = pool.states().filter(({ adapters }) => call.inPlace || !adapters.includes(call.name));
    if (missing.length === 0) throw loadedAlready(call.name);
    await recorded(
      record("adapter.load", actorOf(principal), undefined, { name: call.name, upstreams: base.names[0] }),
    );
    const { name, path, inPlace } = call;
    const body = { lora_name: name, lora_path: path, ...(inPlace ? { load_inplace: true } : {}) };
    const ids = missing.map(({ id }) => id);
    refusedByAll(joinAnswers(await this.#tell(pool, ids, "/v1/load_lora_adapter", body, signal, true), "every"));
  }

  /** @throws Fault forbidden | policy_unavailable | upstream_* */
  async unload({ base, pool }: AdaptedModel, principal: Principal, name: string, signal: AbortSignal): Promise<void> {
    operatorOnly(principal);
    const details = { name, upstreams: base.names[0] };
    await recorded(this.#options.record("adapter.unload", actorOf(principal), undefined, details));
    const having = pool.states().filter(({ adapters }) => adapters.includes(name));
    const ids = having.map(({ id }) => id);
    const answers = await this.#tell(pool, ids, "/v1/unload_lora_adapter", { lora_name: name }, signal, false);
    refusedByAll(joinAnswers(answers, "every"));
  }

  #tell(
    pool: UpstreamPool,
    ids: readonly number[],
    target: string,
    body: { readonly lora_name: string } & { readonly [name: string]: JsonValue },
    signal: AbortSignal,
    has: boolean,
  ): Promise<readonly (OperatedAnswer | Fault)[]> {
    const members = ids.map((id) => ({ id, member: pool.members().get(id) }));
    return Promise.all(
      members.map(async ({ id, member }) => {
        if (member === undefined) return new Fault("upstream_unavailable", "It left.");
        const answer = await this.#options.operate.ask(member, post(target, body), signal);
        if (answer instanceof Fault) return answer;
        const gone = !has && answer.status === 404;
        if (answer.status < 300 || gone) pool.changeAdapter(id, body.lora_name, has);
        return gone ? { status: 200, body: undefined } : answer;
      }),
    );
  }

  /** What its servers have now is what is served. */
  #follow({ base, pool }: AdaptedModel): void {
    const { models, log } = this.#options;
    const names = pool.adapters();
    for (const model of models.all.filter(({ lora }) => lora?.base === base))
      if (!names.has(model.names[0])) models.remove(model);
    for (const name of names) {
      const present = models.find(name);
      if (present?.lora?.base === base) continue;
      if (present === undefined && isAdapterName(name)) models.add(adapterOf(base, name));
      else if (!this.#taken.has(name)) {
        this.#taken.add(name);
        log("warn", "an adapter of servers behind this one is not served: its name is taken, or none", { name });
      }
    }
    if (this.#taken.size > MOST_TOLD) this.#taken.clear();
  }
}

function adapterOf(base: ServedModel, name: string): ServedModel {
  return { ...base, names: [name], lora: { adapter: { number: NO_NUMBER, name }, base } };
}

/** The servers are every tenant's. */
function operatorOnly({ tenant }: Principal): void {
  if (tenant !== OPERATOR_TENANT)
    throw new Fault(
      "forbidden",
      "This key may not do that: adapters of the servers behind this one are every tenant's.",
    );
}

function loadedAlready(name: string): Fault {
  const message = `The lora adapter '${name}' has already been loaded. If you want to load the adapter in place, set 'load_inplace' to True.`;
  return invalid("lora_name", message);
}

/** @throws Fault invalid_request | not_implemented: they are all of one mind, and it is no */
function refusedByAll({ status }: OperatedAnswer): void {
  if (status < 300) return;
  if (status === 404)
    throw new Fault("not_implemented", "The servers behind this one have no such route, or find no such adapter.");
  throw new Fault("invalid_request", `The servers behind this one refuse it (status ${status}).`, {
    param: "lora_name",
  });
}

function post(target: string, body: JsonValue): UpstreamRequest {
  return {
    method: "POST",
    target,
    headers: ["content-type", "application/json", "x-request-id", newId()],
    body: [Buffer.from(stringifyJson(body))],
  };
}
