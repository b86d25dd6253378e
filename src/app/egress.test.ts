import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { createRegistry, printMetrics } from "#base/metrics.ts";
import { resolveSettings } from "#config/resolve.ts";
import type { EgressDecision } from "#egress/decision.ts";
import { dataUrl } from "#egress/media/data-url.ts";
import { png } from "#test/fixtures/images.ts";
import { checkEgress, egressRecords, fetchesMedia, openMedia, recordedGet } from "./egress.ts";
import { StartupError } from "./startup-error.ts";

const settingsOf = (...argv: string[]) => resolveSettings(["model", ...argv], {}).settings;
const nobody = { begin: () => () => {}, record: () => {} };

function scratch(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), "castellan-app-egress-"));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

test("a fetch is one line of the log and counts; one that was refused for where it leads is an event", async () => {
  const lines: unknown[][] = [];
  const events: unknown[][] = [];
  const records = egressRecords((...line) => void lines.push(line));
  const registry = createRegistry();
  records.register(registry);
  records.auditTo(async (...event) => void events.push(event));
  const decision: EgressDecision = {
    kind: "image",
    decision: "allowed",
    outcome: "ok",
    rule: undefined,
    reason: undefined,
    host: "a.example",
    addresses: ["93.184.216.34"],
    hops: 0,
    bytes: 100,
    cached: false,
    milliseconds: 12.34,
    tenant: "acme",
    requestId: "r1",
  };
  const end = records.begin("image");
  records.record(decision);
  const refused = { decision: "refused", outcome: "forbidden", rule: 4, reason: "leads inside", bytes: 0 } as const;
  records.record({ ...decision, ...refused });
  records.record({ ...decision, ...refused, kind: "jwks" });
  records.record({ ...decision, decision: "refused", outcome: "busy", rule: 8, bytes: 0 });
  records.record({ ...decision, outcome: "timeout", rule: 8, bytes: 7 });
  assert.deepEqual(
    lines.map(([level, message]) => `${level} ${message}`),
    ["info egress", "warn egress refused", "warn egress refused", "warn egress refused", "warn egress"],
  );
  assert.deepEqual(lines[0]?.[2], { ...decision, milliseconds: 12.3 });
  assert.deepEqual(events, [
    [
      "egress.refuse",
      { kind: "server", id: "server", tenant: "acme" },
      "a.example",
      { kind: "image", rule: 4, reason: "leads inside", request: "r1" },
    ],
  ]);
  const { body } = await printMetrics(registry);
  for (const line of [
    'castellan_egress_requests_total{kind="image",decision="allowed",outcome="ok"} 1',
    'castellan_egress_requests_total{kind="image",decision="refused",outcome="forbidden"} 1',
    'castellan_egress_requests_total{kind="jwks",decision="refused",outcome="forbidden"} 1',
    'castellan_egress_received_bytes_total{kind="image"} 107',
    'castellan_egress_in_flight{kind="image"} 1',
    'castellan_egress_duration_seconds_count{kind="image"} 4',
  ])
    assert.ok(body.includes(line), line);
  end();
  assert.ok((await printMetrics(registry)).body.includes('castellan_egress_in_flight{kind="image"} 0'));
});

test("what would never match is an error at start", () => {
  checkEgress(settingsOf("--allowed-media-domains", "a.example", ".b.example", "--egress-refused-networks=10.0.0.0/8"));
  for (const argv of [
    ["--allowed-media-domains", "https://a.example"],
    ["--allowed-media-domains", "a.example", "B.example"],
    ["--allowed-media-domains", "*.a.example"],
    ["--batch-url-hosts", "a.example/x"],
    ["--egress-refused-networks", "10.0.0.0"],
    ["--media-ports", "80.5"],
  ])
    assert.throws(() => checkEgress(settingsOf(...argv)), StartupError, argv.join(" "));
});

test("an algorithm that is not approved is an error at start where only approved ones may be used", () => {
  for (const name of ["sha256", "sha512"]) checkEgress(settingsOf("--mm-hasher-algorithm", name), true);
  const blake3 = settingsOf("--mm-hasher-algorithm", "blake3");
  checkEgress(blake3, false);
  assert.throws(
    () => checkEgress(blake3, true),
    (error) => error instanceof StartupError && /FIPS/.test(error.message),
  );
});

