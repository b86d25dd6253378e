/**
 * Reads what a server says of itself for Prometheus: the text format 0.0.4, or OpenMetrics 1.0, as it comes.
 *
 * Invariants (Wall: T126): all of an exposition is by its format's grammar, or none of it counts; bytes, lines, a line's
 * length and labels are bounded, and the work is linear in the bytes; labels of the caller's stand in every sample, and
 * what the server had under their names is renamed as Prometheus renames it, so that no server's sample passes for
 * another's. Times and exemplars are left out: the time of the scrape is what counts. Callers: serving's upstreams.
 */
import { isNumber, type Label, readSample, type Sample } from "./_sample.ts";
import { ExpositionError } from "./error.ts";
import { type Family, type FamilySample, type FamilyType, isDeclarable, type Placed, placeOf } from "./family.ts";

export interface ExpositionLimits {
  readonly bytes: number;
  readonly lines: number;
}

const BLOCK = 64 * 1024;
const MAX_LINE = 16 * 1024;
const MAX_HELP = 4096;
const META = /^# (HELP|TYPE|UNIT) ([a-zA-Z_:][a-zA-Z0-9_:]{0,255})(?:[ \t]+(.*))?$/;
/** Their spelling in HELP. */
const HELP_TEXT = /^[^\\]*(?:\\[\\n][^\\]*)*$/;
const EOF = "# EOF";

interface OpenFamily {
  readonly name: string;
  readonly base: string;
  readonly type: FamilyType;
  readonly samples: FamilySample[];
}

interface Belongs {
  readonly family: OpenFamily;
  readonly bound: Placed["bound"];
}

export class ExpositionReader {
  readonly #own: readonly Label[];
  readonly #open: boolean;
  readonly #limits: ExpositionLimits;
  readonly #decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  /** Small pieces are gathered, so that a server that sends bytes one by one costs no more than another. */
  readonly #block = new Uint8Array(BLOCK);
  #filled = 0;
  #bytes = 0;
  #lines = 0;
  #rest = "";
  #ended = false;
  readonly #types = new Map<string, string>();
  readonly #helps = new Map<string, string>();
  readonly #families = new Map<string, OpenFamily>();
  /** By a sample's name. */
  readonly #placed = new Map<string, Belongs>();
  readonly #series = new Set<string>();

  /** @param own labels that every sample gets. @param open OpenMetrics */
  constructor(own: Readonly<Record<string, string>>, open: boolean, limits: ExpositionLimits) {
    this.#own = Object.entries(own).map(([name, value]) => [name, spelled(value)]);
    this.#open = open;
    this.#limits = limits;
  }

  /** The chunk is not kept. @throws ExpositionError */
  take(chunk: Uint8Array): void {
    this.#bytes += chunk.byteLength;
    if (this.#bytes > this.#limits.bytes) throw new ExpositionError("too many bytes");
    for (let at = 0; at < chunk.byteLength; ) {
      const piece = chunk.subarray(at, at + BLOCK - this.#filled);
      this.#block.set(piece, this.#filled);
      this.#filled += piece.byteLength;
      at += piece.byteLength;
      if (this.#filled === BLOCK) this.#flush(true);
    }
  }

  /** No more comes. @throws ExpositionError */
  end(): readonly Family[] {
    this.#flush(false);
    if (this.#rest !== "" || this.#open !== this.#ended) throw new ExpositionError("no end", this.#lines);
    return [...this.#families.values()].map(({ name, base, type, samples }) => ({
      name,
      type,
      help: this.#helps.get(base),
      samples,
    }));
  }

  #flush(more: boolean): void {
    const text = this.#decoded(more);
    this.#filled = 0;
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop() ?? "";
    for (const line of lines) this.#line(line);
    if (this.#rest.length > MAX_LINE) throw new ExpositionError("a line too long", this.#lines + 1);
  }

  #decoded(more: boolean): string {
    try {
      return this.#decoder.decode(this.#block.subarray(0, this.#filled), { stream: more });
    } catch {
      throw new ExpositionError("no UTF-8", this.#lines + 1);
    }
  }

  #line(line: string): void {
    this.#lines++;
    if (this.#lines > this.#limits.lines) throw new ExpositionError("too many lines");
    try {
      if (line.length > MAX_LINE) throw new ExpositionError("a line too long");
      if (this.#ended) throw new ExpositionError("something behind the end");
      if (line.startsWith("#")) this.#comment(line);
      else if (line !== "" || this.#open) this.#sample(readSample(line, this.#open));
    } catch (error) {
      if (error instanceof ExpositionError) throw new ExpositionError(error.message, this.#lines);
      throw error;
    }
  }

  #comment(line: string): void {
    const [, kind, name, text = ""] = META.exec(line) ?? [];
    if (name === undefined) {
      if (this.#open) {
        if (line !== EOF) throw new ExpositionError("a comment");
        this.#ended = true;
      } else if (/^# (?:HELP|TYPE)\b/.test(line)) throw new ExpositionError("a description");
    } else if (kind === "HELP") this.#help(name, text);
    else if (kind === "TYPE") this.#type(name, text);
  }

  #help(name: string, text: string): void {
    const plain = this.#open ? text.replaceAll('\\"', '"') : text;
    if (this.#helps.has(name) || plain.length > MAX_HELP || !HELP_TEXT.test(plain))
      throw new ExpositionError("a description");
    this.#helps.set(name, plain);
  }

  #type(name: string, type: string): void {
    if (this.#types.has(name) || this.#placed.has(name) || !isDeclarable(type, this.#open))
      throw new ExpositionError("a type");
    this.#types.set(name, type);
  }

  #sample({ name, labels, value }: Sample): void {
    const { family, bound } = this.#placed.get(name) ?? this.#place(name);
    if (bound !== undefined && !isNumber(labels.find(([label]) => label === bound)?.[1]))
      throw new ExpositionError("a bound");
    const series = seriesOf(name, labels);
    if (this.#series.has(series)) throw new ExpositionError("a sample twice");
    this.#series.add(series);
    const printed = [...this.#own, ...renamed(labels, this.#own)].map(([label, text]) => `${label}="${text}"`);
    family.samples.push({ name, line: `${name}{${printed.join(",")}} ${value}` });
  }

  #place(name: string): Belongs {
    const place = placeOf(name, this.#types, this.#open);
    if (place === undefined) throw new ExpositionError("a sample that its family has not");
    const { base, type, whole, bound } = place;
    const family = whole ? base : name;
    const known = this.#families.get(family) ?? { name: family, base, type, samples: [] };
    this.#families.set(family, known);
    const belongs = { family: known, bound };
    this.#placed.set(name, belongs);
    return belongs;
  }
}

/** An empty value is as good as no label. */
function seriesOf(name: string, labels: readonly Label[]): string {
  const said = labels.filter(([, value]) => value !== "").map(([label, value]) => `${label}="${value}"`);
  return `${name} ${said.sort().join(",")}`;
}

/** As Prometheus does it: `exported_` in front, as often as it takes. */
function renamed(labels: readonly Label[], own: readonly Label[]): readonly Label[] {
  const taken = new Set(own.map(([name]) => name));
  if (!labels.some(([name]) => taken.has(name))) return labels;
  for (const [name] of labels) taken.add(name);
  return labels.map(([name, value]) => {
    if (!own.some(([other]) => other === name)) return [name, value];
    let free = `exported_${name}`;
    while (taken.has(free)) free = `exported_${free}`;
    taken.add(free);
    return [free, value];
  });
}

function spelled(value: string): string {
  return value.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
}
