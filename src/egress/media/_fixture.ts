/** A host of media over TLS on loopback, and a fetcher that may go there. For tests. */

import type { IncomingMessage, ServerResponse } from "node:http";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import type { TestContext } from "node:test";
import type { EgressDecision } from "#egress/decision.ts";
import { type Authority, authority } from "#test/fixtures/certificates.ts";
import { mediaDigest } from "./digest.ts";
import { MediaFetcher, type MediaOptions } from "./fetcher.ts";

let made: Promise<Authority> | undefined;

export interface MediaRig {
  readonly port: number;
  readonly seen: string[];
  readonly decisions: EgressDecision[];
  answer: (request: IncomingMessage, response: ServerResponse) => void;
  url(path: string, name?: string): string;
  fetcher(options?: Partial<MediaOptions>): Promise<MediaFetcher>;
}

/** Names under media.test lead there. */
export async function mediaRig(t: TestContext, answer: MediaRig["answer"]): Promise<MediaRig> {
  made ??= authority();
  const ca = await made;
  const leaf = await ca.issue({ names: ["dns:a.media.test", "dns:b.media.test"] });
  const server = createServer({ cert: leaf.cert, key: leaf.key }, (request, response) => {
    rig.seen.push(`${request.headers.host?.split(":")[0]} ${request.url}`);
    rig.answer(request, response);
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  const rig: MediaRig = {
    port,
    seen: [],
    decisions: [],
    answer,
    url: (path, name = "a") => `https://${name}.media.test:${port}${path}`,
    fetcher: async (options = {}) => new MediaFetcher({ ...(await defaults(rig, ca)), ...options }),
  };
  return rig;
}

async function defaults(rig: MediaRig, ca: Authority): Promise<MediaOptions> {
  return {
    domains: [".media.test"],
    plainHttp: false,
    ports: [rig.port],
    redirects: 0,
    refusedNetworks: [],
    timeoutMs: { image: 10_000, audio: 10_000, video: 10_000 },
    maxBytes: { image: 100_000, audio: 100_000, video: 100_000 },
    turns: { atOnce: 8, atOncePerTenant: 4, waiting: 8, waitingPerTenant: 4 },
    perRequest: { items: 4, bytes: 1000 },
    image: { pixels: 1_000_000, frames: 10, aspectRatio: 100 },
    digest: await mediaDigest("sha256", false),
    local: undefined,
    cache: undefined,
    observer: { begin: () => () => {}, record: (decision) => void rig.decisions.push(decision) },
    guard: { loopback: true, ca: ca.cert, resolve: async () => ["127.0.0.1"] },
  };
}
