/**
 * The layer check: areas in one fixed order, imports go down only, and the rules that an import list can show.
 *
 * Prints every breach with its reason and fails; fails too when it saw no files, as a check that sees nothing is none.
 * usage: node scripts/layers.ts [ROOT]
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join, relative, resolve } from "node:path";

export const AREAS = [
  "base", "core", "config", "wire", "prompt", "engine", "egress", "policy", "integrity",
  "tools", "cluster", "serving", "http", "routes", "app", "cli",
] as const; // biome-ignore format: the order is what matters

/** area → the only areas that it may import, where the order alone would allow more. */
const NARROW: Readonly<Record<string, { readonly may: readonly string[]; readonly why: string }>> = {
  base: { may: [], why: "base has no meaning of ours" },
  engine: { may: ["base", "core"], why: "the engine is blind to protocols, policy and tenants" },
  http: { may: ["base", "core", "policy"], why: "dialects and handlers arrive as values" },
};
const CONFIG_READERS = ["app", "cli"];

/** node modules and packages → the files that may import them. */
const FENCED: readonly { readonly module: RegExp; readonly may: RegExp; readonly why: string }[] = [
  {
    module: /^node:child_process$/,
    may: /^(engine\/(launcher|spare|native\/tokenizer-launcher)|app\/vllm\/process)\.ts$/,
    why: "processes are started in launchers only",
  },
  {
    module: /^(?:node:)?(net|tls|http|https|http2|dgram|dns|dns\/promises)$/,
    // networks.ts: node:net's reader and lists of addresses, no socket.
    may: /^(http\/|egress\/|policy\/networks\.ts$)/,
    why: "sockets belong to the listener and to egress",
  },
  { module: /^(?:node:)?(inspector|repl|cluster)$/, may: /^app\/profiling\.ts$/, why: "they open ports of their own" },
  {
    module: /^ws$/,
    may: /^(http\/_channel|egress\/upstream\/channel)\.ts$/,
    why: "a WebSocket is the listener's, or a connection that egress has dialed",
  },
  {
    module: /^(axios|got|node-fetch|cross-fetch|superagent|request|needle|faye-websocket)$/,
    may: /^$/,
    why: "egress is the only way out, and dials by itself",
  },
  { module: /^@huggingface\/hub$/, may: /^egress\/hub\.ts$/, why: "it fetches, and is given our own way out there" },
  { module: /^undici$/, may: /^egress\//, why: "egress is the only way out" },
  { module: /^koffi$/, may: /^engine\/native\//, why: "native code is behind the kernel interface" },
  {
    module: /^(pg|node:sqlite)$/,
    may: /^policy\/(store\/|audit\/_lock\.ts$)/,
    why: "databases belong to the store; the audit log borrows a lock",
  },
  { module: /^ioredis$/, may: /^policy\/limits\/redis\.ts$/, why: "one place opens the connection to Redis" },
  { module: /^kysely$/, may: /^policy\//, why: "only policy keeps anything" },
  {
    module: /^node:worker_threads$/,
    may: /^(policy\/store\/disk|prompt\/grammar\/compile)/,
    why: "the disk and the compiler of grammars alone have threads",
  },
  { module: /^fastify$/, may: /^http\//, why: "only http knows its framework" },
];

/** Text that may stand in these files only. */
const WORDS: readonly { readonly text: RegExp; readonly may: RegExp; readonly why: string }[] = [
  { text: /\bJSON\.parse\(/, may: /^base\//, why: "base/json.ts is the one JSON reader" },
  { text: /\bprocess\.env\b/, may: /^config\//, why: "config is the one reader of the environment" },
  { text: /\bas Grant\b/, may: /^policy\/authorize\.ts$/, why: "only authorize() makes a grant" },
  {
    text: /(?<![.\w])(?:eval|Function)\(|\bnew Function\b|["'](?:node:)?vm["']/,
    may: /^$/,
    why: "no text becomes code",
  },
  {
    text: /\bimport\((?!\s*["'`])/,
    may: /^engine\/process\.ts$/,
    why: "no text becomes code: modules are named in full",
  },
  { text: /(?<![.\w])fetch\(/, may: /^egress\//, why: "egress is the only way out" },
  {
    text: /\b(?:new\s+(?:WebSocket|EventSource|XMLHttpRequest)|createRemoteJWKSet|sendBeacon)\b/,
    may: /^egress\/upstream\/channel\.ts$/,
    why: "egress is the only way out",
  },
];

/** What makes a connection or asks for a name, by where it comes from; whole modules are as good as each of it. */
const DIALS = /^(?:node:)?(?:net|tls|http|https|http2|dgram|dns|dns\/promises)$/;
const DIALLING =
  /\b(?:request|get|connect|createConnection|Agent|ClientRequest|globalAgent|createSocket|lookup|resolve\w*|Resolver)\b/;
/** The guard's own; names of upstreams and connections to them, which the operator gave; and the probe of a Unix socket that somebody may have left. */
const DIALLERS =
  /^(?:egress\/_dial\.ts|egress\/_addresses-of\.ts|egress\/_judged-connect\.ts|egress\/upstream\/_connect\.ts|egress\/upstream\/names\.ts|http\/_unix-socket\.ts)$/;
const BANNED_NAMES = /^(utils?|common|helpers?|types)\.ts$/;
const MAX_LINES = 400;

export interface Breach {
  readonly file: string;
  readonly message: string;
}

interface SourceFile {
  /** Relative to src/, with slashes. */
  readonly path: string;
  readonly text: string;
}

/** Pure, for its test. */
export function checkLayers(files: readonly SourceFile[]): Breach[] {
  if (files.length === 0) return [{ file: "src", message: "no files were seen: the check itself is broken" }];
  return files.flatMap((file) => checkFile(file).map((message) => ({ file: file.path, message })));
}

function checkFile({ path, text }: SourceFile): string[] {
  const area = path.split("/")[0] ?? "";
  const test = path.endsWith(".test.ts") || path.endsWith(".contract.ts") || /\/_(fake|scripted|fixture)/.test(path);
  const messages: string[] = [];
  if (!AREAS.includes(area as (typeof AREAS)[number])) messages.push(`${area} is not an area`);
  if (BANNED_NAMES.test(path.split("/").at(-1) ?? "")) messages.push("a file is named after what it is about");
  if (test) return messages;
  if (text.split("\n").length > MAX_LINES) messages.push(`more than ${MAX_LINES} lines`);
  if (!text.startsWith("/**")) messages.push("a file opens with what it is, its invariants and who may call it");
  if (path.endsWith("-thread.ts") && !text.includes('import "#base/no-environment-in-reports.ts";'))
    messages.push("a thread's crash report shows the environment unless it imports #base/no-environment-in-reports.ts");
  for (const word of WORDS)
    if (word.text.test(withoutComments(text)) && !word.may.test(path))
      messages.push(`${word.text.source}: ${word.why}`);
  for (const specifier of imports(text)) messages.push(...checkImport(path, area, specifier));
  if (!DIALLERS.test(path)) messages.push(...dialling(text));
  return messages;
}

function withoutComments(text: string): string {
  return text.replace(/\/\*[\s\S]*?\*\//g, "").replace(/(^|\s)\/\/.*$/gm, "$1");
}

/** Imports of values that open connections. */
function dialling(text: string): string[] {
  const found = withoutComments(text).matchAll(/import\s+(?!type\b)([^;"]*?)\s*from\s*"([^"]+)"/g);
  return [...found]
    .filter(([, , specifier = ""]) => DIALS.test(specifier))
    .filter(([, names = ""]) => !names.startsWith("{") || DIALLING.test(names.replace(/\btype\s+\w+/g, "")))
    .map(([, names, specifier]) => `imports ${names} from ${specifier}: connections are made in egress/_dial.ts`);
}

function imports(text: string): string[] {
  const found = withoutComments(text).matchAll(/(?:from|import|getBuiltinModule)\s*\(?\s*"([^"]+)"/g);
  return [...found].map((match) => match[1] ?? "");
}

function checkImport(path: string, area: string, specifier: string): string[] {
  const fence = FENCED.find(({ module, may }) => module.test(specifier) && !may.test(path));
  if (fence !== undefined) return [`imports ${specifier}: ${fence.why}`];
  if (specifier.startsWith("../")) return [`imports ${specifier}: ../ is not used`];
  const match = /^#(\w+)\/(.+)$/.exec(specifier);
  if (match === null) return [];
  const [, target = "", rest = ""] = match;
  if (!rest.endsWith(".ts")) return [`imports ${specifier}: with its ending`];
  if (target === area) return path.split("/").length > 2 ? [] : [`imports ${specifier}: inside an area as ./file.ts`];
  if (rest.split("/").some((part) => part.startsWith("_")))
    return [`imports ${specifier}: _files are private to their area`];
  if (AREAS.indexOf(target as never) > AREAS.indexOf(area as never))
    return [`imports ${specifier}: imports go down only`];
  if (target === "config" && !CONFIG_READERS.includes(area))
    return [`imports ${specifier}: only app and cli see the settings`];
  const narrow = NARROW[area];
  return narrow !== undefined && !narrow.may.includes(target) ? [`imports ${specifier}: ${narrow.why}`] : [];
}

function readSources(src: string): SourceFile[] {
  if (!existsSync(src)) return [];
  return readdirSync(src, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith(".ts"))
    .map((entry) => join(entry.parentPath, entry.name))
    .map((file) => ({ path: relative(src, file).replaceAll("\\", "/"), text: readFileSync(file, "utf8") }));
}

if (import.meta.main) {
  const files = readSources(join(resolve(process.argv[2] ?? "."), "src"));
  const breaches = checkLayers(files);
  for (const { file, message } of breaches) console.error(`src/${file}: ${message}`);
  console.log(`layers: ${files.length} files, ${breaches.length} breaches`);
  process.exitCode = breaches.length === 0 ? 0 : 1;
}
