/**
 * Tables for a terminal: columns as wide as what stands in them, shortened to the screen where there is one.
 *
 * Invariants: what is printed has no control characters, whoever wrote it, so that no name moves the cursor or hides a
 * line (Wall: T72); widths are those that a terminal shows; without a terminal there is no colour and nothing is cut.
 */
import stringWidth from "string-width";

export interface Column<R> {
  readonly title: string;
  readonly of: (row: R) => string;
  /** Gives way first when the screen is too narrow. */
  readonly flexible?: true;
}

/** Where the text goes. */
export interface Screen {
  /** Absent: no terminal. */
  readonly columns?: number;
  readonly color: boolean;
}

const GAP = 2;
const NARROWEST = 8;

export function screenOf(stream: NodeJS.WriteStream, env: Readonly<Record<string, string | undefined>>): Screen {
  if (stream.isTTY !== true) return { color: false };
  return { columns: stream.columns, color: (env["NO_COLOR"] ?? "") === "" && env["TERM"] !== "dumb" };
}

/** One line each, the titles first. */
export function table<R>(columns: readonly Column<R>[], rows: readonly R[], screen: Screen): string {
  const cells = rows.map((row) => columns.map(({ of }) => harmless(of(row))));
  const widths = columns.map(({ title }, i) =>
    Math.max(stringWidth(title), ...cells.map((line) => stringWidth(line[i] ?? ""))),
  );
  fit(columns, widths, screen.columns);
  const line = (texts: readonly string[]): string =>
    texts
      .map((text, i) => pad(text, widths[i] ?? 0))
      .join(" ".repeat(GAP))
      .trimEnd();
  const head = line(columns.map(({ title }) => title));
  const lines = [screen.color ? `\u001b[1m${head}\u001b[0m` : head, ...cells.map(line)];
  return `${lines.join("\n")}\n`;
}

/** `name  value`, one a line. */
export function facts(rows: readonly (readonly [name: string, value: string])[]): string {
  const width = Math.max(0, ...rows.map(([name]) => stringWidth(name)));
  return rows
    .map(([name, value]) => `${pad(name, width)}${" ".repeat(GAP)}${harmless(value)}`.trimEnd().concat("\n"))
    .join("");
}

/** Without control characters, line breaks and marks that turn the direction of text. */
export function harmless(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, "");
}

function fit<R>(columns: readonly Column<R>[], widths: number[], screen: number | undefined): void {
  if (screen === undefined) return;
  const total = (): number => widths.reduce((sum, width) => sum + width + GAP, -GAP);
  const flexible = columns.flatMap(({ flexible }, i) => (flexible === true ? [i] : []));
  for (let over = total() - screen; over > 0; over = total() - screen) {
    const widest = flexible.reduce((a, b) => ((widths[b] ?? 0) > (widths[a] ?? 0) ? b : a), flexible[0] ?? -1);
    const width = widths[widest];
    if (width === undefined || width <= NARROWEST) return;
    widths[widest] = width - 1;
  }
}

function pad(text: string, width: number): string {
  const shown = stringWidth(text) <= width ? text : `${cut(text, width - 1)}…`;
  return shown + " ".repeat(Math.max(0, width - stringWidth(shown)));
}

function cut(text: string, width: number): string {
  let kept = "";
  for (const { segment } of new Intl.Segmenter().segment(text)) {
    if (stringWidth(kept + segment) > width) break;
    kept += segment;
  }
  return kept;
}
