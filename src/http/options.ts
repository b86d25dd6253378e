/**
 * What an operator may set about HTTP. Times in milliseconds, sizes in bytes; every default is the safe value.
 */
export interface HttpOptions {
  /** Lowers every route's own body limit. */
  readonly maxBodyBytes: number;
  /** Lowers the limit of files in forms. */
  readonly maxUploadBytes: number;
  /** The same of speech. */
  readonly maxAudioBytes: number;
  /** Lowers every route's own time limit. */
  readonly maxTimeoutMs: number;
  /** Calls with a key that may be in the corridor at once; 0: no cap. Beyond: `overloaded`. */
  readonly maxInFlight: number;
  /** A record a call; liveness routes at level debug. */
  readonly accessLog: boolean;
  /** Takes a valid X-Request-Id over and prints it in every answer. */
  readonly requestIdHeader: boolean;
  /** Takes secrets out of what a failure says to the client, and finds those in request ids. */
  readonly redact: (text: string) => string;
  /** For a whole body to arrive. */
  readonly bodyTimeoutMs: number;
  /** A client that takes no byte for this long is cut. */
  readonly stallTimeoutMs: number;
  /** A comment in a stream that has been silent for this long; 0: none. */
  readonly sseKeepAliveMs: number;
  /** How long an answered connection stays half open for a client that still sends its refused body. */
  readonly lingerMs: number;
  readonly headersTimeoutMs: number;
  readonly keepAliveTimeoutMs: number;
  /** Request line and headers together; beyond: 431. */
  readonly maxHeaderBytes: number;
  /** Header lines; beyond: 431. */
  readonly maxHeaders: number;
  /** Requests sent before the first is answered, on one connection; beyond: it is cut. */
  readonly maxPipelined: number;
  /** Requests on one connection before it is closed; 0: no cap. */
  readonly maxRequestsPerSocket: number;
  /** Connections of one listener; beyond: dropped at once. */
  readonly maxConnections: number;
  /** Connections of one address (64 bits of an IPv6 one), loopback aside; 0: no cap. Beyond: dropped at once. */
  readonly maxConnectionsPerAddress: number;
  /** CIDR blocks of proxies, which speak for many and have no cap of their own. */
  readonly proxies: readonly string[];
  /** Older connections end with their next answer; 0: none does. */
  readonly maxConnectionAgeMs: number;
  /** For a TLS handshake. */
  readonly handshakeTimeoutMs: number;
  /** TLS handshakes of one listener at once; beyond: the oldest is dropped. */
  readonly maxHandshakes: number;
}

export const DEFAULT_HTTP_OPTIONS: HttpOptions = {
  maxBodyBytes: 32 * 1024 * 1024,
  maxUploadBytes: 64 * 1024 * 1024,
  maxAudioBytes: 25 * 1024 * 1024,
  maxTimeoutMs: 600_000,
  maxInFlight: 0,
  accessLog: true,
  requestIdHeader: false,
  redact: (text) => text,
  bodyTimeoutMs: 60_000,
  stallTimeoutMs: 60_000,
  sseKeepAliveMs: 0,
  lingerMs: 500,
  headersTimeoutMs: 15_000,
  keepAliveTimeoutMs: 5_000,
  maxHeaderBytes: 16 * 1024,
  maxHeaders: 100,
  maxPipelined: 16,
  maxRequestsPerSocket: 0,
  maxConnections: 4096,
  maxConnectionsPerAddress: 256,
  proxies: [],
  maxConnectionAgeMs: 3_600_000,
  handshakeTimeoutMs: 10_000,
  maxHandshakes: 512,
};
