/**
 * The Kubernetes manifests: joined and decoded by kubectl, their fields held against the API's types, and then against what
 * they are for. Who reaches whom is worked out from the network policies, not read off them.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { type TestContext, test } from "node:test";
import type { Deployment, StatefulSet } from "kubernetes-types/apps/v1.js";
import type {
  ConfigMap,
  Container,
  PodTemplateSpec,
  Probe,
  Secret,
  Service,
  ServiceAccount,
} from "kubernetes-types/core/v1.js";
import type { LabelSelector } from "kubernetes-types/meta/v1.js";
import type { NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort } from "kubernetes-types/networking/v1.js";
import type { PodDisruptionBudget } from "kubernetes-types/policy/v1.js";
import { parse, parseAllDocuments } from "yaml";
import { resolveSettings } from "#config/resolve.ts";
import { modelPlanOf } from "./model-plans.ts";

const root = resolve(import.meta.dirname, "../..");
const folder = join(root, "deploy/kubernetes");

interface Kinded {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string };
}

const kustomization = parse(readFileSync(join(folder, "kustomization.yaml"), "utf8")) as {
  resources: string[];
  images: { name: string; newTag: string }[];
};
/** As Kubernetes reads YAML: version 1.1. */
const documents = (file: string): Kinded[] =>
  parseAllDocuments(readFileSync(join(folder, file), "utf8"), { version: "1.1" }).map((each) => each.toJS() as Kinded);
const objects = kustomization.resources.flatMap(documents);

function all<T>(kind: string): T[] {
  return objects.filter((each) => each.kind === kind) as T[];
}

function one<T>(kind: string, name: string): T {
  const found = objects.find((each) => each.kind === kind && each.metadata.name === name);
  assert.ok(found !== undefined, `${kind} ${name}`);
  return found as T;
}

const gateway = one<Deployment>("Deployment", "castellan");
const vllm = one<StatefulSet>("StatefulSet", "vllm");
const workloads: [string, PodTemplateSpec][] = [gateway, vllm].map((each) => [
  each.metadata?.name ?? "",
  each.spec?.template ?? {},
]);
const configuration = one<ConfigMap>("ConfigMap", "castellan").data ?? {};

function containerOf(template: PodTemplateSpec): Container {
  const [only, ...others] = template.spec?.containers ?? [];
  assert.ok(only !== undefined && others.length === 0 && template.spec?.initContainers === undefined);
  return only;
}

function scratch(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), "castellan-kubernetes-"));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

const noKubectl = spawnSync("kubectl", ["version", "--client"]).status === 0 ? false : "kubectl is not installed here";

test("kubectl joins all of it, and decodes every object", { skip: noKubectl }, (t) => {
  const joined = spawnSync("kubectl", ["kustomize", folder], { encoding: "utf8" });
  assert.equal(joined.status, 0, joined.stderr);
  assert.match(joined.stdout, /image: vllm\/vllm-openai:v\d/);
  const path = join(scratch(t), "all.yaml");
  writeFileSync(path, joined.stdout);
  const decoded = spawnSync("kubectl", ["label", "--local", "-f", path, "a=b", "-o", "name"], { encoding: "utf8" });
  assert.equal(decoded.status, 0, decoded.stderr);
  assert.equal(decoded.stdout.trim().split("\n").length, objects.length);
});

test("every field is one of the API's, with its type", (t) => {
  const path = scratch(t);
  const modules: Readonly<Record<string, string>> = {
    v1: "core/v1",
    "apps/v1": "apps/v1",
    "policy/v1": "policy/v1",
    "autoscaling/v2": "autoscaling/v2",
    "networking.k8s.io/v1": "networking/v1",
  };
  const lines = [...objects, ...documents("secrets.example.yaml")].map((each, index) => {
    const module = modules[each.apiVersion];
    assert.ok(module !== undefined, each.apiVersion);
    // A literal, so that a field that does not exist is an error.
    return `export const o${index}: import("kubernetes-types/${module}.js").${each.kind} = ${JSON.stringify(each)};`;
  });
  const check = (text: string): string => {
    writeFileSync(join(path, "all.ts"), text);
    const args = [
      "--ignoreConfig",
      "--noEmit",
      "--strict",
      "--skipLibCheck",
      "--module",
      "nodenext",
      "--target",
      "es2024",
      "--types",
      "",
      join(path, "all.ts"),
    ];
    return spawnSync(join(root, "node_modules/.bin/tsc"), args, { encoding: "utf8" }).stdout;
  };
  symlinkSync(join(root, "node_modules"), join(path, "node_modules"));
  writeFileSync(join(path, "package.json"), '{"type":"module"}');
  assert.equal(check(lines.join("\n")), "");
  assert.match(
    check(lines.join("\n").replace('"runAsNonRoot"', '"runAsNonRooot"')),
    /runAsNonRooot/,
    "the check can fail",
  );
});

