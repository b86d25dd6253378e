/**
 * Advisories that are about what runs and not about requests: sockets, files that hold code, packages.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { test } from "node:test";
import { deflateRawSync } from "node:zlib";
import { startServer } from "../harness.ts";

const ROOT = resolve(import.meta.dirname, "../..");
const LISTENING = "0A";

/** Inodes of the sockets that these processes hold. */
function socketsOf(processes: readonly number[]): Set<string> {
  const inodes = processes.flatMap((pid) =>
    readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
      try {
        return /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/fd/${fd}`))?.[1] ?? [];
      } catch {
        return []; // closed meanwhile
      }
    }),
  );
  return new Set(inodes);
}

interface Row {
  readonly local: string;
  readonly state: string;
  readonly inode: string;
}

function table(name: string): Row[] {
  return readFileSync(`/proc/net/${name}`, "utf8")
    .trim()
    .split("\n")
    .slice(1)
    .map((line) => line.trim().split(/\s+/))
    .map(([, local = "", , state = "", , , , , , inode = ""]) => ({ local, state, inode }));
}

const hex = (port: number): string => port.toString(16).toUpperCase().padStart(4, "0");

test("nothing listens but the two doors, on the addresses that were named", {
  skip: existsSync("/proc/net/tcp") ? false : "there is no /proc to look into",
}, async () => {
  const server = await startServer({ args: ["--data-parallel-size", "2"] });
  try {
    assert.equal((await server.fetch("/v1/models")).status, 200);
    const sockets = socketsOf([server.child.pid ?? 0, ...server.descendants()]);
    const own = ({ inode }: Row): boolean => sockets.has(inode);
    const listening = [...table("tcp"), ...table("tcp6")].filter((row) => own(row) && row.state === LISTENING);
    const loopback = "0100007F";
    const opsPort = Number(new URL(server.opsUrl).port);
    assert.deepEqual(
      listening.map(({ local }) => local).sort(),
      [`${loopback}:${hex(server.port)}`, `${loopback}:${hex(opsPort)}`].sort(),
    );
    assert.deepEqual([...table("udp"), ...table("udp6")].filter(own), []);
  } finally {
    await server.stop();
  }
});

/** A ZIP of one file, as torch.save makes them. */
function archive(name: string, content: Buffer): Buffer {
  const packed = deflateRawSync(content);
  const head = Buffer.alloc(30);
  head.writeUInt32LE(0x04034b50, 0);
  head.writeUInt16LE(8, 8);
  head.writeUInt32LE(packed.length, 18);
  head.writeUInt32LE(content.length, 22);
  head.writeUInt16LE(name.length, 26);
  return Buffer.concat([head, Buffer.from(name), packed]);
}

test("a pickle, alone or in an archive, is no model", () => {
  const folder = mkdtempSync(join(tmpdir(), "castellan-pickle-"));
  const witness = join(folder, "ran");
  // Protocol 0: os.system(touch), were it ever unpickled.
  const pickle = Buffer.from(`cos\nsystem\n(S'touch ${witness}'\ntR.`);
  for (const [name, bytes] of [
    ["model.pt", archive("archive/data.pkl", pickle)],
    ["model.gguf", pickle],
  ] as const) {
    const path = join(folder, name);
    writeFileSync(path, bytes);
    const { status, stderr } = spawnSync(
      process.execPath,
      [
        join(ROOT, "src/cli/main.ts"),
        "serve",
        path,
        "--port",
        "0",
        "--ops-port",
        "0",
        "--state-dir",
        join(folder, "state"),
        "--api-key",
        "k",
      ],
      { encoding: "utf8", env: { PATH: process.env["PATH"], HOME: folder }, timeout: 60_000 },
    );
    assert.equal(status, 1, `${name}: ${stderr}`);
    assert.match(stderr, /GGUF|gguf/, name);
    assert.ok(!existsSync(witness), name);
  }
});

interface Lock {
  readonly packages: Readonly<
    Record<
      string,
      {
        readonly version?: string;
        readonly integrity?: string;
        readonly resolved?: string;
        readonly hasInstallScript?: boolean;
      }
    >
  >;
}

test("every package is pinned by version and digest", () => {
  const lock = JSON.parse(readFileSync(join(ROOT, "package-lock.json"), "utf8")) as Lock;
  const packages = Object.entries(lock.packages).filter(([path]) => path !== "");
  assert.ok(packages.length > 50);
  for (const [path, { version, integrity, resolved }] of packages) {
    assert.match(version ?? "", /^\d+\.\d+\.\d+/, path);
    assert.match(integrity ?? "", /^sha512-/, path);
    assert.ok(resolved === undefined || new URL(resolved).protocol === "https:", path);
  }
  const origins = new Set(
    packages.flatMap(([, { resolved }]) => (resolved === undefined ? [] : [new URL(resolved).host])),
  );
  assert.ok(origins.size <= 1, [...origins].join(" "));
  const { dependencies, devDependencies, optionalDependencies } = JSON.parse(
    readFileSync(join(ROOT, "package.json"), "utf8"),
  ) as Record<string, Record<string, string>>;
  for (const [name, version] of Object.entries({ ...dependencies, ...devDependencies, ...optionalDependencies }))
    assert.match(version, /^\d+\.\d+\.\d+$/, name);
});
