/**
 * `castellan run-batch -i in.jsonl -o out.jsonl [MODEL] [flags]`: vLLM's run-batch. Besides the flags of this file the
 * settings table's, as for `serve`.
 */
import { isUrl, shownPlace } from "#app/batch-transfer.ts";
import { type BatchOptions, exitCodeOf, runBatch } from "#app/run-batch.ts";
import { StartupError } from "#app/startup-error.ts";
import { environment } from "#config/environment.ts";
import { SettingError } from "#config/kinds.ts";
import { type Resolved, resolveSettings } from "#config/resolve.ts";
import { discardEngine } from "#engine/spare.ts";
import { createProgress } from "./progress.ts";
import { FAILURE, fail, USAGE } from "./serve.ts";

const MOST_AT_ONCE = 65_536;

/** flag → how it is given, what it means, for help. */
const FLAGS = {
  "input-file": {
    short: "i",
    value: "file",
    doc: "JSONL with one request a line; a local file, or an https URL of --batch-url-hosts. Required.",
  },
  "output-file": {
    short: "o",
    value: "file",
    doc: "JSONL with one row a line, in the input's order; a local file, or an https URL of --batch-url-hosts (PUT). Required. A run that was broken off goes on.",
  },
  "output-tmp-dir": {
    value: "folder",
    doc: "Where files lie that come from or go to a URL; with it a run that was broken off goes on, without it they are gone with the run.",
  },
  "max-concurrency": { value: "n", doc: "Lines at once (default: twice what the engines compute at once)." },
  "enable-metrics": {
    doc: "Open the operations listener at --host and --port while the batch runs: /metrics, for keys that may read it.",
  },
  url: { value: "address", doc: "vLLM's old name of --host." },
} as const satisfies Record<string, { short?: string; value?: string; doc: string }>;

type Flag = keyof typeof FLAGS;

/** @returns the exit code */
export async function runBatchCommand(argv: readonly string[]): Promise<number> {
  if (argv.includes("--help") || argv.includes("-h")) {
    process.stdout.write(help((await import("./help.ts")).settingsHelp()));
    return 0;
  }
  try {
    return await runWith(argv);
  } catch (error) {
    if (error instanceof SettingError) return fail(error.message, USAGE);
    throw error;
  } finally {
    discardEngine();
  }
}

async function runWith(argv: readonly string[]): Promise<number> {
  const { own, rest } = takeOwn(argv);
  const options = optionsOf(own);
  const env = environment();
  const url = own.get("url");
  const resolved: Resolved = resolveSettings([...rest, ...(url === undefined ? [] : ["--host", url])], env);
  const progress = createProgress(process.stderr);
  try {
    const { before, answered, failed, signal } = await runBatch(options, resolved, env, {
      print: (text) => process.stdout.write(text),
      onProgress: ({ phase, file, done, total }) =>
        progress.update(`${phase === "download" ? "Downloading" : "Checking"} ${file}`, done, total),
      onWarning: (message) => process.stderr.write(`castellan: ${message}\n`),
      onLines: (done, total) => progress.update("Requests", done, total),
    });
    progress.stop();
    const earlier = before === 0 ? "" : `, behind ${before} of an earlier run`;
    process.stdout.write(`${shownPlace(options.output)}: ${answered} answered, ${failed} failed${earlier}\n`);
    if (signal === undefined) return 0;
    process.stderr.write(
      isUrl(options.output) && options.folder === undefined
        ? "castellan: not all lines are done, and their rows are gone: --output-tmp-dir would have kept them\n"
        : "castellan: not all lines are done; the same command goes on behind those that are\n",
    );
    return exitCodeOf(signal);
  } catch (error) {
    progress.stop();
    if (error instanceof StartupError) return fail(error.message, FAILURE);
    throw error;
  }
}

/** Takes this command's flags out of the line, and leaves the settings table's. @throws SettingError */
function takeOwn(argv: readonly string[]): { own: ReadonlyMap<Flag, string>; rest: readonly string[] } {
  const own = new Map<Flag, string>();
  const rest: string[] = [];
  const queue = [...argv];
  for (let word = queue.shift(); word !== undefined; word = queue.shift()) {
    const [, name = "", inline] = /^--?([^=]+)(?:=(.*))?$/s.exec(word) ?? [];
    const flag = flagOf(word, name);
    if (flag === undefined) rest.push(word);
    else if (own.has(flag)) throw new SettingError(`--${flag} stands twice`);
    else if (!("value" in FLAGS[flag])) own.set(flag, inline ?? "true");
    else {
      const value = inline ?? queue.shift();
      if (value === undefined || value.startsWith("--")) throw new SettingError(`--${flag} takes a value`);
      own.set(flag, value);
    }
  }
  return { own, rest };
}

function flagOf(word: string, name: string): Flag | undefined {
  const spelled = name.replaceAll("_", "-").toLowerCase();
  const names = Object.keys(FLAGS) as Flag[];
  if (word.startsWith("--")) return names.find((flag) => flag === spelled);
  return word.startsWith("-") ? names.find((flag) => shortOf(flag) === name) : undefined;
}

function shortOf(flag: Flag): string | undefined {
  const row = FLAGS[flag];
  return "short" in row ? row.short : undefined;
}

function optionsOf(own: ReadonlyMap<Flag, string>): BatchOptions {
  const given = own.get("max-concurrency");
  const concurrency = given === undefined ? undefined : Number(given);
  const inside = concurrency === undefined || (concurrency >= 1 && concurrency <= MOST_AT_ONCE);
  if (!inside || !Number.isInteger(concurrency ?? 1))
    throw new SettingError(`--max-concurrency lies between 1 and ${MOST_AT_ONCE}`);
  return {
    input: placeOf(own, "input-file"),
    output: placeOf(own, "output-file"),
    folder: own.get("output-tmp-dir"),
    concurrency,
    metrics: !["false", "0", "no", "off"].includes(own.get("enable-metrics") ?? "false"),
  };
}

/** A path, or an https URL. */
function placeOf(own: ReadonlyMap<Flag, string>, flag: "input-file" | "output-file"): string {
  const path = own.get(flag);
  if (path === undefined || path === "") throw new SettingError(`--${flag} names a file (-${FLAGS[flag].short})`);
  if (isUrl(path) && !path.startsWith("https://"))
    throw new SettingError(`--${flag} takes a local file, or an https URL`);
  return path;
}

function help(settings: readonly string[]): string {
  const rows = (Object.keys(FLAGS) as Flag[]).map((flag) => {
    const row: { readonly short?: string; readonly value?: string; readonly doc: string } = FLAGS[flag];
    const name = `${row.short === undefined ? "" : `-${row.short}, `}--${flag}${row.value ? ` <${row.value}>` : ""}`;
    return `  ${name}\n      ${row.doc}`;
  });
  const lines = [
    "Usage: castellan run-batch -i in.jsonl -o out.jsonl [MODEL] [flags]",
    "",
    'Answers the requests of a JSONL file, one a line: {"custom_id": …, "method": "POST", "url": …, "body": {…}}.',
    "A line that fails is a row with its error; it does not end the run.",
    "",
    "MODEL  as for serve, also as --model.",
    "",
    "Exit code 0: every line has its row. 1: the run could not begin or go on. 2: the command line is wrong.",
    "130, 143: interrupted; the same command goes on behind the rows that are there.",
    "",
    "Batch:",
    ...rows,
    "",
    "The flags of serve, of which those about listeners mean nothing here but --host and --port:",
    ...settings,
  ];
  return `${lines.join("\n")}\n`;
}
