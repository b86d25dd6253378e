/**
 * Finds the kernels: libllama and its ggml backends inside node-llama-cpp's package for this platform.
 *
 * File names carry version and variant (libllama.v0.5.0.so), so they are found by pattern; the package's version is
 * pinned exactly, and layout.ts checks that the library is the one the bindings were written against.
 */
import { existsSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

/** What this program's bindings were written for; the pin in package.json says the same. */
export const PACKAGE_VERSION = "3.22.1";

const PACKAGES: Readonly<Record<string, string>> = {
  "linux-x64": "linux-x64",
  "linux-arm64": "linux-arm64",
  "darwin-arm64": "mac-arm64-metal",
  "darwin-x64": "mac-x64",
  "win32-x64": "win-x64",
  "win32-arm64": "win-arm64",
};

export interface KernelFiles {
  /** Holds the ggml backends; libllama finds its neighbours there. */
  readonly directory: string;
  readonly llama: string;
  readonly ggml: string;
  readonly ggmlBase: string;
}

/** The kernels cannot run here: wrong platform, missing package or unusable processor. */
export class PlatformError extends Error {
  constructor(message: string) {
    super(message);
    this.name = "PlatformError";
  }
}

/** @throws PlatformError that names the platform and the package to install */
export function locateKernels(platform: string = process.platform, arch: string = process.arch): KernelFiles {
  const variant = PACKAGES[`${platform}-${arch}`];
  if (variant === undefined) {
    throw new PlatformError(`no kernels exist for ${platform}-${arch}; known: ${Object.keys(PACKAGES).join(", ")}`);
  }
  const name = `@node-llama-cpp/${variant}`;
  const directory = join(packageRoot(name), "bins", variant);
  if (!existsSync(directory)) throw missing(name, platform, arch);
  const extension = { linux: "so", darwin: "dylib", win32: "dll" }[platform] ?? "so";
  return {
    directory,
    llama: only(directory, new RegExp(`^(lib)?llama(\\..*)?\\.${extension}$`), name),
    ggml: only(directory, new RegExp(`^(lib)?ggml(\\..*)?\\.${extension}$`), name),
    ggmlBase: only(directory, new RegExp(`^(lib)?ggml-base(\\..*)?\\.${extension}$`), name),
  };
}

function packageRoot(name: string): string {
  try {
    return dirname(dirname(fileURLToPath(import.meta.resolve(name))));
  } catch {
    throw missing(name, process.platform, process.arch);
  }
}

function missing(name: string, platform: string, arch: string): PlatformError {
  return new PlatformError(
    `the kernels for ${platform}-${arch} are not installed: npm install ${name}@${PACKAGE_VERSION} (glibc systems only)`,
  );
}

function only(directory: string, pattern: RegExp, name: string): string {
  const found = readdirSync(directory).filter((file) => pattern.test(file));
  const [file] = found;
  if (file === undefined || found.length > 1)
    throw new PlatformError(`${name} holds ${found.length} files like ${pattern}`);
  return join(directory, file);
}
