/**
 * Server-sent events, the writing side (WHATWG HTML, section 9.2.6). Pure: text in, complete frames out.
 *
 * Invariant: what goes in as data comes out as data. A line break in it (LF, CR or CRLF, which a reader all takes as
 * the end of a field) becomes a further `data:` line, so no content can forge an event, a name or a comment.
 */

const LINE_BREAK = /\r\n|\r|\n/;

/** `data: …` and the blank line. JSON text has no line breaks of its own and takes the first branch. */
export function sseData(data: string): string {
  if (!LINE_BREAK.test(data)) return `data: ${data}\n\n`;
  return `${field("data", data)}\n`;
}

/** An event with a name, as Anthropic's and Responses' streams have. @throws RangeError a line break in the name */
export function sseEvent(name: string, data: string): string {
  if (LINE_BREAK.test(name)) throw new RangeError("an event name has no line break");
  return `event: ${name}\n${sseData(data)}`;
}

/** A comment: readers drop it, proxies see that the stream lives. */
export function sseComment(comment: string): string {
  return `${field("", comment)}\n`;
}

function field(name: string, value: string): string {
  return value
    .split(LINE_BREAK)
    .map((line) => `${name}: ${line}\n`)
    .join("");
}