test("pods are of the restricted profile, and speak to no cluster", () => {
  for (const [name, template] of workloads) {
    const { spec } = template;
    const { securityContext: pod } = spec ?? {};
    assert.equal(pod?.runAsNonRoot, true, name);
    assert.ok((pod?.runAsUser ?? 0) > 0 && (pod?.runAsGroup ?? 0) > 0, name);
    assert.equal(pod?.seccompProfile?.type, "RuntimeDefault", name);
    assert.ok(!spec?.hostNetwork && !spec?.hostPID && !spec?.hostIPC, name);
    assert.equal(spec?.automountServiceAccountToken, false, name);
    assert.equal(
      one<ServiceAccount>("ServiceAccount", spec?.serviceAccountName ?? "").automountServiceAccountToken,
      false,
    );
    const { securityContext: own } = containerOf(template);
    assert.equal(own?.allowPrivilegeEscalation, false, name);
    assert.equal(own?.readOnlyRootFilesystem, true, name);
    assert.deepEqual(own?.capabilities, { drop: ["ALL"] }, name);
    assert.ok(!own?.privileged && own?.runAsUser === undefined, name);
    assert.ok(!(spec?.volumes ?? []).some((volume) => volume.hostPath !== undefined), name);
  }
  assert.equal(
    one<{ metadata: { labels: Record<string, string> } } & Kinded>("Namespace", "castellan").metadata.labels[
      "pod-security.kubernetes.io/enforce"
    ],
    "restricted",
  );
});

test("every container has limits of memory and processor, and an image with a version", () => {
  for (const [name, template] of workloads) {
    const container = containerOf(template);
    for (const what of ["cpu", "memory"] as const) {
      assert.ok(container.resources?.limits?.[what] !== undefined, `${name}: limit of ${what}`);
      assert.ok(container.resources?.requests?.[what] !== undefined, `${name}: request of ${what}`);
    }
    const pinned = kustomization.images.find((image) => image.name === container.image);
    assert.match(pinned?.newTag ?? "", /^v?\d+\.\d+\.\d+$/, `${name}: ${container.image}`);
    for (const volume of template.spec?.volumes ?? [])
      if (volume.emptyDir !== undefined) assert.ok(volume.emptyDir.sizeLimit !== undefined, `${name}: ${volume.name}`);
  }
});

/** The configuration file as the server reads it. */
function settingsOf(t: TestContext): ReturnType<typeof resolveSettings> {
  const path = join(scratch(t), "castellan.yaml");
  writeFileSync(path, configuration["castellan.yaml"] ?? "");
  const args = (containerOf(gateway.spec?.template ?? {}).args ?? []).slice(1);
  return resolveSettings(
    args.map((arg) => (arg === "/etc/castellan/castellan.yaml" ? path : arg)),
    {},
  );
}

test("the door's flags and settings are the server's; what they name is mounted", (t) => {
  const { settings, warnings } = settingsOf(t);
  // Of the pod, behind a network policy and a key.
  assert.deepEqual(
    warnings.map((warning) => warning.split(" ")[0]),
    ["--ops-host"],
  );
  const { volumeMounts = [] } = containerOf(gateway.spec?.template ?? {});
  const secret = documents("secrets.example.yaml") as (Secret & Kinded)[];
  for (const path of (configuration["castellan.yaml"] ?? "").match(/\/(run|etc)\/[\w./-]+/g) ?? []) {
    const mount = volumeMounts.find(({ mountPath }) => path.startsWith(`${mountPath}/`));
    assert.ok(mount?.readOnly, path);
    const volume = gateway.spec?.template.spec?.volumes?.find(({ name }) => name === mount.name);
    const file = path.slice(mount.mountPath.length + 1);
    const holder =
      volume?.configMap === undefined
        ? secret.find(({ metadata }) => metadata.name === volume?.secret?.secretName)?.stringData
        : configuration;
    assert.ok(holder !== undefined && Object.hasOwn(holder, file), path);
    if (volume?.secret !== undefined)
      assert.equal(volume.secret.defaultMode, 0o440, "root's, and readable by the group");
  }
  const grace = gateway.spec?.template.spec?.terminationGracePeriodSeconds ?? 0;
  assert.ok(settings.shutdownTimeout + 5 < grace, "answers may end before the pod is killed");
});

test("its model is answered by the pods behind vLLM's service, with the key that they have", (t) => {
  const [model, ...others] = modelPlanOf(configuration["castellan.yaml"] ?? "", scratch(t)).upstream;
  assert.equal(others.length, 0);
  assert.notEqual(model?.credentials.key, undefined);
  assert.match(JSON.stringify(model?.sources), /vllm\.castellan\.svc\.cluster\.local/);
  assert.ok(containerOf(vllm.spec?.template ?? {}).args?.includes(`--served-model-name=${model?.name}`));
});

