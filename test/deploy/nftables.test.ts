/**
 * The firewall's rules: read by nft, and then held against real connections between namespaces that the test makes itself.
 * Needs root and nft; elsewhere it says so and is skipped.
 */
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { type TestContext, test } from "node:test";
import { nameOf, type Try } from "./connection-tries.ts";

const folder = resolve(import.meta.dirname, "../../deploy/nftables");
const TRIES = join(import.meta.dirname, "connection-tries.ts");
/** Of vLLM's, of a door, of an administrator, of nobody. */
const [NODE, GATEWAY, ADMIN, STRANGER] = ["10.77.0.2", "10.77.0.3", "10.77.0.4", "10.77.0.5"] as const;
const PATH = `${process.env["PATH"]}:/usr/sbin:/sbin`;
const env = { PATH };

function cannot(): string | false {
  if (process.getuid?.() !== 0) return "a network namespace needs root";
  if (spawnSync("nft", ["--version"], { env }).status !== 0) return "nft (nftables) is not installed here";
  const tried = spawnSync("unshare", ["--net", "nft", "list", "ruleset"], { env });
  return tried.status === 0 ? false : "the kernel here has no nftables for a namespace of its own";
}

const skip = cannot();

interface Tries {
  /** From these addresses of the machine outside to these ports of the guarded one; or the other way, to these addresses. */
  readonly tries: readonly Try[];
  readonly side: "in" | "out";
}

/** In a namespace with the rules; the other machine, in one of its own, has all addresses but 10.77.0.1. */
function tried(t: TestContext, rules: string, { tries, side }: Tries, expected: readonly Try[]): string[] {
  const path = mkdtempSync(join(tmpdir(), "castellan-nft-"));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  writeFileSync(join(path, "rules.nft"), rules);
  const addresses = [NODE, GATEWAY, ADMIN, STRANGER]
    .map((address) => `ip addr add ${address}/24 dev outside`)
    .join("; ");
  const script = `set -e
ip link set lo up
unshare --net sh -c 'echo $$ > pid; exec sleep 120' > /dev/null 2>&1 &
trap "kill $!" EXIT
while [ ! -s pid ]; do sleep 0.02; done
peer=$(cat pid)
ip link add name inside type veth peer name outside netns $peer
ip addr add 10.77.0.1/24 dev inside
ip link set inside up
nsenter --net=/proc/$peer/ns/net sh -c 'ip link set lo up; ${addresses}; ip link set outside up'
nft -f rules.nft
nft -f rules.nft
PEER=$peer "$@"`;
  const plan = JSON.stringify({ tries, side, expected: expected.map(nameOf) });
  const command = ["--net", "sh", "-c", script, "sh", process.execPath, TRIES, plan];
  return execFileSync("unshare", command, { env, cwd: path, encoding: "utf8", stdio: "pipe" })
    .trim()
    .split("\n")
    .sort();
}

function every(froms: readonly string[], ports: readonly number[]): Try[] {
  return froms.flatMap((from) => ports.map((port) => ({ from, to: "10.77.0.1", port })));
}

function names(tries: readonly Try[]): string[] {
  return tries.map(nameOf).sort();
}

function ours(name: string): string {
  return readFileSync(join(folder, name), "utf8")
    .replace(/^define vllm_nodes = .*$/m, `define vllm_nodes = { ${NODE} }`)
    .replace(/^define gateways = .*$/m, `define gateways = { ${GATEWAY} }`)
    .replace(/^define admins = .*$/m, `define admins = { ${ADMIN} }`);
}

for (const name of ["castellan.nft", "vllm.nft"])
  test(`nft takes ${name} as it is`, { skip }, () => {
    const checked = spawnSync("unshare", ["--net", "nft", "-c", "-f", join(folder, name)], { env, encoding: "utf8" });
    assert.equal(checked.stderr, "");
    assert.equal(checked.status, 0);
  });

test("at the door a stranger reaches the public port alone; vLLM's nodes and administrators what is theirs", {
  skip,
}, (t) => {
  // 29500 is torch.distributed's, 6379 Ray's, 14579 a KV connector's.
  const ports = [8000, 8001, 22, 29_500, 6379, 14_579];
  const expected = [...every([NODE], ports), ...every([ADMIN], [8000, 8001, 22]), ...every([STRANGER], [8000])];
  const tries = every([NODE, ADMIN, STRANGER], ports);
  assert.deepEqual(tried(t, ours("castellan.nft"), { tries, side: "in" }, expected), names(expected));
});

test("at vLLM's machine a stranger reaches nothing, a door its port alone", { skip }, (t) => {
  const ports = [8000, 22, 29_500];
  const expected = [...every([NODE], ports), ...every([GATEWAY], [8000])];
  const tries = every([NODE, GATEWAY, STRANGER], ports);
  assert.deepEqual(tried(t, ours("vllm.nft"), { tries, side: "in" }, expected), names(expected));
});

test("vLLM's machine begins no connection but to its own kind", { skip }, (t) => {
  const tries = [NODE, GATEWAY, STRANGER].map((to) => ({ from: "10.77.0.1", to, port: 8000 }));
  const expected = tries.slice(0, 1);
  assert.deepEqual(tried(t, ours("vllm.nft"), { tries, side: "out" }, expected), names(expected));
});
