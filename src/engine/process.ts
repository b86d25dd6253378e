/**
 * Entry of the engine process: opens the kernel that the init message names, then steps until told to close.
 *
 * It ends when the channel to its parent closes, so no orphan stays; SIGINT, SIGTERM and SIGHUP, which a terminal sends
 * to the whole process group, are the parent's to decide about. Started by launcher.ts only.
 */
import { Engine, type EngineLimits } from "./engine.ts";
import { openFakeKernel } from "./fake.ts";
import type { Kernel } from "./kernel.ts";
import { EngineLoop } from "./loop.ts";
import { type Command, type GeneratingInit, type Notice, type ProcessLimits, readCommand } from "./messages.ts";
import { PoolingEngine } from "./pooling/engine.ts";
import { openFakePoolingKernel } from "./pooling/fake.ts";
import type { PoolingKernel } from "./pooling/kernel.ts";
import { createBlockHasher } from "./prefix/hash.ts";

type NativeModule = { openNativeKernel(options: unknown): Kernel };
type NativePoolingModule = { openNativePoolingKernel(options: unknown): PoolingKernel };
type Opened = { readonly limits: ProcessLimits; readonly engine: Engine | PoolingEngine };
type Init = Extract<Command, { type: "init" }>;

function post(notice: Notice): void {
  process.send?.(notice);
}

/** Loads native code: only when it is wanted. */
function importNative(name: string): Promise<unknown> {
  const extension = import.meta.url.endsWith(".ts") ? "ts" : "js";
  return import(new URL(`./native/${name}.${extension}`, import.meta.url).href);
}

function pooling(kernel: PoolingKernel, limits: EngineLimits): Opened {
  return { limits: kernel.limits, engine: new PoolingEngine(kernel, limits) };
}

async function openKernel(init: GeneratingInit): Promise<Kernel> {
  if (init.kernel === "fake") return openFakeKernel(init.script);
  return ((await importNative("kernel")) as NativeModule).openNativeKernel(init.options);
}

async function generating(init: GeneratingInit, { draft: small, limits }: Init): Promise<Opened> {
  const kernel = await openKernel(init);
  const { algorithm, seed } = limits.prefixCache;
  const draft = small === undefined ? {} : { draft: await openKernel(small) };
  const engine = new Engine(kernel, limits, await createBlockHasher(algorithm, seed), draft);
  return { limits: kernel.limits, engine };
}

async function open(init: Init): Promise<Opened> {
  const { kernel, limits } = init;
  switch (kernel.kernel) {
    case "fake":
    case "native":
      return generating(kernel, init);
    case "fake-pooling":
      return pooling(openFakePoolingKernel(kernel.script), limits);
    case "native-pooling": {
      const native = (await importNative("pooling-kernel")) as NativePoolingModule;
      return pooling(native.openNativePoolingKernel(kernel.options), limits);
    }
  }
}

async function start(init: Init): Promise<EngineLoop | undefined> {
  try {
    const { limits, engine } = await open(init);
    post({ type: "ready", limits });
    return new EngineLoop(engine, post);
  } catch (error) {
    const refusal: Notice = { type: "refused", message: error instanceof Error ? error.message : String(error) };
    process.send?.(refusal, undefined, undefined, () => process.disconnect?.());
    return undefined;
  }
}

function main(): void {
  process.title = "castellan-engine";
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => {});
  process.on("disconnect", () => process.exit(0));
  let loop: Promise<EngineLoop | undefined> | undefined;
  process.on("message", async (value: unknown) => {
    const command = readCommand(value);
    if (command.type === "init") {
      loop ??= start(command);
      return;
    }
    (await loop)?.handle(command);
    if (command.type === "close") process.disconnect?.();
  });
}

main();
