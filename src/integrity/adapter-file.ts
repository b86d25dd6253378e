/**
 * Which files may become adapters: a GGUF, or a folder in PEFT form (adapter_config.json, adapter_model.safetensors),
 * each opened once and judged by its descriptor.
 *
 * Wall: T29. While the server runs they lie under the operator's folders, which nobody but their owner can change
 * (_rooted-file.ts); where a folder is named by tenant (`/adapters/{tenant}`), a tenant finds its own alone (Wall: T101).
 * What is named at the start may lie anywhere. Pickles are refused by their names. Callers: adapter-store.ts, the app.
 */
import { constants, existsSync } from "node:fs";
import { type FileHandle, open, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { openRooted, RootedFileError, rootedPlace } from "./_rooted-file.ts";

export { RootedFileError as AdapterFileError };

export const CONFIG_FILE = "adapter_config.json";
export const WEIGHTS_FILE = "adapter_model.safetensors";
export const TENANT_PART = "{tenant}";

/** Open files, which the caller closes. */
export type AdapterFiles =
  | { readonly form: "gguf"; readonly file: FileHandle }
  | { readonly form: "peft"; readonly config: FileHandle; readonly weights: FileHandle };

const WHAT = "adapters";
const PICKLES = /\.(?:bin|ckpt|pickle|pkl|pt|pth|zip)$/i;
const PICKLED = ["adapter_model.bin", "adapter_model.pt"];

/**
 * @param tenant undefined: the operator, for whom a folder by tenant is the one above all of them
 * @returns the folders to look in
 */
export function adapterRoots(roots: readonly string[], tenant: string | undefined): readonly string[] {
  return roots.map((root) => {
    const at = root.indexOf(TENANT_PART);
    if (at < 0) return root;
    return tenant === undefined ? root.slice(0, at) : root.replace(TENANT_PART, () => tenant);
  });
}

/** @returns what is wrong with one of --lora-roots */
export function rootProblem(root: string): string | undefined {
  if (!root.includes("{") && !root.includes("}")) return undefined;
  const [before, after, more] = root.split(TENANT_PART);
  const whole = more === undefined && before?.endsWith("/") === true && after !== undefined && /^(?:\/|$)/.test(after);
  return whole && !/[{}]/.test(`${before}${after}`)
    ? undefined
    : `takes ${TENANT_PART} once, as a whole part of the path`;
}

/**
 * @param roots "anywhere": the operator named the path at the start
 * @throws AdapterFileError; where there are roots the message names no path
 */
export async function openAdapter(path: string, roots: readonly string[] | "anywhere"): Promise<AdapterFiles> {
  try {
    return await (roots === "anywhere" ? openNamed(path) : openWithin(path, roots));
  } catch (error) {
    const { syscall, code } = error as NodeJS.ErrnoException;
    if (syscall === undefined) throw error;
    throw new RootedFileError(code === "ENOENT" ? "there is no such file" : `it cannot be read (${code})`);
  }
}

async function openWithin(path: string, roots: readonly string[]): Promise<AdapterFiles> {
  const found = rootedPlace(path, roots, WHAT);
  if (!(await stat(found.path)).isDirectory()) {
    const file = await openRooted(found, WHAT);
    return { form: "gguf", file: await unlessPickle(found.path, file) };
  }
  return openFolder(found.path, async (part) => openRooted(rootedPlace(part, roots, WHAT), WHAT));
}

async function openNamed(path: string): Promise<AdapterFiles> {
  if ((await stat(path)).isDirectory()) return openFolder(path, openRegular);
  return { form: "gguf", file: await unlessPickle(path, await openRegular(path)) };
}

async function openFolder(path: string, openPart: (part: string) => Promise<FileHandle>): Promise<AdapterFiles> {
  const has = (name: string): boolean => existsSync(join(path, name));
  if (!has(CONFIG_FILE)) throw new RootedFileError(`the folder has no ${CONFIG_FILE}`);
  if (!has(WEIGHTS_FILE)) {
    const pickle = PICKLED.find(has);
    const why = pickle === undefined ? "" : `; ${pickle} is a pickle, and pickles are never read`;
    throw new RootedFileError(`the folder has no ${WEIGHTS_FILE}${why}`);
  }
  const config = await openPart(join(path, CONFIG_FILE));
  try {
    return { form: "peft", config, weights: await openPart(join(path, WEIGHTS_FILE)) };
  } catch (error) {
    await config.close();
    throw error;
  }
}

async function openRegular(path: string): Promise<FileHandle> {
  const file = await open(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0));
  if ((await file.stat()).isFile()) return file;
  await file.close();
  throw new RootedFileError("it is not a file");
}

/** By its name, and by how such files begin. */
async function unlessPickle(path: string, file: FileHandle): Promise<FileHandle> {
  const start = Buffer.alloc(4);
  await file.read(start, 0, 4, 0);
  const name = basename(path);
  const reason = name.endsWith(".safetensors")
    ? `a safetensors file is loaded with its ${CONFIG_FILE}: name the folder that both lie in`
    : PICKLES.test(name) || start.toString("latin1").startsWith("PK") || start[0] === 0x80
      ? "pickles, and archives of them, are never read: an adapter is a GGUF, or a folder with safetensors"
      : undefined;
  if (reason === undefined) return file;
  await file.close();
  throw new RootedFileError(reason);
}
