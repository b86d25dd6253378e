/**
 * Who is measured: how each is configured and started. Everything listens on loopback and ends with the bench.
 */
import type { ChildProcess } from "node:child_process";
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { packaged, serveArguments } from "./castellan.ts";
import { freePort, listening, PROXY_CORE, start } from "./processes.ts";

export interface Bench {
  /** Of its own, for configurations and logs. */
  readonly folder: string;
  readonly upstream: number;
  /** The client uses the last. */
  readonly keys: readonly string[];
  /** Where nginx runs; absent: where all that are measured do. */
  readonly core?: number;
}

export interface Target {
  readonly name: string;
  /** Undefined: nobody stands in between. */
  readonly child: ChildProcess | undefined;
  readonly port: number;
  /** Header lines that it wants. */
  readonly headers: string;
}

export type Begin = (bench: Bench) => Promise<Target | { readonly missing: string }>;

const here = import.meta.dirname;

function installed(program: string): boolean {
  return ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"].some((place) =>
    existsSync(join(place, program)),
  );
}

function bearer({ keys }: Bench): string {
  return `Authorization: Bearer ${keys.at(-1)}\r\n`;
}

async function started(
  name: string,
  bench: Bench,
  port: number,
  child: ChildProcess,
  headers = bearer(bench),
): Promise<Target> {
  child.stdout?.resume();
  await listening(port);
  return { name, child, port, headers };
}

const direct: Begin = async (bench) => ({
  name: "direct",
  child: undefined,
  port: bench.upstream,
  headers: bearer(bench),
});

/** Without these glibc gives a long body back to the kernel behind each request, or does not, by chance: 190 us or 77. */
const KEPT = { MALLOC_MMAP_THRESHOLD_: "4194304", MALLOC_TRIM_THRESHOLD_: "33554432" };

/** A map of the keys, another header in place of the key, a line of JSON a request; buffers off, so that events pass. */
const nginx: Begin = async (bench) => {
  if (!installed("nginx")) return { missing: "nginx (apt-get install nginx-light)" };
  const { folder, upstream, keys } = bench;
  const port = await freePort();
  writeFileSync(join(folder, "keys.map"), keys.map((key, i) => `"Bearer ${key}" key_${i};\n`).join(""));
  const json = ["time_iso8601", "request_id", "key", "request_method", "uri", "status", "request_time", "bytes_sent"];
  writeFileSync(
    join(folder, "nginx.conf"),
    `worker_processes 1; daemon off; pid ${folder}/nginx.pid; error_log ${folder}/nginx.err;
events { worker_connections 8192; }
http {
  map_hash_max_size 262144; map_hash_bucket_size 256;
  map $http_authorization $key { default ""; include ${folder}/keys.map; }
  log_format line escape=json '{${json.map((name) => `"${name}":"$${name}"`).join(",")}}';
  access_log ${folder}/access.log line;
  client_body_temp_path ${folder}/body; proxy_temp_path ${folder}/proxy; fastcgi_temp_path ${folder}/f;
  uwsgi_temp_path ${folder}/u; scgi_temp_path ${folder}/s;
  client_max_body_size 8m; client_body_buffer_size 4m; keepalive_requests 1000000000; tcp_nodelay on;
  upstream model { server 127.0.0.1:${upstream}; keepalive 4096; keepalive_requests 1000000000; }
  server {
    listen 127.0.0.1:${port} backlog=4096;
    location / {
      if ($key = "") { return 401; }
      proxy_pass http://model; proxy_http_version 1.1; proxy_buffering off;
      proxy_set_header Connection ""; proxy_set_header Authorization "Bearer upstream"; proxy_set_header X-Key $key;
    }
  }
}
`,
  );
  return started(
    "nginx",
    bench,
    port,
    start(bench.core ?? PROXY_CORE, "nginx", ["-c", join(folder, "nginx.conf"), "-p", folder], KEPT),
  );
};

const haproxy: Begin = async (bench) => {
  if (!installed("haproxy")) return { missing: "haproxy (apt-get install haproxy)" };
  const { folder, upstream, keys } = bench;
  const port = await freePort();
  writeFileSync(join(folder, "keys.lst"), keys.map((key) => `Bearer ${key}\n`).join(""));
  writeFileSync(
    join(folder, "haproxy.cfg"),
    `global
  nbthread 1
  maxconn 6000
defaults
  mode http
  timeout client 300s
  timeout server 300s
  timeout connect 5s
  option http-keep-alive
  option http-no-delay
  http-reuse always
frontend door
  bind 127.0.0.1:${port} backlog 4096
  acl known req.hdr(authorization) -f ${folder}/keys.lst
  http-request deny deny_status 401 unless known
  http-request set-header Authorization "Bearer upstream"
  default_backend model
backend model
  server one 127.0.0.1:${upstream} pool-max-conn -1
`,
  );
  return started("haproxy", bench, port, start(PROXY_CORE, "haproxy", ["-db", "-f", join(folder, "haproxy.cfg")]));
};

