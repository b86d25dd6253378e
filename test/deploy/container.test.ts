/**
 * The image, as far as it can be had without an image builder: what rootfs.sh gathers out of this checkout is all there is
 * in the image, so it is made here, entered by a user that is not root with every file read-only, and asked a question.
 *
 * Needs root, for namespaces; elsewhere it says so and is skipped.
 */
import assert from "node:assert/strict";
import { type ChildProcess, execFileSync, spawn, spawnSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  globSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { type TestContext, test } from "node:test";
import { firstAnswer } from "../fixtures/first-answer.ts";
import { freePort } from "../harness.ts";

const root = resolve(import.meta.dirname, "../..");
const containerfile = readFileSync(join(root, "deploy/container/Containerfile"), "utf8");
const USER = 65_532;

/** As after `npm ci --omit=dev` and `npm run build`. */
function productionTree(folder: string): void {
  const lock = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8")) as {
    packages: Record<string, { dev?: boolean }>;
  };
  for (const [path, entry] of Object.entries(lock.packages)) {
    if (path === "" || entry.dev === true || !existsSync(join(root, path))) continue;
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    cpSync(join(root, path), join(folder, path), { recursive: true });
  }
  for (const path of ["package.json", "LICENSE", "bin", "src", "scripts", "assets/demo", "deploy/container"])
    cpSync(join(root, path), join(folder, path), { recursive: true });
  execFileSync(process.execPath, ["--disable-warning=ExperimentalWarning", "scripts/build.ts"], { cwd: folder });
}

function gathered(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), "castellan-image-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const source = join(folder, "src");
  mkdirSync(source);
  productionTree(source);
  const target = join(folder, "rootfs");
  execFileSync("sh", ["deploy/container/rootfs.sh", target], {
    cwd: source,
    env: { PATH: `${dirname(process.execPath)}:${process.env["PATH"]}` },
  });
  return target;
}

/** Its root read-only, its state in memory, all capabilities gone. */
function enter(target: string, args: readonly string[]): ChildProcess {
  const script = `set -e
mount --bind "$1" "$1"
mkdir -p "$1/dev" "$1/proc"
mount --rbind /dev "$1/dev"
mount -t proc proc "$1/proc"
mount -t tmpfs -o mode=0700,uid=${USER},gid=${USER} tmpfs "$1/var/lib/castellan"
mount -o remount,bind,ro "$1"
target=$1; shift
exec setpriv --no-new-privs chroot --userspec=${USER}:${USER} "$target" "$@"`;
  return spawn("unshare", ["--mount", "--propagation", "private", "sh", "-c", script, "sh", target, ...args], {
    env: {
      HOME: "/var/lib/castellan",
      PATH: "/usr/sbin:/usr/bin:/sbin:/bin",
      CASTELLAN_STATE_DIR: "/var/lib/castellan/state",
    },
    stdio: ["ignore", "pipe", "pipe"],
  });
}

function cannotEnter(): string | false {
  if (process.getuid?.() !== 0) return "entering another root needs root";
  const tried = spawnSync("unshare", ["--mount", "true"]);
  return tried.status === 0 ? false : "namespaces cannot be made here (unshare --mount)";
}

const NODE = "/usr/bin/node";

test("what the image holds runs read-only, without root, without a shell", { skip: cannotEnter() }, async (t) => {
  const target = gathered(t);
  const files = readdirSync(target, { recursive: true }).map(String);
  assert.deepEqual(
    globSync("{,usr/}{,s}bin/*", { cwd: target }).sort(),
    ["usr/bin/node"],
    "one program: no shell, no package manager",
  );
  assert.ok(
    !files.some((file) => /^opt\/castellan\/dist\/.*\.test\.|^opt\/castellan\/(src|test|scripts)\b/.test(file)),
  );
  assert.ok(
    !files.some((file) => /node_modules\/(typescript|@biomejs|openai|knip)\b/.test(file)),
    "nothing for development",
  );
  for (const file of files) assert.equal(statSync(join(target, file)).mode & 0o6000, 0, `${file} is setuid`);

  const [port, opsPort] = [await freePort(), await freePort()];
  const child = enter(target, [
    NODE,
    "/opt/castellan/bin/castellan",
    ...["serve", "--port", String(port), "--ops-port", String(opsPort), "--api-key", "k", "--threads", "1"],
  ]);
  let said = "";
  for (const stream of [child.stdout, child.stderr])
    stream?.on("data", (chunk) => {
      said += String(chunk);
    });
  const exited = new Promise<number | null>((done) => child.on("exit", done));
  try {
    await firstAnswer(child, port, () => said);
    assert.match(
      readFileSync(`/proc/${child.pid}/status`, "utf8"),
      new RegExp(`^Uid:\\t${USER}\\t${USER}\\t${USER}\\t${USER}$`, "m"),
    );
    assert.equal(readFileSync(`/proc/${child.pid}/status`, "utf8").match(/^CapEff:\t(.*)$/m)?.[1], "0".repeat(16));
    for (const [port_, code] of [
      [opsPort, 0],
      [1, 1],
    ] as const) {
      const probe = enter(target, [NODE, "/opt/castellan/health.mjs", `http://127.0.0.1:${port_}/health`]);
      assert.equal(await new Promise((done) => probe.on("exit", done)), code);
    }
  } finally {
    child.kill("SIGTERM");
  }
  assert.equal(await exited, 0, "SIGTERM ends it in good order");
});

test("the Containerfile: a pinned base, packages by digest, a user, a probe of the operations listener", () => {
  const lines = containerfile.split("\n").filter((line) => !line.startsWith("#"));
  const { engines, devDependencies } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as {
    engines: { node: string };
    devDependencies: { node: string };
  };
  assert.ok(
    containerfile.includes(`ARG NODE_IMAGE=node:${devDependencies.node}-bookworm-slim\n`),
    "the Node of the tests",
  );
  assert.match(engines.node, /^>=24/);
  const stages = lines.filter((line) => line.startsWith("FROM"));
  assert.deepEqual(stages, [`FROM \${NODE_IMAGE} AS build`, "FROM scratch"]);
  const last = lines.slice(lines.indexOf("FROM scratch"));
  assert.ok(last.includes(`USER ${USER}:${USER}`));
  assert.ok(!last.some((line) => line.startsWith("RUN")), "there is no shell that could");
  assert.match(containerfile, /npm ci --omit=dev --ignore-scripts/);
  assert.match(containerfile, /HEALTHCHECK [^\n]*\\\n\s+CMD \[.*8001\/health"\]/);
  assert.ok(!/^(ADD|ENV .*(KEY|TOKEN|PASSWORD|SECRET))/m.test(containerfile), "nothing fetched, no secret");
});

test("what goes to the image's builder: the copied paths and nothing else", () => {
  const ignore = readFileSync(join(root, ".dockerignore"), "utf8").split("\n");
  const copied = [...containerfile.matchAll(/^COPY (?!--from)(.*) \S+$/gm)].flatMap(([, paths]) =>
    (paths ?? "").split(" "),
  );
  assert.ok(copied.length >= 7);
  assert.equal(
    ignore.find((line) => line !== "" && !line.startsWith("#")),
    "*",
  );
  for (const path of copied) {
    assert.ok(existsSync(join(root, path)), path);
    assert.ok(
      ignore.some((line) => line.startsWith(`!${path}`)),
      `${path} is left out`,
    );
  }
});
