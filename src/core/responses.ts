/**
 * Responses as the API of that name has them: one turn of a conversation, with what it answered, under an id.
 *
 * The words between wire, which prints them, serving, which runs them, and policy, which keeps them. What is printed is
 * data that only wire understands; the status is everybody's.
 */
import type { CallEvent, ChatCall } from "./calls.ts";
import type { ChatMessage } from "./chat.ts";

export type ResponseStatus = "queued" | "in_progress" | "completed" | "incomplete" | "failed" | "cancelled";

/** What a client asked for. */
export interface ResponseCall {
  /** Its messages are those of this turn alone. */
  readonly chat: ChatCall;
  /** A system turn in front of everything; not inherited. */
  readonly instructions?: string;
  /** The turn that this one continues. */
  readonly previousId?: string;
  /** Absent: where it can be kept. */
  readonly store?: boolean;
  /** Answer at once, and go on. */
  readonly background: boolean;
  readonly stream: boolean;
}

/** An event of a response's stream, its fields in the order in which they are printed. */
export interface ResponseEvent {
  readonly type: string;
  /** From 0, without gaps. */
  readonly sequence_number: number;
}

/** Why a response failed, as it is printed. */
export interface ResponseError {
  readonly code: string;
  readonly message: string;
}

/** The response as it is printed. */
export type ResponseBody = Readonly<Record<string, unknown>>;

/** Turns a call's events into those of a response, and holds the response as it stands. */
export interface ResponseWriter {
  readonly status: ResponseStatus;
  /** The first events. Once, before anything else. */
  begin(): readonly ResponseEvent[];
  /** The last `usage` ends the response. @throws Fault engine_failed */
  push(event: CallEvent): readonly ResponseEvent[];
  /** Ends it otherwise; the last events. Nothing, where it has ended. */
  stop(status: "failed" | "cancelled", error?: ResponseError): readonly ResponseEvent[];
  body(): ResponseBody;
  /** What was answered, as the next turn sees it. */
  answer(): readonly ChatMessage[];
  /** The events so far, as far as they were printed; a writer that is given them prints the same. */
  log(): readonly CallEvent[];
}

/** A response in the store. */
export interface KeptResponse {
  readonly id: string;
  readonly status: ResponseStatus;
  /** What was printed last; `status` and `error` stand over what it says. */
  readonly body: ResponseBody;
  readonly error?: ResponseError;
  /** The conversation, without instructions; where it completed or was cut off at its budget, with the answer. */
  readonly messages: readonly ChatMessage[];
  /** Of a model behind others: the same as the items that its server is sent, JSON text of a list. Then no messages. */
  readonly items?: string;
  /** Of a background response that has ended: what its stream is made of. */
  readonly log?: readonly CallEvent[];
}

/** One that ended. */
export type EndedResponse = Omit<KeptResponse, "error">;

/**
 * Keeps responses, each for its tenant. What is another tenant's does not exist.
 * @throws Fault policy_unavailable the database is away
 */
export interface ResponseStore {
  get(tenant: string, id: string): Promise<KeptResponse | undefined>;
  /** One that has ended. */
  put(tenant: string, response: EndedResponse): Promise<void>;
  /** One that this server works on from now on. */
  begin(tenant: string, response: EndedResponse): Promise<void>;
  /** The engine has begun. */
  started(id: string): Promise<void>;
  /** @returns false: it had been ended by others (cancelled, deleted, given up for dead) and stays as it is */
  finish(tenant: string, response: EndedResponse): Promise<boolean>;
  /** @returns false: it had ended */
  cancel(tenant: string, id: string): Promise<boolean>;
  /** @returns false: there was none */
  remove(tenant: string, id: string): Promise<boolean>;
  /** Called with ids that this server works on and that were ended by others. */
  onEnded(listener: (id: string) => void): void;
}
