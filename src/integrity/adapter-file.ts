/**
 * Which files may become adapters while the server runs: regular GGUF files under the operator's folders, which nobody
 * but their owner can change (_rooted-file.ts).
 *
 * Wall: T29. Callers: the app.
 */
import { RootedFileError, rootedFile } from "./_rooted-file.ts";

export { RootedFileError as AdapterFileError };

/**
 * @param roots --lora-roots
 * @returns the resolved path
 * @throws AdapterFileError; the message names no path
 */
export function adapterFile(path: string, roots: readonly string[]): string {
  return rootedFile(path, roots, "adapters").path;
}
