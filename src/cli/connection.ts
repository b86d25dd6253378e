/**
 * What `chat` and `bench` share: a client for the named server, and the model to talk to.
 */
import { Secret } from "#base/secret.ts";
import { environment } from "#config/environment.ts";
import { ClientError, LocalClient } from "#egress/local-client.ts";

export interface ConnectionOptions {
  readonly url: string;
  readonly model?: string;
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
  });
}

/** The named model, else the first that the server lists. @throws ClientError */
export async function chooseModel(client: LocalClient, named: string | undefined): Promise<string> {
  if (named !== undefined) return named;
  const { data } = (await client.get("/v1/models")) as { data?: readonly { readonly id?: string }[] };
  const first = data?.[0]?.id;
  if (first === undefined) throw new ClientError("the server lists no model");
  return first;
}