test("vLLM's variables are read under its names", () => {
  const { settings } = resolveSettings(["model"], {
    VLLM_MEDIA_URL_ALLOW_REDIRECTS: "1",
    VLLM_IMAGE_FETCH_TIMEOUT: "6",
    VLLM_AUDIO_FETCH_TIMEOUT: "11",
    VLLM_VIDEO_FETCH_TIMEOUT: "31",
    VLLM_MM_HASHER_ALGORITHM: "sha512",
    VLLM_MEDIA_LOADING_THREAD_COUNT: "3",
    VLLM_MEDIA_CACHE: "/media",
  });
  assert.deepEqual(
    [
      settings.mediaUrlAllowRedirects,
      settings.imageFetchTimeout,
      settings.audioFetchTimeout,
      settings.videoFetchTimeout,
      settings.mmHasherAlgorithm,
      settings.mediaConcurrency,
      settings.mediaCacheDir,
    ],
    [true, 6, 11, 31, "sha512", 3, "/media"],
  );
});

test("the safe defaults: nothing is fetched; what is loosened is told", () => {
  const { settings, warnings } = resolveSettings(["model"], {});
  assert.deepEqual(
    [settings.allowedMediaDomains, settings.mediaUrlAllowRedirects, settings.mediaAllowHttp],
    [[], false, false],
  );
  assert.deepEqual(
    [settings.allowedLocalMediaPath, settings.mediaCacheDir, settings.mmHasherAlgorithm],
    [undefined, undefined, "sha256"],
  );
  assert.deepEqual(warnings, []);
  const loose = resolveSettings(["model", "--allowed-media-domains", "a.example", "b.example"], {
    VLLM_MEDIA_URL_ALLOW_REDIRECTS: "1",
    VLLM_IMAGE_FETCH_TIMEOUT: "7",
    VLLM_VIDEO_FETCH_TIMEOUT: "8",
    VLLM_AUDIO_FETCH_TIMEOUT: "9",
    VLLM_MM_HASHER_ALGORITHM: "sha512",
  });
  assert.deepEqual(loose.settings.allowedMediaDomains, ["a.example", "b.example"]);
  const { imageFetchTimeout, videoFetchTimeout, audioFetchTimeout, mmHasherAlgorithm } = loose.settings;
  assert.deepEqual([imageFetchTimeout, videoFetchTimeout, audioFetchTimeout, mmHasherAlgorithm], [7, 8, 9, "sha512"]);
  assert.deepEqual(
    loose.warnings.map((warning) => warning.split(" ")[0]),
    ["--allowed-media-domains", "--media-url-allow-redirects"],
  );
});

test("media are fetched as the settings say, or not at all", async (t) => {
  assert.equal(fetchesMedia(settingsOf()), false);
  assert.equal(fetchesMedia(settingsOf("--allowed-media-domains", "a.example")), true);
  const shut = await openMedia(settingsOf(), nobody);
  const own = await shut.fetch(
    { url: dataUrl("image/png", png(3, 3)), kind: "image" },
    { tenant: "t", signal: new AbortController().signal },
  );
  assert.ok("media" in own);
  const folder = scratch(t);
  writeFileSync(join(folder, "a.png"), png(3, 3));
  const media = await openMedia(
    settingsOf("--allowed-local-media-path", folder, "--mm-hasher-algorithm", "sha512"),
    nobody,
  );
  t.after(() => media.close());
  const caller = { tenant: "t", signal: new AbortController().signal };
  const outcome = await media.fetch({ url: `file://${folder}/a.png`, kind: "image" }, caller);
  assert.ok("media" in outcome);
  assert.equal(outcome.media.digest.algorithm, "sha512");
  const refused = await media.fetch({ url: "https://a.example/x.png", kind: "image" }, caller);
  assert.ok("refusal" in refused && refused.refusal.kind === "off");
  for (const argv of [
    ["--allowed-local-media-path", join(folder, "none")],
    ["--allowed-local-media-path", folder, "--media-cache-dir", join(folder, "a.png")],
    [
      "--allowed-local-media-path",
      folder,
      "--media-cache-dir",
      join(folder, "c"),
      "--media-cache-key-file",
      join(folder, "a.png"),
    ],
  ])
    await assert.rejects(openMedia(settingsOf(...argv), nobody), StartupError, argv.join(" "));
});

test("the keys of issuers are on the record, and kept from the operator's networks", async () => {
  const decisions: EgressDecision[] = [];
  const get = recordedGet(settingsOf("--egress-refused-networks", "127.0.0.0/8"), {
    begin: () => () => {},
    record: (decision) => void decisions.push(decision),
  });
  const options = { hosts: ["127.0.0.1:1"], loopback: true, deadlineMs: 5000, maxBytes: 10, accept: "x" };
  await assert.rejects(get("https://127.0.0.1:1/jwks?secret", options), /operator refuses/);
  const [decision] = decisions;
  assert.deepEqual(
    [decision?.kind, decision?.decision, decision?.rule, decision?.host],
    ["jwks", "refused", 4, "127.0.0.1:1"],
  );
  assert.doesNotMatch(JSON.stringify(decisions), /secret/);
});
