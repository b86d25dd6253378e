import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { Secret } from "#base/secret.ts";
import { parseHubReference } from "#egress/hub-names.ts";
import { COMMIT, error, type HubServer, json, sha256, startHubServer } from "../../test/fixtures/hub-server.ts";
import { type FetchedModel, type FetchModelOptions, fetchModel } from "./hub-model.ts";
import { ModelError, type ModelErrorCode } from "./model-error.ts";

const CONTENT = randomBytes(300_000);
const REFERENCE = "org/tiny-GGUF:Q8_0";
const NEXT_COMMIT = "f".repeat(40);

let server: HubServer;
let cacheDir: string;
let base: string;

beforeEach(async () => {
  server = await startHubServer([
    { path: "README.md", content: Buffer.from("# hello") },
    { path: "tiny-Q8_0.gguf", content: CONTENT },
    { path: "tiny-Q4_K_M.gguf", content: Buffer.from("GGUF four") },
  ]);
  base = await mkdtemp(join(tmpdir(), "castellan-hub-"));
  cacheDir = join(base, "cache");
});

afterEach(async () => {
  await server.close();
  await rm(base, { recursive: true, force: true });
});

function get(reference = REFERENCE, options: Partial<FetchModelOptions> = {}): Promise<FetchedModel> {
  const common = { cacheDir, endpoint: server.url, storageHosts: [server.storageHost], retryDelayMs: 1 };
  return fetchModel(parseHubReference(reference), { ...common, ...options });
}

async function fails(code: ModelErrorCode, message: RegExp, attempt: Promise<unknown>): Promise<void> {
  await assert.rejects(attempt, (failure) => {
    assert.ok(failure instanceof ModelError, String(failure));
    assert.match(failure.message, message);
    assert.equal(failure.code, code, failure.message);
    return true;
  });
}

/** Every file below the cache. */
async function stored(): Promise<string[]> {
  const entries = await readdir(cacheDir, { recursive: true, withFileTypes: true });
  return entries.filter((entry) => !entry.isDirectory()).map((entry) => entry.name);
}

test("a model is downloaded, checked, stored for us alone, and found again", async () => {
  const first = await get();
  assert.deepEqual(first, {
    path: join(cacheDir, "models/org--tiny-GGUF", COMMIT, "tiny-Q8_0.gguf"),
    commit: COMMIT,
    sha256: sha256(CONTENT),
    bytes: CONTENT.length,
    fromCache: false,
  });
  assert.deepEqual(await readFile(first.path), CONTENT);
  assert.equal((await stat(first.path)).mode & 0o777, 0o600);
  for (const path of [cacheDir, join(cacheDir, "models"), dirname(first.path), dirname(dirname(first.path))]) {
    assert.equal((await stat(path)).mode & 0o777, 0o700, path);
  }
  assert.deepEqual(
    (await stored()).filter((name) => /partial|lock/.test(name)),
    [],
  );
  assert.deepEqual(await get(), { ...first, fromCache: true });
  assert.equal(server.bytesSent(), CONTENT.length);
});

test("the commit is fixed once: every request after the first names it", async () => {
  await get(REFERENCE, { revision: "main" });
  const naming = server.seen.filter((request) => request.host === "hub").map((request) => request.url.includes(COMMIT));
  assert.ok(naming.length >= 4);
  assert.deepEqual(
    naming,
    naming.map((_, i) => i > 0),
  );
});

test("progress counts up to the whole", async () => {
  const events: [string, number, number][] = [];
  await get(REFERENCE, { onProgress: ({ phase, done, total }) => events.push([phase, done, total]) });
  assert.deepEqual(events[0], ["download", 0, CONTENT.length]);
  assert.deepEqual(events.at(-1), ["download", CONTENT.length, CONTENT.length]);
  events.length = 0;
  await get(REFERENCE, { onProgress: ({ phase, done, total }) => events.push([phase, done, total]) });
  assert.deepEqual(events.at(-1), ["verify", CONTENT.length, CONTENT.length]);
});

test("the token goes to the endpoint and never to the storage", async () => {
  server.behave.token = "on-prem-token";
  await get(REFERENCE, { token: new Secret("on-prem-token") });
  const [hub, storage] = [server.seen.filter((r) => r.host === "hub"), server.seen.filter((r) => r.host === "storage")];
  assert.ok(hub.length > 0 && hub.every((request) => request.authorization === "Bearer on-prem-token"));
  assert.ok(storage.length > 0 && storage.every((request) => request.authorization === undefined));
});

