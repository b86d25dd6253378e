/**
 * `serve --help`, out of the settings table; and the table's part for other commands that take its flags.
 */
import type { Setting } from "#config/kinds.ts";
import { flagOf, settingRows } from "#config/settings.ts";

const WIDTH = 100;
const INDENT = 34;

export function serveHelp(): string {
  const lines = [
    "Usage: castellan serve [MODEL] [flags]",
    "",
    "Serves a model over vLLM's HTTP API; every route but /health and /ping wants a key.",
    "",
    "MODEL  a GGUF file, or hf:org/repo[:file or quantisation]; without one, the built-in demo model. With --engine vllm what",
    "       `vllm serve` takes; with --upstream none: the servers behind this one have it.",
    "",
    "A flag --some-name may be given as --some_name, as the variable CASTELLAN_SOME_NAME, or as the key some-name",
    "in a YAML file (--config file.yaml); the flag wins over the variable, the variable over the file.",
    ...settingsHelp(),
  ];
  return `${lines.join("\n")}\n`;
}

/** Every flag of the table, by section. */
export function settingsHelp(): readonly string[] {
  const lines: string[] = [];
  let section = "";
  for (const [name, row] of settingRows()) {
    if (row.section !== section) {
      section = row.section;
      lines.push("", `${section}:`);
    }
    lines.push(...rowLines(name, row));
  }
  return lines;
}

function rowLines(name: string, row: Setting<unknown>): string[] {
  const flag = `--${flagOf(name)}${row.placeholder === undefined ? "" : ` <${row.placeholder}>`}`;
  const also = row.variables === undefined ? "" : ` Also ${row.variables.join(", ")}.`;
  const body = wrap(`${row.doc}${defaultOf(row)}${also}`, WIDTH - INDENT);
  const [first = "", ...rest] = body;
  const head = `  ${flag}`;
  const lines = head.length < INDENT - 1 ? [head.padEnd(INDENT) + first] : [head, " ".repeat(INDENT) + first];
  return [...lines, ...rest.map((line) => " ".repeat(INDENT) + line)];
}

/** ` (default …)`; nothing where there is none. */
export function defaultOf(row: Setting<unknown>): string {
  if (row.fallbackDoc !== undefined) return ` (default: ${row.fallbackDoc})`;
  if (row.fallback === undefined || (Array.isArray(row.fallback) && row.fallback.length === 0)) return "";
  return ` (default: ${row.fallback})`;
}

function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    if (line !== "" && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else line = line === "" ? word : `${line} ${word}`;
  }
  return line === "" ? lines : [...lines, line];
}
