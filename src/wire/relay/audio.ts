/**
 * A form of /v1/audio/transcriptions or /v1/audio/translations that is passed on: which fields there are, what they may
 * say, and what goes on.
 *
 * Invariant: a closed list of fields, each once (but lists) and held to its bounds; another is left out, as vLLM leaves it
 * unread. The model's name and what the stream tells of its usage are the server's to say. Callers: forwarding.
 */
import { invalid } from "#core/fault.ts";
import type { RequestCaps } from "#core/request-caps.ts";
import { type FormFilePart, readRelayForm, type WrittenForm, writeRelayForm } from "./form.ts";

export interface AudioVerdict {
  /** As the client calls it. */
  readonly model: string | undefined;
  readonly stream: boolean;
  /** Usage was asked for on the server's account. */
  readonly strip: boolean;
  readonly n: number;
  readonly maxTokens: number | undefined;
  readonly fileBytes: number;
  readonly form: { readonly fields: readonly (readonly [string, string])[]; readonly file: FormFilePart };
}

const FORMATS = ["json", "text", "srt", "verbose_json", "vtt"];
const LISTS = new Set(["timestamp_granularities[]"]);
const NUMBER = /^-?\d{1,19}(?:\.\d{1,19})?(?:e[+-]?\d{1,3})?$/i;
const WHOLE = /^-?\d{1,19}$/;
const MAX_WHOLE = Number.MAX_SAFE_INTEGER;
const BOUNDS = { fields: 32, fieldBytes: 16 * 1024, file: "file" };

type Check = (value: string, name: string) => void;

const text: Check = () => {};
const oneOf =
  (...words: readonly string[]): Check =>
  (value, name) => {
    if (!words.includes(value)) throw invalid(name, `${name} must be one of: ${words.join(", ")}.`);
  };
const flag = oneOf("true", "false", "True", "False", "1", "0");
const number =
  (from: number, to: number, pattern = NUMBER): Check =>
  (value, name) => {
    const given = Number(value);
    if (!pattern.test(value) || given < from || given > to)
      throw invalid(name, `${name} must be a ${pattern === WHOLE ? "whole " : ""}number from ${from} to ${to}.`);
  };
const whole = (from: number, to: number): Check => number(from, to, WHOLE);
const language: Check = (value, name) => {
  if (!/^[A-Za-z]{2,16}(?:-[A-Za-z0-9]{1,16})?$/.test(value)) throw invalid(name, `${name} is no language's code.`);
};

const FIELDS: Readonly<Record<string, Check>> = {
  language,
  to_language: language,
  prompt: text,
  hotwords: text,
  response_format: oneOf(...FORMATS),
  "timestamp_granularities[]": oneOf("word", "segment"),
  stream: flag,
  stream_include_usage: flag,
  stream_continuous_usage_stats: flag,
  temperature: number(0, 1),
  top_p: number(0, 1),
  top_k: whole(-1, MAX_WHOLE),
  min_p: number(0, 1),
  seed: whole(-MAX_WHOLE, MAX_WHOLE),
  frequency_penalty: number(-2, 2),
  presence_penalty: number(-2, 2),
  repetition_penalty: number(0, 1000),
  length_penalty: number(-1000, 1000),
  max_completion_tokens: whole(1, MAX_WHOLE),
  n: whole(1, MAX_WHOLE),
  use_beam_search: flag,
  include_stop_str_in_output: flag,
};

/** @throws Fault invalid_request, naming the field */
export function judgeAudio(body: Buffer, contentType: string | undefined, caps: RequestCaps): AudioVerdict {
  const { fields, file } = readRelayForm(body, contentType, BOUNDS);
  if (file === undefined) throw invalid("file", "The form has no file.");
  const given = new Map<string, string>();
  const kept: (readonly [string, string])[] = [];
  for (const [name, value] of fields) {
    const check = Object.hasOwn(FIELDS, name) ? FIELDS[name] : undefined;
    if (check === undefined && name !== "model") continue;
    if (given.has(name) && !LISTS.has(name)) throw invalid(name, "The field stands twice in the form.");
    given.set(name, value);
    // A form has no null: an empty field says nothing.
    if (check === undefined || value === "") continue;
    check(value, name);
    if (!OURS.has(name)) kept.push([name, value]);
  }
  const isOn = (name: string): boolean => ["true", "True", "1"].includes(given.get(name) ?? "");
  const n = Number(given.get("n") || 1);
  if (n > caps.n) throw invalid("n", `n must be at most ${caps.n}.`);
  const stream = isOn("stream");
  const strip = stream && !isOn("stream_include_usage");
  if (stream) kept.push(["stream", "true"], ["stream_include_usage", "true"]);
  if (stream && !strip && isOn("stream_continuous_usage_stats")) kept.push(["stream_continuous_usage_stats", "true"]);
  const most = given.get("max_completion_tokens");
  return {
    ...{ model: given.get("model") || undefined, stream, strip, n },
    maxTokens: most === undefined || most === "" ? undefined : Number(most),
    fileBytes: file.bytes.length,
    form: { fields: kept, file },
  };
}

/** Written when it is known what they go on as. */
const OURS = new Set(["stream", "stream_include_usage", "stream_continuous_usage_stats"]);

/** @param model as the upstream calls it; undefined: as the client does, if it does */
export function audioForm({ form: { fields, file }, model: asked }: AudioVerdict, model = asked): WrittenForm {
  return writeRelayForm({ fields: model === undefined ? fields : [["model", model], ...fields], file }, BOUNDS.file);
}