test("a next page on another allowed host does not get the token", async () => {
  server.behave.token = "t";
  server.behave.hub = (request, response) => {
    if (!request.url?.includes("/tree/")) return false;
    response.writeHead(200, { link: `<http://${server.storageHost}/page2>; rel="next"` }).end("[]");
    return true;
  };
  await fails("not_found", /no model/, get(REFERENCE, { token: new Secret("t") }));
  const [page] = server.seen.filter((request) => request.host === "storage");
  assert.equal(page?.url, "/page2");
  assert.equal(page?.authorization, undefined);
});

test("a dropped connection goes on where it stopped: no byte comes twice", async () => {
  server.behave.dropAfter = [100_000, 50_000];
  assert.deepEqual(await readFile((await get()).path), CONTENT);
  const ranges = server.seen.filter((request) => request.host === "storage");
  assert.equal(ranges.length, 3);
  assert.equal(ranges[0]?.range, undefined);
  assert.equal(ranges[2]?.ifRange, '"content-1"');
  assert.equal(server.bytesSent(), CONTENT.length);
});

test("an interrupted download goes on in a later run", async () => {
  server.behave.dropAfter = [100_000, 0, 0, 0, 0, 0];
  await fails("network", /failed|early/, get());
  server.behave.dropAfter = [];
  const done: number[] = [];
  const model = await get(REFERENCE, { onProgress: (event) => done.push(event.done) });
  assert.deepEqual(await readFile(model.path), CONTENT);
  assert.equal(server.bytesSent(), CONTENT.length);
  assert.equal(server.seen.at(-1)?.ifRange, '"content-1"');
});

for (const [what, change] of [
  ["ignores the range", () => (server.behave.ignoreRange = true)],
  ["has another entity tag", () => (server.behave.etag = '"content-2"')],
  ["answers 416", () => answer416()],
] as const) {
  test(`the download starts over when the server ${what}`, async () => {
    server.behave.dropAfter = [100_000, 0, 0, 0, 0, 0];
    await fails("network", /./, get());
    server.behave.dropAfter = [];
    change();
    assert.deepEqual(await readFile((await get()).path), CONTENT);
    assert.equal(server.bytesSent(), CONTENT.length + 100_000);
  });
}

function answer416(): void {
  server.behave.storage = (request, response) => {
    if (request.headers.range === undefined) return false;
    response.writeHead(416).end();
    return true;
  };
}

test("a part spoilt on the disk costs a second download, not a wrong model", async () => {
  server.behave.dropAfter = [100_000, 0, 0, 0, 0, 0];
  await fails("network", /./, get());
  server.behave.dropAfter = [];
  const partial = join(cacheDir, "models/org--tiny-GGUF", COMMIT, "tiny-Q8_0.gguf.partial");
  await flip(partial, 5);
  assert.deepEqual(await readFile((await get()).path), CONTENT);
});

test("a wrong digest is refused and nothing is left", async () => {
  server.behave.metadata = (entry) => ({ ...entry, lfs: { ...(entry["lfs"] as object), oid: "0".repeat(64) } });
  await fails("digest", /SHA-256/, get());
  assert.deepEqual(
    (await stored()).filter((name) => name.includes(".gguf")),
    [],
  );
});

for (const [what, size] of [
  ["more", CONTENT.length - 1],
  ["fewer", CONTENT.length + 1],
] as const) {
  test(`${what} bytes than the metadata says are refused`, async () => {
    server.behave.metadata = (entry) => ({ ...entry, lfs: { ...(entry["lfs"] as object), size } });
    await fails("size", /metadata says/, get());
  });
}

test("more bytes than announced are refused while they come, without a content length", async () => {
  server.behave.storage = (_request, response) => {
    response.writeHead(200, { etag: '"x"' });
    response.end(Buffer.concat([CONTENT, Buffer.from("more")]));
    return true;
  };
  await fails("size", /more than/, get());
});

test("a body that ends early, again and again, is an error and not a loop", async () => {
  server.behave.storage = (_request, response) => {
    response.writeHead(200).end("GGUF");
    return true;
  };
  await fails("network", /ended early/, get());
  assert.equal(server.seen.filter((request) => request.host === "storage").length, 5);
});

test("another range than the one asked for is refused", async () => {
  server.behave.dropAfter = [1000];
  server.behave.storage = (request, response) => {
    if (request.headers.range === undefined) return false;
    response.writeHead(206, { "content-range": `bytes 0-${CONTENT.length - 1}/${CONTENT.length}` }).end(CONTENT);
    return true;
  };
  await fails("protocol", /another range/, get());
});

