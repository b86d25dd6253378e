/**
 * Declared paths with a parameter: `/v1/responses/{response_id}`, and which paths are of them. Pure.
 * Callers: http/registrar.ts, which serves them, and policy/explain.ts, which says what would be served.
 */
export type PathParams = Readonly<Record<string, string>>;

/** At most one segment is a parameter, and never the first. */
const PARAMETER = /^((?:\/[A-Za-z0-9_-][A-Za-z0-9._-]*)+\/)\{([a-z][a-z0-9_]*)\}((?:\/[A-Za-z0-9_-][A-Za-z0-9._-]*)*)$/;
/** Wall: T05. No dot, no percent sign, no semicolon: nothing that a reader of paths could take for something else. */
const SEGMENT = /^[A-Za-z0-9_-]{1,128}$/;
export const SEGMENT_LENGTH = 128;

/** A declared path with a parameter, taken apart. */
export interface PathShape {
  readonly declared: string;
  readonly before: string;
  readonly name: string;
  readonly after: string;
}

export function isSegment(text: string): boolean {
  return SEGMENT.test(text);
}

/** @returns undefined: the path has no parameter */
export function shapeOf(declared: string): PathShape | undefined {
  const [, before, name, after] = PARAMETER.exec(declared) ?? [];
  return before === undefined || name === undefined || after === undefined
    ? undefined
    : { declared, before, name, after };
}

/** @returns the parameter, where the path is of this shape */
export function fit({ before, name, after }: PathShape, path: string): PathParams | undefined {
  if (!path.startsWith(before) || !path.endsWith(after)) return undefined;
  const segment = path.slice(before.length, Math.max(before.length, path.length - after.length));
  return SEGMENT.test(segment) ? { [name]: segment } : undefined;
}
