/**
 * The policy over the operations listener: what is in force, what a caller may do and by which rule, and the file read
 * anew. Made by the app; the routes call it with a grant.
 *
 * Invariants: a caller asks about its own tenant's principals only, unless it is of the operator's tenant (Wall: T83);
 * nothing here changes the policy but the file.
 */
import { Fault, invalid } from "#core/fault.ts";
import type { Grant, Principal } from "#core/principal.ts";
import { AuditFailure } from "#policy/audit/log.ts";
import type { Actor } from "#policy/audit/record.ts";
import { requireOperator } from "#policy/authorize.ts";
import { administers } from "#policy/delegation.ts";
import { type Asker, explain, type Question, type RouteFacts, type Verdict } from "#policy/explain.ts";
import { askerOf } from "#policy/file/callers.ts";
import { type CaseResult, listenerOf } from "#policy/file/cases.ts";
import type { PolicyFile } from "#policy/file/schema.ts";
import type { TenantRules } from "#policy/file/tenants.ts";
import { askerOfKey } from "#policy/key-asker.ts";
import type { KeyStore } from "#policy/key-store.ts";
import { networkProblem } from "#policy/networks.ts";
import type { CallerWords, ExplainCall, SubjectWords } from "#wire/admin/policy.ts";
import { actorOf, stored } from "./_administration.ts";

export interface PolicyNow {
  readonly file: PolicyFile;
  readonly tenants: TenantRules;
  readonly sha256: string | undefined;
}

export interface AdminPolicyOptions {
  readonly current: () => PolicyNow;
  /** Whose tokens and certificates are taken, wherever that is said. */
  readonly words: () => Promise<Pick<PolicyFile, "tokens" | "certificates">>;
  /** Records the change first. @throws Error the file is not right, with the reason for the operator | AuditFailure */
  readonly reload: (actor: Actor) => Promise<PolicyNow>;
  /** Runs the cases of a file's text. @throws Error it is not right, with the reason */
  readonly test: (text: string) => Promise<readonly CaseResult[]>;
  readonly keys: Pick<KeyStore, "get">;
  readonly routes: readonly RouteFacts[];
  readonly now?: () => number;
}

export interface Explained {
  readonly question: Question;
  readonly verdict: Verdict;
}

export class AdminPolicy {
  readonly #options: AdminPolicyOptions;

  constructor(options: AdminPolicyOptions) {
    this.#options = options;
  }

  /** @throws Fault forbidden */
  current({ principal }: Grant<"keys:read">): PolicyNow {
    requireOperator(principal);
    return this.#options.current();
  }

  /** @throws Fault forbidden | invalid_request: the file is not right, and what held goes on | policy_unavailable */
  async reload({ principal }: Grant<"admin">): Promise<PolicyNow> {
    requireOperator(principal);
    try {
      return await this.#options.reload(actorOf(principal));
    } catch (error) {
      if (!(error instanceof AuditFailure))
        throw invalid("policy", error instanceof Error ? error.message : String(error));
      throw new Fault("policy_unavailable", "Nothing was changed: the change cannot be recorded.", {
        detail: error.message,
        retryAfterMs: 1000,
        cause: error,
      });
    }
  }

  /** Changes nothing. @throws Fault forbidden | invalid_request: the text is no policy */
  async test({ principal }: Grant<"keys:read">, text: string): Promise<readonly CaseResult[]> {
    requireOperator(principal);
    try {
      return await this.#options.test(text);
    } catch (error) {
      throw invalid("policy", error instanceof Error ? error.message : String(error));
    }
  }

  /** @throws Fault key_not_found | forbidden | policy_unavailable */
  async explain({ principal }: Grant<"keys:read">, call: ExplainCall): Promise<Explained> {
    const { routes } = this.#options;
    const asker = await this.#asker(principal, call.as);
    const { as: _, listener = listenerOf(call.path, routes), ...rest } = call;
    return this.#judge({ ...rest, listener }, asker);
  }

  /** Of every route. @throws Fault key_not_found | forbidden | policy_unavailable */
  async rights({ principal }: Grant<"keys:read">, { as, ...rest }: SubjectWords): Promise<readonly Explained[]> {
    const { routes } = this.#options;
    const asker = await this.#asker(principal, as);
    return routes.map(({ method, path }) =>
      this.#judge({ ...rest, method, path, listener: listenerOf(path, routes) }, asker),
    );
  }

  #judge(question: Question, asker: Asker): Explained {
    const { current, routes } = this.#options;
    return { question, verdict: explain(question, asker, routes, current().tenants) };
  }

  async #asker(principal: Principal, as: CallerWords): Promise<Asker> {
    if (as === "nobody") return { kind: "nobody" };
    if ("key" in as) return this.#key(principal, as.key);
    // Claims and names of certificates may be anybody's.
    if (!("role" in as)) requireOperator(principal);
    else if (!administers(principal, as.tenant)) throw foreign(principal);
    if ("networks" in as) checkNetworks(as.networks);
    return askerOf(as, await this.#words());
  }

  async #words(): ReturnType<AdminPolicyOptions["words"]> {
    try {
      return await this.#options.words();
    } catch (error) {
      const detail = error instanceof Error ? error.message : String(error);
      throw new Fault("policy_unavailable", "The file of issuers or certificates cannot be read.", {
        detail,
        cause: error,
      });
    }
  }

  async #key(principal: Principal, id: string): Promise<Asker> {
    const { keys, now = Date.now } = this.#options;
    const record = await stored(keys.get(id));
    if (record === undefined || !administers(principal, record.tenant))
      throw new Fault("key_not_found", "There is no key of this id.", { param: "as.key" });
    return askerOfKey(record, now());
  }
}

function foreign({ id }: Principal): Fault {
  const why = "tenant: it looks after its own alone";
  return new Fault("forbidden", `This key may not do that: ${why}.`, { detail: `${id}: ${why}` });
}

function checkNetworks(networks: readonly string[] = []): void {
  const problem = networks.map(networkProblem).find((each) => each !== undefined);
  if (problem !== undefined) throw invalid("as.networks", `${problem}.`);
}