test("a body that stops, and one that drips, end with a clear error", async () => {
  const timeouts = { bodyIdleMs: 60, minBytesPerSecond: 1_000_000 };
  server.behave.storage = (_request, response) => response.writeHead(200).write("GGUF") || true;
  await fails("timeout", /too slowly/, get(REFERENCE, { timeouts }));
  const drips: NodeJS.Timeout[] = [];
  server.behave.storage = (_request, response) => {
    response.writeHead(200);
    drips.push(setInterval(() => response.write("x"), 5));
    return true;
  };
  await fails("timeout", /too slowly/, get(REFERENCE, { timeouts }));
  for (const drip of drips) clearInterval(drip);
});

test("a stopped download says so", async () => {
  const stop = new AbortController();
  server.behave.storage = (_request, response) => {
    response.writeHead(200).write("GGUF");
    stop.abort();
    return true;
  };
  await fails("aborted", /stopped/, get(REFERENCE, { signal: stop.signal }));
});

test("redirects: a host that is not allowed, another scheme, a loop", async () => {
  server.behave.location = () => "http://127.0.0.1:9/x";
  await fails("forbidden", /127\.0\.0\.1:9 is not allowed/, get());
  server.behave.location = () => "http://example.com/x";
  await fails("forbidden", /plain http/, get());
  server.behave.location = () => "file:///etc/passwd";
  await fails("forbidden", /scheme/, get());
  server.behave.location = () => `${server.url}/org/tiny-GGUF/resolve/${COMMIT}/tiny-Q8_0.gguf`;
  await fails("redirects", /more than 5/, get());
});

test("refusals of the hub are told in words", async () => {
  server.behave.hub = (_request, response) => {
    error(response, 403, "GatedRepo", "Access restricted");
    return true;
  };
  await fails("unauthorized", /gated: a token is needed/, get());
  await fails("unauthorized", /gated: the token given may not/, get(REFERENCE, { token: new Secret("t") }));
  server.behave.hub = (_request, response) => {
    error(response, 401, "RepoNotFound", "x");
    return true;
  };
  await fails("unauthorized", /private, gated, or not there: a token is needed/, get());
  server.behave.hub = (_request, response) => {
    error(response, 404, "RepoNotFound", "x");
    return true;
  };
  await fails("not_found", /no model org\/tiny-GGUF/, get());
  server.behave.hub = undefined as never;
  await fails("not_found", /no such revision/, get(REFERENCE, { revision: "nightly" }));
  await fails("not_found", /no file other\.gguf/, get("org/tiny-GGUF:other.gguf"));
});

test("answers that are no answers", async () => {
  const body = (text: string, type = "application/json") => {
    server.behave.hub = (_request, response) => {
      response.writeHead(200, { "content-type": type }).end(text);
      return true;
    };
  };
  body("<html>captive portal</html>", "text/html");
  await fails("bad_answer", /not JSON/, get());
  body(`"${"x".repeat(17 * 1024 * 1024)}"`);
  await fails("too_large", /larger than/, get());
  body(`{"sha":"${COMMIT}","sha":"${NEXT_COMMIT}"}`);
  await fails("bad_answer", /twice/, get());
  for (const text of ["null", "[]", '{"sha":"main"}', '{"sha":null}']) {
    body(text);
    await fails("bad_answer", /form/, get());
  }
});

test("a file without a digest in the metadata is refused", async () => {
  server.behave.metadata = ({ lfs: _, ...entry }) => entry;
  await fails("no_digest", /no SHA-256/, get());
});

test("unsafe names in the hub's listing are refused", async () => {
  for (const path of ["../../evil-Q8_0.gguf", "/etc/Q8_0.gguf", "a\\b-Q8_0.gguf", "a\n-Q8_0.gguf", "a//Q8_0.gguf"]) {
    server.behave.hub = (request, response) => {
      if (!request.url?.includes("/tree/")) return false;
      json(response, [{ type: "file", path, size: 1, oid: "x" }]);
      return true;
    };
    await fails("bad_name", /file name/, get());
  }
});