test("its policy passes its own tests", { timeout: 60_000 }, (t) => {
  const path = join(scratch(t), "policy.yaml");
  writeFileSync(path, configuration["policy.yaml"] ?? "", { mode: 0o600 });
  const ran = spawnSync(process.execPath, [join(root, "bin/castellan"), "policy", "test", path], { encoding: "utf8" });
  assert.equal(ran.status, 0, ran.stdout + ran.stderr);
});

test("probes ask the operations listener of the door, and vLLM's port", (t) => {
  const { settings } = settingsOf(t);
  const door = containerOf(gateway.spec?.template ?? {});
  const portOf = (container: Container, probe: Probe | undefined): number | undefined =>
    container.ports?.find(({ name }) => name === probe?.httpGet?.port)?.containerPort;
  for (const probe of [door.startupProbe, door.readinessProbe]) {
    assert.deepEqual(probe?.httpGet, { path: "/health", port: "ops", scheme: "HTTPS" });
    assert.equal(portOf(door, probe), settings.opsPort);
  }
  assert.ok(
    settings.sslCertfile !== undefined && settings.opsSsl && settings.opsSslCertReqs === 0,
    "as the probes speak",
  );
  assert.ok(door.livenessProbe?.exec?.command?.includes(`https://127.0.0.1:${settings.opsPort}/health`));
  assert.equal(door.livenessProbe?.exec?.command?.at(-1), "alive", "a 503 is no reason to be ended");
  assert.equal(door.ports?.find(({ name }) => name === "public")?.containerPort, settings.port);
  const inner = containerOf(vllm.spec?.template ?? {});
  for (const probe of [inner.startupProbe, inner.readinessProbe, inner.livenessProbe])
    assert.equal(portOf(inner, probe), 8000);
});

test("more than one door, spread, never all away at once; vLLM under a name of its pods", () => {
  assert.ok((gateway.spec?.replicas ?? 1) >= 2);
  assert.ok((gateway.spec?.template.spec?.topologySpreadConstraints ?? []).length >= 2);
  for (const [name, template] of workloads) {
    const budgets = all<PodDisruptionBudget>("PodDisruptionBudget").filter(({ spec }) =>
      matches(spec?.selector, template.metadata?.labels),
    );
    assert.equal(budgets.length, 1, name);
  }
  const service = one<Service>("Service", "vllm");
  assert.equal(service.spec?.clusterIP, "None");
  assert.match(configuration["castellan.yaml"] ?? "", /dns\+http:\/\/vllm\.castellan\.svc\.cluster\.local:8000\n/);
  for (const { metadata, spec } of all<Service>("Service")) {
    const target = workloads.find(([, { metadata: pod }]) =>
      matches({ matchLabels: spec?.selector ?? {} }, pod?.labels),
    );
    assert.ok(target !== undefined, metadata?.name);
    const ports = containerOf(target[1]).ports?.map(({ name }) => name);
    for (const port of spec?.ports ?? []) assert.ok(ports?.includes(String(port.targetPort)), metadata?.name);
    if (spec?.type === "LoadBalancer")
      assert.deepEqual(
        spec.ports?.map(({ targetPort }) => targetPort),
        ["public"],
        "operations are not on the Internet",
      );
  }
});

type Labels = Readonly<Record<string, string>>;

function matches(selector: LabelSelector | undefined, labels: Labels | undefined): boolean {
  assert.equal(selector?.matchExpressions, undefined, "worked out here for matchLabels alone");
  return Object.entries(selector?.matchLabels ?? {}).every(([name, value]) => labels?.[name] === value);
}

interface Place {
  readonly pod?: Labels;
  /** Of the namespace; undefined: our own. */
  readonly namespace?: Labels;
}

function isPeer(peer: NetworkPolicyPeer, { pod = {}, namespace }: Place): boolean {
  assert.equal(peer.ipBlock, undefined, "no block of addresses is open");
  if (peer.namespaceSelector === undefined) return namespace === undefined && matches(peer.podSelector, pod);
  return matches(peer.namespaceSelector, namespace ?? {}) && matches(peer.podSelector, pod);
}

function isPort(ports: readonly NetworkPolicyPort[] | undefined, port: number): boolean {
  return ports === undefined || ports.some((each) => each.port === port && each.endPort === undefined);
}

