/**
 * Entry of the engine process: opens the kernel that the init message names, then steps until told to close.
 *
 * It ends when the channel to its parent closes, so no orphan stays; SIGINT, SIGTERM and SIGHUP, which a terminal sends
 * to the whole process group, are the parent's to decide about. Started by launcher.ts only.
 */
import { entryUrl } from "#base/entry.ts";
import { Engine } from "./engine.ts";
import { openFakeKernel } from "./fake.ts";
import type { Kernel } from "./kernel.ts";
import { EngineLoop } from "./loop.ts";
import { type Command, type KernelInit, type Notice, type ProcessLimits, readCommand } from "./messages.ts";
import { Operator } from "./operator.ts";
import { PoolingEngine } from "./pooling/engine.ts";
import { openFakePoolingKernel } from "./pooling/fake.ts";
import type { PoolingKernel } from "./pooling/kernel.ts";
import { createBlockHasher } from "./prefix/hash.ts";
import { NATIVE } from "./spare.ts";

type NativeModule = { openNativeKernel(options: unknown, onVocabulary?: () => void): Promise<Kernel> };
type NativePoolingModule = { openNativePoolingKernel(options: unknown, onVocabulary?: () => void): PoolingKernel };
interface Opened {
  readonly limits: ProcessLimits;
  readonly engine: Engine | PoolingEngine;
  readonly operator: Pick<Operator<Kernel>, "still" | "perform">;
}
type Init = Extract<Command, { type: "init" }>;

function post(notice: Notice): void {
  process.send?.(notice);
}

const postTried = (): void => post({ type: "tried" });

/** Loads native code: only when it is wanted. */
function importNative(name: string): Promise<unknown> {
  return import(entryUrl(`engine/native/${name}`).href);
}

async function openKernel(init: KernelInit, onVocabulary?: () => void): Promise<Kernel> {
  if (init.kernel === "fake") return openFakeKernel(init.script);
  if (init.kernel !== "native") throw new Error("the engine runs another kind of model");
  return ((await importNative("kernel")) as NativeModule).openNativeKernel(init.options, onVocabulary);
}

async function openPoolingKernel(init: KernelInit, onVocabulary?: () => void): Promise<PoolingKernel> {
  if (init.kernel === "fake-pooling") return openFakePoolingKernel(init.script);
  if (init.kernel !== "native-pooling") throw new Error("the engine runs another kind of model");
  return ((await importNative("pooling-kernel")) as NativePoolingModule).openNativePoolingKernel(
    init.options,
    onVocabulary,
  );
}

async function generating({ kernel: init, draft: small, limits }: Init): Promise<Opened> {
  const kernel = await openKernel(init, postTried);
  const openDraft = async () => (small === undefined ? undefined : openKernel(small));
  const draft = await openDraft();
  const { algorithm, seed } = limits.prefixCache;
  const parts = draft === undefined ? {} : { draft };
  const engine = new Engine(kernel, limits, await createBlockHasher(algorithm, seed), parts);
  const adopt = async (next: Kernel): Promise<void> => {
    const nextDraft = await openDraft();
    try {
      engine.adopt(next, nextDraft);
    } catch (error) {
      nextDraft?.close();
      throw error;
    }
  };
  const operator = new Operator({ engine, kernel, init, open: (next) => openKernel(next), adopt });
  return { limits: kernel.limits, engine, operator };
}

async function pooling({ kernel: init, limits }: Init): Promise<Opened> {
  const kernel = await openPoolingKernel(init, postTried);
  const engine = new PoolingEngine(kernel, limits);
  const adopt = async (next: PoolingKernel): Promise<void> => engine.adopt(next);
  const operator = new Operator({ engine, kernel, init, open: (next) => openPoolingKernel(next), adopt });
  return { limits: kernel.limits, engine, operator };
}

function open(init: Init): Promise<Opened> {
  return init.kernel.kernel.endsWith("pooling") ? pooling(init) : generating(init);
}

async function start(init: Init): Promise<EngineLoop | undefined> {
  try {
    const { limits, engine, operator } = await open(init);
    post({ type: "ready", limits });
    return new EngineLoop(engine, post, operator);
  } catch (error) {
    const refusal: Notice = { type: "refused", message: error instanceof Error ? error.message : String(error) };
    process.send?.(refusal, undefined, undefined, () => process.disconnect?.());
    return undefined;
  }
}

function main(): void {
  process.title = "castellan-engine";
  // What fails here fails again, with its reason, where the kernel is opened.
  if (process.argv[2] === NATIVE) importNative("kernel").catch(() => {});
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