test("a flipped byte in the cache is found and the file downloaded anew", async () => {
  const { path } = await get();
  await flip(path, 1234);
  const warnings: string[] = [];
  const again = await get(REFERENCE, { onWarning: (message) => warnings.push(message) });
  assert.equal(again.fromCache, false);
  assert.deepEqual(await readFile(path), CONTENT);
  assert.match(warnings.join(), /does not have the hub's SHA-256/);
  await flip(path, 1234);
  await fails("digest", /offline/, get(REFERENCE, { offline: true }));
});

async function flip(path: string, at: number): Promise<void> {
  const bytes = await readFile(path);
  bytes[at] = (bytes[at] ?? 0) ^ 1;
  await writeFile(path, bytes);
}

test("directories and files that others could change are refused", async () => {
  const refused = (message: RegExp) => fails("directory", message, get());
  await mkdir(cacheDir);
  await chmod(cacheDir, 0o777);
  await refused(/open to other users \(mode 777\)/);
  await chmod(cacheDir, 0o720);
  await refused(/open to other users/);
  await rm(cacheDir, { recursive: true });
  await mkdir(join(base, "elsewhere"), { mode: 0o700 });
  await symlink(join(base, "elsewhere"), cacheDir);
  await refused(/symbolic link/);
  await rm(cacheDir);
  await writeFile(cacheDir, "");
  await refused(/not a directory/);
  await rm(cacheDir);
  const { path } = await get();
  await chmod(dirname(path), 0o750);
  await refused(/open to other users/);
  await chmod(dirname(path), 0o700);
  await chmod(path, 0o666);
  await refused(/written by other users/);
  await rm(path);
  await symlink("/etc/passwd", path);
  await refused(/symbolic link/);
});

test("two at once download once", async () => {
  const warnings: string[] = [];
  const both = await Promise.all([1, 2].map(() => get(REFERENCE, { onWarning: (message) => warnings.push(message) })));
  assert.deepEqual(both.map((model) => model.fromCache).sort(), [false, true]);
  assert.equal(server.bytesSent(), CONTENT.length);
});

test("without network a branch is what it was, with a warning; offline quietly", async () => {
  const first = await get();
  assert.equal((await get(REFERENCE, { offline: true })).path, first.path);
  const asked = server.seen.length;
  await get(REFERENCE, { offline: true });
  assert.equal(server.seen.length, asked);
  server.behave.hub = (_request, response) => {
    response.writeHead(503).end();
    return true;
  };
  const warnings: string[] = [];
  const third = await get(REFERENCE, { onWarning: (message) => warnings.push(message) });
  assert.deepEqual(third, { ...first, fromCache: true });
  assert.match(warnings.join(), /cannot be reached .*main as it was last seen, commit 0123456789ab/);
  await server.close();
  assert.equal((await get()).path, first.path);
  await fails("network", /connection/, get("org/tiny-GGUF:Q4_K_M"));
  await fails("offline", /never resolved/, get("org/tiny-GGUF:Q4_K_M", { offline: true }));
});

test("a refusal is not taken for a missing network", async () => {
  await get();
  server.behave.hub = (_request, response) => {
    error(response, 403, "GatedRepo", "x");
    return true;
  };
  await fails("unauthorized", /gated/, get());
});

test("a commit with a file name needs no network once it is stored", async () => {
  const pinned = () => get("org/tiny-GGUF:tiny-Q8_0.gguf", { revision: COMMIT });
  const { path } = await pinned();
  const asked = server.seen.length;
  assert.equal((await pinned()).fromCache, true);
  assert.equal(server.seen.length, asked);
  await truncate(path, 10);
  assert.equal((await pinned()).fromCache, false);
});

test("another branch head is another commit, stored beside", async () => {
  const first = await get();
  server.revisions.set("main", NEXT_COMMIT);
  const second = await get();
  assert.equal(second.commit, NEXT_COMMIT);
  assert.notEqual(second.path, first.path);
});

test("a disk without room is told before the first byte", async () => {
  const size = 2 ** 52;
  server.behave.metadata = (entry) => ({ ...entry, lfs: { ...(entry["lfs"] as object), size } });
  await fails("disk", /needs 4194304\.0 GiB/, get());
  assert.equal(server.bytesSent(), 0);
});

test("endpoints and revisions that may not be used", async () => {
  for (const endpoint of ["http://example.com", "ftp://x", "https://user:pw@huggingface.co", "nonsense"]) {
    await fails("bad_name", /endpoint/, get(REFERENCE, { endpoint }));
  }
  for (const revision of ["../x", "", "a b", "-x", "main\n"])
    await fails("bad_name", /revision/, get(REFERENCE, { revision }));
});
