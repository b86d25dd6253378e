/**
 * HTTP metrics as vLLM's instrumentator names them. Every label has a closed set of values: the declared path of a
 * route, a known method, the class of the status (CVE-2026-105759: a method from the wire as a label grows for ever).
 */
import { Counter, type Registry } from "#base/metrics.ts";
import { type Tally, TallyHistogram } from "#base/tally.ts";

/** One finished call: the part of http's CallRecord that is measured. `route`: the declared path, if one matched. */
export interface HttpObservation {
  readonly route: string | undefined;
  readonly method: string;
  readonly status: number;
  readonly milliseconds: number;
  readonly requestBytes: number;
  readonly responseBytes: number;
}

const METHODS: ReadonlySet<string> = new Set(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]);
/** Asked for by machines every few seconds: vLLM leaves them out, too. */
const EXCLUDED: ReadonlySet<string> = new Set(["/metrics", "/health", "/load", "/ping", "/version"]);
const LOW_RESOLUTION = [0.1, 0.5, 1];
const HIGH_RESOLUTION = [
  0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, 7.5, 10, 30, 60,
];
const BYTES: number[] = [];

const CLASSES = ["other", "1xx", "2xx", "3xx", "4xx", "5xx"] as const;

/** What was counted of a route. */
interface Handler {
  readonly received: Tally;
  readonly sent: Tally;
  readonly methods: Map<string, Method>;
}

interface Method {
  readonly duration: Tally;
  /** By class of the status: the place in `CLASSES`. */
  readonly requests: number[];
}

/** @returns what to call once a request */
export function registerHttpMetrics(registry: Registry): (observation: HttpObservation) => void {
  const handlers = new Map<string, Handler>();
  registerRequests(registry, handlers);
  const handlerOf = handlerMaker(registry);
  const precise = new TallyHistogram({
    name: "http_request_duration_highr_seconds",
    help: "Latency with many buckets but no API specific labels.",
    labelNames: [],
    buckets: HIGH_RESOLUTION,
    registry,
  }).tally({});
  return (seen) => {
    if (seen.route !== undefined && EXCLUDED.has(seen.route)) return;
    const name = seen.route ?? "none";
    const handler = handlers.get(name) ?? kept(handlers, name, handlerOf.handler(name));
    const verb = METHODS.has(seen.method) ? seen.method : "other";
    const method = handler.methods.get(verb) ?? kept(handler.methods, verb, handlerOf.method(name, verb));
    const status = classOf(seen.status);
    method.requests[status] = (method.requests[status] ?? 0) + 1;
    handler.received.observe(seen.requestBytes);
    handler.sent.observe(seen.responseBytes);
    const seconds = seen.milliseconds / 1000;
    method.duration.observe(seconds);
    precise.observe(seconds);
  };
}

function registerRequests(registry: Registry, handlers: ReadonlyMap<string, Handler>): void {
  new Counter({
    name: "http_requests_total",
    help: "Total number of requests by method, status and handler.",
    labelNames: ["handler", "method", "status"],
    registers: [registry],
    collect() {
      this.reset();
      for (const [handler, { methods }] of handlers)
        for (const [method, { requests }] of methods)
          for (const [status, name] of CLASSES.entries()) {
            const count = requests[status] ?? 0;
            if (count > 0) this.inc({ handler, method, status: name }, count);
          }
    },
  });
}

/** Makes what counts a route, and one of its methods. */
function handlerMaker(registry: Registry) {
  const size = (name: string, help: string) =>
    new TallyHistogram({ name, help, labelNames: ["handler"], buckets: BYTES, registry });
  const received = size("http_request_size_bytes", "Content length of incoming requests by handler.");
  const sent = size("http_response_size_bytes", "Content length of outgoing responses by handler.");
  const duration = new TallyHistogram({
    name: "http_request_duration_seconds",
    help: "Latency with only few buckets by handler.",
    labelNames: ["handler", "method"],
    buckets: LOW_RESOLUTION,
    registry,
  });
  return {
    handler: (handler: string): Handler => ({
      received: received.tally({ handler }),
      sent: sent.tally({ handler }),
      methods: new Map(),
    }),
    method: (handler: string, method: string): Method => ({
      duration: duration.tally({ handler, method }),
      requests: CLASSES.map(() => 0),
    }),
  };
}

function kept<T>(map: Map<string, T>, name: string, made: T): T {
  map.set(name, made);
  return made;
}

/** The place of its class in `CLASSES`. */
function classOf(status: number): number {
  return status >= 100 && status < 600 ? Math.floor(status / 100) : 0;
}