/** By the rules of the API: what no policy selects is open, else the union of what the policies let through. */
function passes(way: "Ingress" | "Egress", pod: Labels, other: Place, port: number): boolean {
  const policies = all<NetworkPolicy>("NetworkPolicy").filter(
    ({ spec }) => matches(spec?.podSelector, pod) && spec?.policyTypes?.includes(way),
  );
  if (policies.length === 0) return true;
  return policies.some(({ spec }) =>
    way === "Ingress"
      ? (spec?.ingress ?? []).some(
          ({ from, ports }) => isPort(ports, port) && (from === undefined || from.some((peer) => isPeer(peer, other))),
        )
      : (spec?.egress ?? []).some(
          ({ to, ports }) => isPort(ports, port) && (to === undefined || to.some((peer) => isPeer(peer, other))),
        ),
  );
}

test("vLLM is reached by the door alone, on its port, and reaches nobody", () => {
  const [DOOR, VLLM] = workloads.map(([, { metadata }]) => metadata?.labels ?? {}) as [Labels, Labels];
  const strangers: Place[] = [
    {},
    { pod: VLLM },
    { pod: { app: "other" } },
    { pod: DOOR, namespace: { a: "b" } },
    { namespace: { "castellan/ops": "allowed" } },
  ];
  assert.ok(passes("Ingress", VLLM, { pod: DOOR }, 8000) && passes("Egress", DOOR, { pod: VLLM }, 8000));
  for (const port of [1, 53, 443, 8000, 8001, 29_500, 65_535]) {
    if (port !== 8000) assert.ok(!passes("Ingress", VLLM, { pod: DOOR }, port), String(port));
    for (const stranger of strangers) assert.ok(!passes("Ingress", VLLM, stranger, port), JSON.stringify(stranger));
    for (const place of [
      ...strangers,
      { pod: DOOR },
      { pod: { "k8s-app": "kube-dns" }, namespace: { "kubernetes.io/metadata.name": "kube-system" } },
    ])
      assert.ok(!passes("Egress", VLLM, place, port), `${JSON.stringify(place)} ${port}`);
  }
});

test("operations are reached from labelled namespaces alone, the public port from anywhere, and the door goes out to what it needs", () => {
  const DOOR = workloads[0]?.[1].metadata?.labels ?? {};
  assert.ok(passes("Ingress", DOOR, { namespace: { "castellan/ops": "allowed" } }, 8001));
  for (const place of [{}, { namespace: {} }, { pod: DOOR }, { namespace: { "castellan/data": "allowed" } }])
    assert.ok(!passes("Ingress", DOOR, place, 8001), JSON.stringify(place));
  assert.ok(passes("Ingress", DOOR, { namespace: {} }, 8000));
  const data = { namespace: { "castellan/data": "allowed" } };
  const names = { pod: { "k8s-app": "kube-dns" }, namespace: { "kubernetes.io/metadata.name": "kube-system" } };
  for (const [place, port] of [
    [data, 5432],
    [data, 6379],
    [names, 53],
  ] as const)
    assert.ok(passes("Egress", DOOR, place, port));
  for (const [place, port] of [
    [data, 22],
    [names, 443],
    [{ namespace: {} }, 443],
    [{ pod: { app: "x" } }, 8000],
  ] as const)
    assert.ok(!passes("Egress", DOOR, place, port), JSON.stringify(place));
  assert.ok(!passes("Egress", { app: "anything else" }, names, 53), "what has no policy of its own is closed");
});

test("no secret has a content, and none is applied with the rest", () => {
  const files = readdirSync(folder).filter((file) => file.endsWith(".yaml") && file !== "kustomization.yaml");
  assert.deepEqual(
    files.filter((file) => !kustomization.resources.includes(file)),
    ["secrets.example.yaml"],
  );
  assert.equal(all("Secret").length, 0);
  for (const { stringData, ...secret } of documents("secrets.example.yaml") as (Secret & Kinded)[]) {
    assert.ok(Object.values(stringData ?? { none: "none" }).every((value) => value === ""));
    assert.equal((secret as Secret).data, undefined);
  }
});

test("vLLM starts as its security guide asks", () => {
  const { args = [], env = [], command = [] } = containerOf(vllm.spec?.template ?? {});
  const variables = new Map(env.map(({ name, value }) => [name, value]));
  const wanted = {
    VLLM_SERVER_DEV_MODE: "0",
    VLLM_HOST_IP: "127.0.0.1",
    VLLM_MEDIA_URL_ALLOW_REDIRECTS: "0",
    VLLM_ALLOW_RUNTIME_LORA_UPDATING: "0",
    VLLM_MM_HASHER_ALGORITHM: "sha256",
    VLLM_NO_USAGE_STATS: "1",
  };
  for (const [name, value] of Object.entries(wanted)) assert.equal(variables.get(name), value, name);
  assert.ok(args.includes("--allowed-media-domains=media.invalid"));
  assert.doesNotMatch(
    [...command, ...args].join(" "),
    /--api-key|--trust-remote-code|--profiler-config|--enable-tokenizer-info/,
  );
  assert.equal(variables.get("VLLM_API_KEY"), undefined, "from a secret");
});
