/**
 * Where the program's own files are, from the sources and from what scripts/build.ts makes of them, where a file may
 * hold many modules and stand elsewhere than its source does.
 */
const [, root = "", below = "/src/"] = /^(.*)(\/(?:src|dist)\/)/.exec(import.meta.url) ?? [];

/** The checkout's or the package's root, as a URL that ends with a slash. */
export const ROOT = `${root}/`;

/** A file that processes are started from, or that is loaded by its name: `engine/process`. */
export function entryUrl(name: string): URL {
  return new URL(`.${below}${name}${import.meta.url.endsWith(".ts") ? ".ts" : ".js"}`, ROOT);
}
