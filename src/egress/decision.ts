/**
 * One record for each request that leaves, or is not let out: what was decided, by which rule, and what came of it.
 *
 * Invariants: every fetch ends in exactly one record, whatever ends it; it holds a host and addresses, and nothing of
 * a path, a query, a header or a body, which may hold signatures and names.
 * Callers: whoever fetches through the guard; app, which sends records to the log, the metrics and the audit log.
 */
import { EgressError, type EgressErrorCode, type EgressRule } from "./policy.ts";

/** What fetches. The keys are the closed list, and values of a metric's label. */
export const EGRESS_KINDS = {
  image: "an image that a request names",
  audio: "audio that a request names",
  video: "a video that a request names",
  jwks: "keys of an issuer of tokens, and its discovery document",
  "batch-input": "the input of castellan run-batch",
  "batch-output": "the output of castellan run-batch",
  hub: "a model hub: its API and files",
} as const;
export type EgressKind = keyof typeof EGRESS_KINDS;

/** `content`: it came, and is not what it should be. `busy`: it waited for nothing, as too many wait. */
export type EgressOutcome = "ok" | EgressErrorCode | "content" | "busy" | "error";

/** What a fetch tells of itself while it runs. */
export interface FetchTrace {
  /** As a URL prints it; of the last hop. Undefined until the text has one reading. */
  host: string | undefined;
  /** All that the name had; of the last hop. */
  addresses: readonly string[];
  /** Redirects that were followed. */
  hops: number;
  /** Of bodies, received. */
  bytes: number;
  /** It was kept from an earlier fetch: nothing left. */
  cached: boolean;
}

export interface EgressDecision extends Readonly<FetchTrace> {
  readonly kind: EgressKind;
  /** `refused`: a rule about where requests may go (1 to 7) said no, or there was no room. */
  readonly decision: "allowed" | "refused";
  readonly outcome: EgressOutcome;
  /** Which rule ended it. */
  readonly rule: EgressRule | undefined;
  /** For people: an EgressError's message. */
  readonly reason: string | undefined;
  readonly milliseconds: number;
  readonly tenant: string | undefined;
  readonly requestId: string | undefined;
}

export interface Fetcher {
  readonly kind: EgressKind;
  readonly tenant?: string;
  readonly requestId?: string;
}

export interface EgressObserver {
  /** Returns what is called when it ended. */
  begin(kind: EgressKind): () => void;
  record(decision: EgressDecision): void;
}

/** A failure that is not the network's: it came, and is not what it should be; or there is no room. */
export class EgressEnd extends Error {
  override readonly name = "EgressEnd";
  readonly outcome: "content" | "busy";
  constructor(outcome: "content" | "busy", message: string) {
    super(message);
    this.outcome = outcome;
  }
}

/** Does the work, and records how it ended. */
export async function decided<T>(
  who: Fetcher,
  observer: EgressObserver,
  work: (trace: FetchTrace) => Promise<T>,
): Promise<T> {
  const trace: FetchTrace = { host: undefined, addresses: [], hops: 0, bytes: 0, cached: false };
  const begin = performance.now();
  const end = observer.begin(who.kind);
  const record = (rest: Pick<EgressDecision, "decision" | "outcome" | "rule" | "reason">): void =>
    observer.record({
      kind: who.kind,
      ...rest,
      ...trace,
      milliseconds: performance.now() - begin,
      tenant: who.tenant,
      requestId: who.requestId,
    });
  try {
    const result = await work(trace);
    record({ decision: "allowed", outcome: "ok", rule: undefined, reason: undefined });
    return result;
  } catch (error) {
    record(ended(error));
    throw error;
  } finally {
    end();
  }
}

function ended(error: unknown): Pick<EgressDecision, "decision" | "outcome" | "rule" | "reason"> {
  if (error instanceof EgressEnd) {
    const decision = error.outcome === "busy" ? "refused" : "allowed";
    return { decision, outcome: error.outcome, rule: 8, reason: error.message };
  }
  if (!(error instanceof EgressError))
    return { decision: "allowed", outcome: "error", rule: undefined, reason: undefined };
  const { code, rule, message } = error;
  return { decision: rule !== undefined && rule < 8 ? "refused" : "allowed", outcome: code, rule, reason: message };
}
