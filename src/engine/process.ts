/**
 * Entry of the engine process: opens the kernel that the init message names, then steps until told to close.
 *
 * It ends when the channel to its parent closes, so no orphan stays; SIGINT, SIGTERM and SIGHUP, which a terminal sends
 * to the whole process group, are the parent's to decide about. Started by launcher.ts only.
 */
import { Engine } from "./engine.ts";
import { openFakeKernel } from "./fake.ts";
import type { Kernel } from "./kernel.ts";
import { EngineLoop } from "./loop.ts";
import { type Command, type KernelInit, type Notice, readCommand } from "./messages.ts";
import { createBlockHasher } from "./prefix/hash.ts";

type NativeModule = { openNativeKernel(options: unknown): Kernel | Promise<Kernel> };

function post(notice: Notice): void {
  process.send?.(notice);
}

async function openKernel(init: KernelInit): Promise<Kernel> {
  if (init.kernel === "fake") return openFakeKernel(init.script);
  const path = new URL(import.meta.url.endsWith(".ts") ? "./native/kernel.ts" : "./native/kernel.js", import.meta.url);
  const native = (await import(path.href)) as NativeModule; // loads native code: only when it is wanted
  return native.openNativeKernel(init.options);
}

async function start({
  kernel: init,
  draft: small,
  limits,
}: Extract<Command, { type: "init" }>): Promise<EngineLoop | undefined> {
  try {
    const kernel = await openKernel(init);
    const { algorithm, seed } = limits.prefixCache;
    const draft = small === undefined ? {} : { draft: await openKernel(small) };
    const engine = new Engine(kernel, limits, await createBlockHasher(algorithm, seed), draft);
    post({ type: "ready", limits: kernel.limits });
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
