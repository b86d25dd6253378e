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

/** What computes. `auto`: the best one whose package is installed. */
export const DEVICES = ["auto", "cpu", "cuda", "vulkan", "metal"] as const;
export type Device = (typeof DEVICES)[number];

/** Package by platform and device; Apple's one has both kinds of kernels. */
const PACKAGES: Readonly<Record<string, Partial<Record<Exclude<Device, "auto">, string>>>> = {
  "linux-x64": { cpu: "linux-x64", cuda: "linux-x64-cuda", vulkan: "linux-x64-vulkan" },
  "linux-arm64": { cpu: "linux-arm64" },
  "darwin-arm64": { cpu: "mac-arm64-metal", metal: "mac-arm64-metal" },
  "darwin-x64": { cpu: "mac-x64" },
  "win32-x64": { cpu: "win-x64", cuda: "win-x64-cuda", vulkan: "win-x64-vulkan" },
  "win32-arm64": { cpu: "win-arm64" },
};
/** From the quickest on. */
const GPUS = ["cuda", "metal", "vulkan"] as const;

export interface KernelFiles {
  /** Holds the ggml backends; libllama finds its neighbours there. */
  readonly directory: string;
  /** Backends for machines without the vendor's libraries, if that package is installed. */
  readonly fallback: string | undefined;
  readonly device: Exclude<Device, "auto">;
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
export function locateKernels(
  wanted: Device = "cpu",
  platform: string = process.platform,
  arch: string = process.arch,
): KernelFiles {
  const packages = PACKAGES[`${platform}-${arch}`];
  if (packages === undefined) {
    throw new PlatformError(`no kernels exist for ${platform}-${arch}; known: ${Object.keys(PACKAGES).join(", ")}`);
  }
  const device = wanted === "auto" ? (GPUS.find((gpu) => installed(packages[gpu])) ?? "cpu") : wanted;
  const variant = packages[device];
  if (variant === undefined)
    throw new PlatformError(`no ${device} kernels exist for ${platform}-${arch}; there are: ${Object.keys(packages)}`);
  const name = `@node-llama-cpp/${variant}`;
  const directory = join(packageRoot(name), "bins", variant);
  if (!existsSync(directory)) throw missing(name, platform, arch);
  const extension = { linux: "so", darwin: "dylib", win32: "dll" }[platform] ?? "so";
  const extra = `${name}-ext`;
  return {
    directory,
    device,
    fallback: installed(`${variant}-ext`) ? join(packageRoot(extra), "bins", variant, "fallback") : undefined,
    llama: only(directory, new RegExp(`^(lib)?llama(\\..*)?\\.${extension}$`), name),
    ggml: only(directory, new RegExp(`^(lib)?ggml(\\..*)?\\.${extension}$`), name),
    ggmlBase: only(directory, new RegExp(`^(lib)?ggml-base(\\..*)?\\.${extension}$`), name),
  };
}

function installed(variant: string | undefined): boolean {
  if (variant === undefined) return false;
  try {
    import.meta.resolve(`@node-llama-cpp/${variant}`);
    return true;
  } catch {
    return false;
  }
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
