/**
 * The pages of docs/guide/: what they say can be run is run, against a server as they have it, and prints what they say; flags
 * and settings that they name exist; files that they lead to are there.
 *
 * A block that is opened with ```console runnable is replayed: lines that begin with "$ " are commands (a backslash at the
 * end goes on), the lines behind one are what it prints, "…" in them is anything within a line, and a line of nothing else
 * any number of lines. $KEY is a user's key, $ADMIN an administrator's; the pages' addresses are those of the defaults.
 *
 * A block that is opened with ```sh server is the command that the page's server is started with. Behind it this program
 * stands for vLLM: as 127.0.0.1:8100 with the key in vllm-key, and as the program `vllm`.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, globSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, delimiter, dirname, join, resolve } from "node:path";
import { type TestContext, test } from "node:test";
import { flagOf, settingRows } from "#config/settings.ts";
import { PASSED } from "#config/vllm-engine.ts";
import { IGNORED, REFUSED } from "#config/vllm-flags.ts";
import { makeKey, startServer, type TestServer, until } from "../harness.ts";
import { modelPlanOf } from "./model-plans.ts";

const root = resolve(import.meta.dirname, "../..");
const pages = globSync(join(root, "docs/guide/*.md")).sort();
const END = "\x1e";

interface Step {
  readonly command: string;
  readonly output: readonly string[];
}

interface Block {
  readonly info: string;
  readonly lines: readonly string[];
}

function blocksOf(page: string): Block[] {
  const found = readFileSync(page, "utf8").matchAll(/^( *)```([^\n`]*)\n([\s\S]*?)^ *```$/gm);
  return [...found].map(([, indent = "", info = "", text = ""]) => ({
    info,
    lines: text
      .split("\n")
      .slice(0, -1)
      .map((line) => (line.startsWith(indent) ? line.slice(indent.length) : line)),
  }));
}

function stepsOf(page: string): Step[] {
  const steps: { command: string; output: string[] }[] = [];
  for (const { lines } of blocksOf(page).filter(({ info }) => info === "console runnable"))
    for (const line of lines) {
      const last = steps.at(-1);
      if (line.startsWith("$ ")) steps.push({ command: line.slice(2), output: [] });
      else if (last !== undefined && last.output.length === 0 && last.command.endsWith("\\"))
        last.command += `\n${line}`;
      else last?.output.push(line);
    }
  return steps;
}

/** As a regular expression over the whole output. */
function patternOf(output: readonly string[]): RegExp {
  const literal = (text: string): string => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&").replaceAll("…", "[^\\n]*");
  const lines = output.map((line) => (line.trim() === "…" ? "(?:[^\\n]*\\n)*" : `${literal(line.trimEnd())}\\n`));
  return new RegExp(`^${lines.join("")}$`);
}

