/**
 * What a start prints: where the server is, what it serves, the key if it was made now, and a line to paste.
 * People read this; logs go to stderr.
 */
import type { Secret } from "#base/secret.ts";
import type { PoolTask } from "#core/pool.ts";
import type { Address } from "#http/listener.ts";

export interface Announcement {
  readonly version: string;
  readonly model: string;
  /** What computes. */
  readonly description: string;
  /** What it gives numbers for; none: it is asked for text. */
  readonly tasks: readonly PoolTask[];
  readonly publicAddress: Address;
  readonly opsAddress: Address;
  /** Those that speak TLS are there. */
  readonly tls: { readonly public?: unknown; readonly ops?: unknown };
  readonly keys: {
    /** Made now. */
    readonly minted: Secret | undefined;
    /** Given with this start. */
    readonly given: number;
    readonly stored: number;
  };
  /** Whose signed tokens may call. */
  readonly issuers: number;
  readonly stateDir: string;
  readonly warnings: readonly string[];
}

export function announce(a: Announcement): string {
  const key = a.keys.minted === undefined ? "$CASTELLAN_API_KEY" : a.keys.minted.expose();
  const lines = [
    `Castellan ${a.version}`,
    "",
    `  model   ${a.model} ${a.description}`,
    `  public  ${printAddress(a.publicAddress, a.tls.public !== undefined)}`,
    `  ops     ${printAddress(a.opsAddress, a.tls.ops !== undefined)}`,
    `  state   ${a.stateDir}`,
    ...keyLines(a),
    ...(a.issuers === 0 ? [] : [`  tokens  of ${a.issuers} issuer${a.issuers === 1 ? "" : "s"}, besides keys`]),
    ...a.warnings.map((warning) => `  warning ${warning}`),
    "",
    "Try it:",
    "",
    ...curl(a, key),
    "",
  ];
  return `${lines.join("\n")}\n`;
}

function keyLines({ keys: { minted, given, stored } }: Announcement): string[] {
  if (minted !== undefined)
    return [
      `  key     ${minted.expose()}`,
      "          (made now and shown this once; only a keyed hash of it is kept. It may use models; for operations:",
      "          castellan keys create --role operator)",
    ];
  const known = [
    ...(given > 0 ? ["yours (flag, variable or file)"] : []),
    ...(stored > 0 || given === 0 ? [`${stored} in the store`] : []),
  ].join(", and ");
  return [`  key     ${known}; one more: castellan keys create`];
}

function curl(a: Announcement, key: string): string[] {
  const tls = a.tls.public !== undefined;
  const target =
    "path" in a.publicAddress
      ? `--unix-socket ${a.publicAddress.path} ${tls ? "https" : "http"}://localhost`
      : origin(a.publicAddress, tls);
  const [path, question] = exampleFor(a.tasks);
  return [
    `  curl ${target}${path} \\`,
    `    -H "Authorization: Bearer ${key}" -H "Content-Type: application/json" \\`,
    `    -d '{"model": "${a.model}", ${question}}'`,
  ];
}

/** A route that the model answers, and what of the body is asked of it. */
function exampleFor(tasks: readonly PoolTask[]): readonly [path: string, question: string] {
  if (tasks.includes("embed")) return ["/v1/embeddings", '"input": "What is Castellan?"'];
  if (tasks.includes("score"))
    return ["/rerank", '"query": "What is Castellan?", "documents": ["A server.", "A tree."]'];
  if (tasks.includes("classify")) return ["/classify", '"input": "What is Castellan?"'];
  if (tasks.length > 0) return ["/pooling", '"input": "What is Castellan?"'];
  return ["/v1/chat/completions", '"messages": [{"role": "user", "content": "What is Castellan?"}]'];
}

function printAddress(address: Address, tls: boolean): string {
  return "path" in address ? `unix:${address.path}${tls ? " (TLS)" : ""}` : origin(address, tls);
}

/** http(s)://host:port, with an address that a client can dial in place of a wildcard. */
export function origin({ host, port }: { readonly host: string; readonly port: number }, tls: boolean): string {
  const name = host === "0.0.0.0" ? "127.0.0.1" : host === "::" ? "[::1]" : host.includes(":") ? `[${host}]` : host;
  return `${tls ? "https" : "http"}://${name}:${port}`;
}
