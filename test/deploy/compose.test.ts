/**
 * The compose file: read by Compose itself where that is installed, and held against what it is for. vLLM, the database and
 * the counters are on networks without a way out, nothing is root, everything is bounded, secrets are files.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { type TestContext, test } from "node:test";
import { parse } from "yaml";
import { resolveSettings } from "#config/resolve.ts";
import { modelPlanOf } from "./model-plans.ts";

const folder = resolve(import.meta.dirname, "../../deploy/compose");

interface Service {
  readonly image: string;
  readonly user: string;
  readonly read_only: boolean;
  readonly cap_drop: readonly string[];
  readonly security_opt: readonly string[];
  readonly networks: readonly string[];
  readonly ports?: readonly string[];
  readonly mem_limit: string;
  readonly cpus: number;
  readonly pids_limit: number;
  readonly environment?: Readonly<Record<string, string>>;
  readonly secrets: readonly string[];
  readonly command?: readonly string[];
  readonly healthcheck: { readonly test: readonly string[] };
  readonly volumes?: readonly string[];
  readonly privileged?: boolean;
}
interface Compose {
  readonly services: Readonly<Record<string, Service>>;
  readonly networks: Readonly<Record<string, { readonly internal?: boolean }>>;
  readonly secrets: Readonly<Record<string, { readonly file: string }>>;
}

const text = readFileSync(join(folder, "compose.yaml"), "utf8");
const compose = parse(text, { merge: true }) as Compose;
const services = Object.entries(compose.services);
const settings = resolveSettings(["--config", join(folder, "castellan.yaml")], {});

function scratch(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), "castellan-compose-"));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

function composeCommand(): readonly [string, ...string[]] | undefined {
  if (spawnSync("docker", ["compose", "version"]).status === 0) return ["docker", "compose"];
  return spawnSync("docker-compose", ["version"]).status === 0 ? ["docker-compose"] : undefined;
}

const command = composeCommand();

test("Compose reads the file and finds nothing wrong", {
  skip: command === undefined && "neither docker compose nor docker-compose is installed here",
}, (t) => {
  const [program = "", ...first] = command ?? [];
  const path = join(scratch(t), "compose.yaml");
  // Compose of version 1 takes all of it but the project's name.
  writeFileSync(path, program === "docker" ? text : text.replace(/^name: .*$/m, ""));
  const read = spawnSync(program, [...first, "-f", path, "config"], { encoding: "utf8" });
  assert.equal(read.status, 0, read.stderr);
  assert.match(read.stdout, /vllm-key-vllm/);
});

test("no container is root, writes its root, keeps capabilities, or is without bounds", () => {
  assert.deepEqual(services.map(([name]) => name).sort(), ["castellan", "postgres", "redis", "vllm"]);
  for (const [name, service] of services) {
    assert.match(service.user, /^[1-9]\d*:[1-9]\d*$/, name);
    assert.equal(service.read_only, true, name);
    assert.deepEqual(service.cap_drop, ["ALL"], name);
    assert.deepEqual(service.security_opt, ["no-new-privileges:true"], name);
    assert.equal(service.privileged, undefined, name);
    assert.ok(service.mem_limit !== undefined && service.cpus > 0 && service.pids_limit > 0, name);
    assert.ok(service.healthcheck.test.length > 1, name);
    assert.match(service.image, /:v?\d+\.\d+[\w.-]*$/, `${name} has a version`);
    assert.ok(!(service.volumes ?? []).some((volume) => volume.includes("docker.sock")), name);
  }
});

test("one port is open, and it is the door's; the others are on networks that lead nowhere", () => {
  for (const [name, service] of services)
    if (name === "castellan") assert.deepEqual(service.ports, [`${settings.settings.port}:${settings.settings.port}`]);
    else {
      assert.equal(service.ports, undefined, name);
      for (const network of service.networks)
        assert.equal(compose.networks[network]?.internal, true, `${name} on ${network}`);
    }
  const onVllm = services.filter(([, { networks }]) => networks.includes("vllm")).map(([name]) => name);
  assert.deepEqual(onVllm, ["castellan", "vllm"], "nobody else reaches vLLM");
});

test("secrets are files of the user that reads them, and in no variable or flag", (t) => {
  const path = join(scratch(t), "compose");
  cpSync(folder, path, { recursive: true });
  const made = spawnSync("sh", [join(path, "make-secrets.sh"), "host.example"], { encoding: "utf8" });
  if (process.getuid?.() === 0) assert.equal(made.status, 0, made.stderr);
  for (const [name, service] of services) {
    for (const variable of Object.keys(service.environment ?? {}))
      assert.ok(!/KEY|PASSWORD$|TOKEN|SECRET/.test(variable), `${name}: ${variable}`);
    for (const secret of service.secrets) {
      const file = compose.secrets[secret]?.file;
      assert.ok(file !== undefined, secret);
      if (process.getuid?.() !== 0) continue;
      const { uid, mode } = statSync(join(path, file));
      assert.equal(uid, Number(service.user.split(":")[0]), `${secret} of ${name}`);
      assert.equal(mode & 0o777, 0o400, secret);
    }
  }
  assert.ok(compose.services["castellan"]?.secrets.includes("vllm-key"));
});

test("the door's settings are settings, name its secrets, and leave operations on loopback", () => {
  assert.deepEqual(settings.warnings, []);
  const files = [...readFileSync(join(folder, "castellan.yaml"), "utf8").matchAll(/\/run\/secrets\/([\w.-]+)/g)].map(
    ([, name]) => name,
  );
  assert.deepEqual(files.sort(), [...(compose.services["castellan"]?.secrets ?? [])].sort());
  assert.equal(settings.settings.opsHost, "127.0.0.1");
  assert.match(
    compose.services["castellan"]?.healthcheck.test.at(-1) ?? "",
    new RegExp(`127\\.0\\.0\\.1:${settings.settings.opsPort}/health$`),
  );
});

test("the door's model is answered by the service that is vLLM, with the key that it has", (t) => {
  const [model, ...others] = modelPlanOf(readFileSync(join(folder, "castellan.yaml"), "utf8"), scratch(t)).upstream;
  assert.equal(others.length, 0);
  assert.notEqual(model?.credentials.key, undefined);
  assert.deepEqual(
    model?.sources.map(({ place }) => place.kind),
    ["fixed"],
  );
  assert.match(JSON.stringify(model?.sources[0]?.place), /vllm.*8000|8000.*vllm/);
  assert.match(
    (compose.services["vllm"]?.command ?? []).join(),
    new RegExp(`--served-model-name ${model?.name} --host 0\\.0\\.0\\.0 --port 8000`),
  );
});

test("vLLM has what its security guide asks for", () => {
  const { environment = {}, command: words = [] } = compose.services["vllm"] ?? ({} as Service);
  assert.equal(environment["VLLM_SERVER_DEV_MODE"], "0");
  assert.equal(environment["VLLM_HOST_IP"], "127.0.0.1");
  assert.equal(environment["VLLM_MEDIA_URL_ALLOW_REDIRECTS"], "0");
  assert.equal(environment["VLLM_ALLOW_RUNTIME_LORA_UPDATING"], "0");
  assert.equal(environment["VLLM_MM_HASHER_ALGORITHM"], "sha256");
  assert.equal(environment["VLLM_MAX_N_SEQUENCES"], String(settings.settings.maxN));
  assert.match(words.join(" "), /--allowed-media-domains media\.invalid/);
  assert.doesNotMatch(words.join(" "), /--api-key|--trust-remote-code|--profiler-config|--enable-tokenizer-info/);
});
