import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import type { IncomingMessage, ServerResponse } from "node:http";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { resolveSettings } from "#config/resolve.ts";
import { authority } from "#test/fixtures/certificates.ts";
import { isUrl, localPlaces, shownPlace } from "./batch-transfer.ts";
import { StartupError } from "./startup-error.ts";

const ca = await authority();
const leaf = await ca.issue({ names: ["dns:store.test"] });
const LINES = '{"custom_id":"a"}\n';

interface Store {
  readonly host: string;
  readonly folder: string;
  readonly got: string[];
  answer: (request: IncomingMessage, response: ServerResponse) => void;
  places(input: string, output: string, folder?: string, hosts?: readonly string[]): ReturnType<typeof localPlaces>;
}

async function store(t: TestContext): Promise<Store> {
  const folder = mkdtempSync(join(tmpdir(), "castellan-transfer-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const server = createServer({ cert: leaf.cert, key: leaf.key }, async (request, response) => {
    const body = (await request.toArray()).join("");
    made.got.push(`${request.method} ${request.url} ${request.headers["content-length"] ?? "-"} ${body}`);
    made.answer(request, response);
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const host = `store.test:${(server.address() as AddressInfo).port}`;
  const made: Store = {
    host,
    folder,
    got: [],
    answer: (request, response) => void response.end(request.method === "GET" ? LINES : ""),
    places: (input, output, tmp, hosts = [host]) =>
      localPlaces(
        { input, output, folder: tmp },
        resolveSettings(["m", "--log-level", "silent", ...hosts.flatMap((each) => ["--batch-url-hosts", each])], {})
          .settings,
        { ca: ca.cert, loopback: true, resolve: async () => ["127.0.0.1"] },
      ),
  };
  return made;
}

const told = (text: RegExp) => (error: unknown) => {
  assert.ok(error instanceof StartupError, String(error));
  assert.match(error.message, text);
  assert.doesNotMatch(error.message, /secret/);
  return true;
};

test("the input comes from a URL, and the output goes to one, whole", async (t) => {
  const { host, got, folder, places } = await store(t);
  const tmp = join(folder, "tmp");
  const local = await places(`https://${host}/in.jsonl?secret=1`, `https://${host}/out.jsonl?secret=2`, tmp);
  assert.equal(readFileSync(local.input, "utf8"), LINES);
  assert.equal(statSync(local.input).mode & 0o777, 0o600);
  writeFileSync(local.output, "rows\n");
  await local.deliver();
  await local.clean();
  assert.deepEqual(got, ["GET /in.jsonl?secret=1 - ", "PUT /out.jsonl?secret=2 5 rows\n"]);
  assert.deepEqual(readdirSync(tmp), []);
});

test("a run that was broken off finds its rows under the folder that was named, and nowhere else", async (t) => {
  const { host, folder, places } = await store(t);
  const tmp = join(folder, "tmp");
  const first = await places("in.jsonl", `https://${host}/out.jsonl?secret=1`, tmp);
  writeFileSync(first.output, "half\n");
  await first.clean();
  const second = await places("in.jsonl", `https://${host}/out.jsonl?secret=2`, tmp);
  assert.equal(readFileSync(second.output, "utf8"), "half\n");
  const other = await places("in.jsonl", `https://${host}/other.jsonl`, tmp);
  assert.notEqual(other.output, first.output);
  const lost = await places("in.jsonl", `https://${host}/out.jsonl`);
  writeFileSync(lost.output, "half\n");
  await lost.clean();
  assert.ok(!existsSync(lost.output));
});

test("what cannot be delivered is kept, and where is told", async (t) => {
  const at = await store(t);
  at.answer = (_, response) => void response.writeHead(403).end("secret");
  const local = await at.places("in.jsonl", `https://${at.host}/out.jsonl?secret=1`);
  t.after(() => rmSync(join(local.output, ".."), { recursive: true, force: true }));
  writeFileSync(local.output, "rows\n");
  await assert.rejects(local.deliver(), told(/out\.jsonl cannot be put; its rows are in .*: the server answers 403/));
  await local.clean();
  assert.equal(readFileSync(local.output, "utf8"), "rows\n");
});

test("other hosts, schemes, redirects and answers are refused, and leave nothing", async (t) => {
  const at = await store(t);
  const tmp = join(at.folder, "tmp");
  const refused = async (input: string, text: RegExp, hosts?: readonly string[]): Promise<void> => {
    await assert.rejects(at.places(input, "out.jsonl", tmp, hosts), told(text), input);
    assert.deepEqual(readdirSync(tmp), []);
  };
  await refused(`https://${at.host}/in.jsonl?secret`, /was named \(--batch-url-hosts/, []);
  await refused("https://other.test/in.jsonl", /was named/);
  await refused(`https://user@${at.host}/in.jsonl`, /not plain/);
  at.answer = (_, response) => void response.writeHead(302, { location: "https://other.test/" }).end();
  await refused(`https://${at.host}/in.jsonl`, /redirect/);
  at.answer = (_, response) => void response.writeHead(404).end("secret");
  await refused(`https://${at.host}/in.jsonl`, /answers 404/);
  at.answer = (_, response) => void response.destroy();
  await refused(`https://${at.host}/in.jsonl`, /cannot be fetched/);
});

test("what is shown of a place is without its query", () => {
  assert.equal(shownPlace("https://a.example/x?secret#y"), "https://a.example/x");
  assert.equal(shownPlace("in?.jsonl"), "in?.jsonl");
  assert.ok(isUrl("s3://x") && !isUrl("./in.jsonl") && !isUrl("C:\\in.jsonl"));
});
