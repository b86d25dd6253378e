/**
 * Reading HTTP header lists as they came (`[name, value, name, value, …]`, Node's `rawHeaders`).
 *
 * Why not `message.headers`: it keeps the first of several equal headers and joins others, so that "sent twice",
 * the mark of an attempt to have two readers disagree, cannot be seen any more.
 */

const NONE: readonly string[] = [];

/** All values of a header. `name` in lower case. */
export function headerValues(rawHeaders: readonly string[], name: string): readonly string[] {
  let values: string[] | undefined;
  for (let at = 0; at + 1 < rawHeaders.length; at += 2) {
    const candidate = rawHeaders[at] as string;
    // Lengths first: most headers are turned away without making a lower-case copy.
    if (candidate.length !== name.length || candidate.toLowerCase() !== name) continue;
    if (values === undefined) values = [rawHeaders[at + 1] as string];
    else values.push(rawHeaders[at + 1] as string);
  }
  return values ?? NONE;
}