/** Installs packages into a folder; false where npm could not. */
function npm(place: string, ...packages: string[]): boolean {
  try {
    mkdirSync(place, { recursive: true });
    writeFileSync(join(place, "package.json"), "{}");
    execFileSync("npm", ["i", "--ignore-scripts", "--no-audit", "--no-fund", ...packages], {
      cwd: place,
      stdio: "ignore",
    });
    return true;
  } catch {
    return false;
  }
}

/** The Node that Portkey's own container image starts it with (`FROM node:20-alpine`): the last of that line. */
const NODE_OF_PORTKEY = "20.20.2";

/** As its package comes; no key is asked for, no log is written. On a Node of the version given, or on ours. */
function portkey(name: string, version?: string): Begin {
  return async (bench) => {
    const { folder, upstream } = bench;
    const place = join(folder, name);
    const runtime = `node-${process.platform}-${process.arch}`;
    const node = version === undefined ? process.execPath : join(place, "node_modules", runtime, "bin", "node");
    const packages = ["@portkey-ai/gateway@1.15.2", ...(version === undefined ? [] : [`${runtime}@${version}`])];
    if (!npm(place, ...packages)) return { missing: `${packages.join(" and ")} (npm could not install)` };
    const port = await freePort();
    const entry = join(place, "node_modules/@portkey-ai/gateway/build/start-server.js");
    const child = start(PROXY_CORE, node, [entry, "--headless", `--port=${port}`], { NODE_ENV: "production" });
    const headers = `x-portkey-provider: openai\r\nx-portkey-custom-host: http://127.0.0.1:${upstream}/v1\r\n`;
    return started(name, bench, port, child, bearer(bench) + headers);
  };
}

/** What bin/castellan starts Node with for a gateway. */
const FLAGS = ["--disable-warning=ExperimentalWarning", "--max-semi-space-size=8"];

/** A server of ours in `servers/`, which hears its ports. */
function script(name: string, file: string, ...args: string[]): Begin {
  return async (bench) => {
    const port = await freePort();
    const keys = join(bench.folder, "keys.json");
    writeFileSync(keys, JSON.stringify(bench.keys));
    const options = [...FLAGS, join(here, file), String(port), String(bench.upstream), keys];
    return started(name, bench, port, start(PROXY_CORE, process.execPath, [...options, ...args]));
  };
}

/** All of it, as operators start it. */
const castellan: Begin = async (bench) => {
  const [port, ops] = [await freePort(), await freePort()];
  const args = await serveArguments(bench, port, ops);
  return started("castellan", bench, port, start(PROXY_CORE, process.execPath, args));
};

/** Two of it behind one port, on both cores: the load has to share. */
const pair: Begin = async (bench) => {
  const port = await freePort();
  const both: string[] = [];
  for (const name of ["a", "b"]) {
    const folder = join(bench.folder, name);
    mkdirSync(folder, { recursive: true });
    both.push(
      JSON.stringify([...(await serveArguments({ ...bench, folder }, port, await freePort())), "--reuse-port"]),
    );
  }
  return started("pair", bench, port, start(PROXY_CORE, process.execPath, [join(here, "servers/pair.ts"), ...both]));
};

/** As the package has it: what a checkout strips of types at each start is plain JavaScript there, and takes less memory. */
const built: Begin = async (bench) => {
  const root = packaged(bench.folder);
  if (root === undefined) return { missing: "built (npm run build)" };
  const [port, ops] = [await freePort(), await freePort()];
  const args = await serveArguments(bench, port, ops, root);
  return started("built", bench, port, start(PROXY_CORE, process.execPath, args));
};

export const TARGETS: Readonly<Record<string, Begin>> = {
  direct,
  nginx,
  haproxy,
  undici: script("undici", "servers/undici.ts"),
  raw: script("raw", "servers/raw.ts"),
  corridor: script("corridor", "servers/corridor.ts"),
  policy: script("policy", "servers/corridor.ts", "policy"),
  castellan,
  pair,
  built,
  portkey: portkey("portkey", NODE_OF_PORTKEY),
  "portkey-same-node": portkey("portkey-same-node"),
};