/** One shell for a page, so that variables stay. @returns what each command printed */
function replay(
  t: TestContext,
  server: TestServer,
  keys: Readonly<Record<string, string>>,
  steps: readonly Step[],
): string[] {
  const folder = mkdtempSync(join(tmpdir(), "castellan-guide-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  writeFileSync(
    join(folder, "castellan"),
    `#!/bin/sh\nexec "${process.execPath}" "${join(root, "bin/castellan")}" "$@"\n`,
    { mode: 0o755 },
  );
  const script = steps.map(({ command }) => `${here(command, server)}\nprintf '${END}'`).join("\n");
  const ran = spawnSync("bash", ["-c", `exec 2>&1\n${script}`], {
    cwd: root,
    encoding: "utf8",
    env: {
      PATH: [folder, dirname(process.execPath), process.env["PATH"]].join(delimiter),
      HOME: folder,
      SCRATCH: folder,
      NO_COLOR: "1",
      CASTELLAN_STATE_DIR: server.stateDir,
      ...keys,
    },
  });
  return ran.stdout.split(END).slice(0, -1);
}

/** Serves on the socket that vLLM would. */
function vllmStandIn(folder: string): string {
  const program = join(folder, "vllm");
  writeFileSync(
    program,
    `#!/bin/sh
while [ $# -gt 0 ]; do [ "$1" = --uds ] && uds=$2; shift; done
exec "${process.execPath}" --disable-warning=ExperimentalWarning "${join(root, "src/cli/main.ts")}" serve \\
  --uds "$uds" --ops-port 0 --state-dir "${folder}/behind" --threads 1 --served-model-name "${MANAGED}" --log-level warn
`,
    { mode: 0o755 },
  );
  return program;
}

interface Scene {
  readonly server: TestServer;
  stop(): Promise<void>;
}

const BEHIND = "127.0.0.1:8100";
const MANAGED = "meta-llama/Llama-3.3-70B-Instruct";

/** As the page starts its server, or without a flag. */
async function sceneOf(page: string): Promise<Scene> {
  const [block] = blocksOf(page).filter(({ info }) => info === "sh server");
  if (block === undefined) {
    const server = await startServer();
    return { server, stop: () => server.stop() };
  }
  const [program, command, ...words] = block.lines.join(" ").replaceAll("\\", " ").trim().split(/\s+/);
  assert.deepEqual([program, command], ["castellan", "serve"]);
  const folder = mkdtempSync(join(tmpdir(), "castellan-guide-"));
  const managed = words.includes("vllm");
  const key = join(folder, "vllm-key");
  writeFileSync(key, "key-of-the-upstream\n", { mode: 0o600 });
  const behind = managed
    ? undefined
    : await startServer({ apiKey: "key-of-the-upstream", args: ["--served-model-name", "llama"] });
  const args = words.map((word) => (word === "vllm-key" ? key : word.replace(BEHIND, `127.0.0.1:${behind?.port}`)));
  const server = await startServer({ args: managed ? [...args, "--vllm-command", vllmStandIn(folder)] : args });
  const stop = async (): Promise<void> => {
    // What it has started ends with it, where it is asked.
    server.child.kill("SIGTERM");
    await server.exited;
    await server.stop();
    await behind?.stop();
    rmSync(folder, { recursive: true, force: true });
  };
  return { server, stop };
}

/** The page's ports are these servers'. */
function here(text: string, server: TestServer): string {
  return text
    .replaceAll("127.0.0.1:8000", `127.0.0.1:${server.port}`)
    .replaceAll("127.0.0.1:8001", new URL(server.opsUrl).host)
    .replaceAll(":8000", `:${server.port}`)
    .replaceAll(":8001", `:${new URL(server.opsUrl).port}`);
}

function there(text: string, server: TestServer): string {
  return text.replaceAll(`:${server.port}`, ":8000").replaceAll(`:${new URL(server.opsUrl).port}`, ":8001");
}

test("there are pages, and they can be run", () => {
  assert.ok(pages.map((page) => basename(page)).includes("vllm-security.md"));
  assert.ok(pages.flatMap(stepsOf).length > 15);
});

for (const page of pages.filter((each) => stepsOf(each).length > 0))
  test(`${basename(page)}: what it says can be run prints what it says`, async (t) => {
    const { server, stop } = await sceneOf(page);
    t.after(stop);
    const keys = { KEY: await makeKey(server.stateDir, "user"), ADMIN: await makeKey(server.stateDir, "admin") };
    for (const key of Object.values(keys))
      await until("the keys are known", async () => (await server.fetch("/v1/models", { key })).status === 200);
    const steps = stepsOf(page);
    const printed = replay(t, server, keys, steps);
    assert.equal(printed.length, steps.length, printed.at(-1));
    const others = steps.flatMap(({ command, output }, index) => {
      const text = there(printed[index] ?? "", server).replace(/(?<=[^\n])$/, "\n");
      return patternOf(output).test(text) ? [] : [`$ ${command}\n${text}`];
    });
    assert.deepEqual(others, [], others.join("\n"));
  });

/** Of the commands alone; those that show what a wrong one prints are left out. */
function commandsOf(page: string): string[] {
  const shown = blocksOf(page)
    .filter(({ info }) => info.split(" ")[0] === "sh")
    .map(({ lines }) => lines.join("\n"));
  const run = stepsOf(page).filter(({ output: [first = ""] }) => !first.startsWith("castellan: --"));
  return [...shown, ...run.map(({ command }) => command)].map((text) => text.replaceAll("\\\n", " "));
}

test("flags and settings in the pages are the server's", () => {
  const known = new Set([
    ...settingRows().map(([name]) => flagOf(name)),
    ...IGNORED.keys(),
    ...REFUSED.keys(),
    ...PASSED.keys(),
    "config",
    "help",
    "model",
  ]);
  const named: [string, string][] = [];
  for (const page of pages) {
    for (const text of commandsOf(page))
      for (const [, rest = ""] of text.matchAll(/\bcastellan serve\b([^\n|&;#]*)/g))
        for (const [, flag = ""] of rest.matchAll(/ --(?:no-)?([a-z-]+)/g)) named.push([page, flag]);
    for (const { lines } of blocksOf(page).filter(({ info }) => info === "yaml castellan"))
      for (const [, key = ""] of lines.join("\n").matchAll(/^([a-z-]+):/gm)) named.push([page, key]);
  }
  assert.ok(named.length > 5);
  for (const [page, name] of named) assert.ok(known.has(name), `${basename(page)}: ${name}`);
});

test("models of the pages' configuration files are such as a start takes", (t) => {
  const folder = mkdtempSync(join(tmpdir(), "castellan-guide-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const blocks = pages.flatMap((page) => blocksOf(page).filter(({ info }) => info === "yaml castellan"));
  assert.ok(blocks.length > 1);
  for (const { lines } of blocks) assert.ok(modelPlanOf(lines.join("\n"), folder).upstream.length > 0);
});

test("policy files in the pages pass their own tests", (t) => {
  const folder = mkdtempSync(join(tmpdir(), "castellan-guide-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const blocks = pages.flatMap((page) => blocksOf(page).filter(({ info }) => info === "yaml policy"));
  assert.ok(blocks.length > 0);
  for (const [index, { lines }] of blocks.entries()) {
    const path = join(folder, `${index}.yaml`);
    writeFileSync(path, lines.join("\n"), { mode: 0o600 });
    const ran = spawnSync(process.execPath, [join(root, "bin/castellan"), "policy", "test", path], {
      encoding: "utf8",
    });
    assert.equal(ran.status, 0, ran.stdout + ran.stderr);
  }
});

const noNginx = spawnSync("nginx", ["-v"], { env: { PATH: `${process.env["PATH"]}:/usr/sbin` } }).status !== 0;

test("the nginx configuration that one comes from is one", { skip: noNginx && "nginx is not installed here" }, (t) => {
  const folder = mkdtempSync(join(tmpdir(), "castellan-guide-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const made = spawnSync("openssl", [
    "req",
    "-x509",
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:P-256",
    "-nodes",
    "-subj",
    "/CN=x",
    "-keyout",
    join(folder, "tls.key"),
    "-out",
    join(folder, "tls.crt"),
  ]);
  assert.equal(made.status, 0);
  const [block] = blocksOf(join(root, "docs/guide/from-nginx.md")).filter(({ info }) => info === "nginx");
  const text = (block?.lines ?? []).join("\n").replaceAll("/etc/nginx/tls", join(folder, "tls"));
  writeFileSync(join(folder, "nginx.conf"), `pid ${folder}/pid;\nevents {}\nhttp {\naccess_log off;\n${text}\n}\n`);
  const read = spawnSync("nginx", ["-t", "-q", "-e", join(folder, "log"), "-c", join(folder, "nginx.conf")], {
    env: { PATH: `${process.env["PATH"]}:/usr/sbin` },
    encoding: "utf8",
  });
  assert.equal(read.status, 0, read.stderr);
});

test("what the pages lead to is there", () => {
  for (const page of [...pages, join(root, "README.md")])
    for (const [, target = ""] of readFileSync(page, "utf8").matchAll(/\]\((?!https?:)([^)#]+)/g))
      assert.ok(existsSync(join(dirname(page), target)), `${basename(page)}: ${target}`);
});
