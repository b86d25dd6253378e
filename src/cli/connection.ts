/**
 * What `chat` and `bench` share: a client for the named server, and the model to talk to.
 */
import { readFileSync } from "node:fs";
import { Secret } from "#base/secret.ts";
import { environment } from "#config/environment.ts";
import { ClientError, type ClientTls, LocalClient } from "#egress/local-client.ts";

export interface ConnectionOptions {
  readonly url: string;
  readonly model?: string;
  /** Files in PEM, as curl's flags of the same names. */
  readonly cacert?: string;
  readonly cert?: string;
  readonly key?: string;
}

/** @throws ClientError a URL that cannot be used */
export function connect(options: ConnectionOptions, connections = 4): LocalClient {
  const url = URL.parse(options.url);
  if (url === null || (url.protocol !== "http:" && url.protocol !== "https:"))
    throw new ClientError(`${options.url} is not an http URL`);
  const env = environment();
  const key = env["CASTELLAN_API_KEY"] ?? env["VLLM_API_KEY"];
  return new LocalClient({
    origin: url.origin,
    connections,
    ...(key === undefined || key === "" ? {} : { key: new Secret(key) }),
    ...(url.protocol === "https:" ? { tls: tlsOf(options) } : {}),
  });
}

function tlsOf({ cacert, cert, key = cert }: ConnectionOptions): ClientTls {
  return {
    ...(cacert === undefined ? {} : { authorities: textOf(cacert) }),
    ...(cert === undefined ? {} : { certificate: textOf(cert) }),
    ...(key === undefined ? {} : { key: new Secret(textOf(key)) }),
  };
}

function textOf(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    throw new ClientError(`${path} cannot be read (${(error as NodeJS.ErrnoException).code ?? "error"})`);
  }
}

/** The named model, else the first that the server lists. @throws ClientError */
export async function chooseModel(client: LocalClient, named: string | undefined): Promise<string> {
  if (named !== undefined) return named;
  const { data } = (await client.get("/v1/models")) as { data?: readonly { readonly id?: string }[] };
  const first = data?.[0]?.id;
  if (first === undefined) throw new ClientError("the server lists no model");
  return first;
}
