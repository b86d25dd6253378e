import assert from "node:assert/strict";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { batchOf, kernelContract } from "#engine/kernel.contract.ts";
import { KernelError } from "#engine/kernel.ts";
import { writeModel } from "../../../test/fixtures/gguf.ts";
import { openNativeKernel } from "./kernel.ts";
import { type Device, locateKernels, PlatformError } from "./locate.ts";

const directory = mkdtempSync(join(tmpdir(), "castellan-kernel-"));
const q8 = join(directory, "q8.gguf");
const f16 = join(directory, "f16.gguf");
writeModel(q8);
writeModel(f16, { weights: "f16", seed: 2 });

// One thread: threads that spin while other tests run are many times slower than one that does not.
const open = (modelPath: string, maxSequences = 32) =>
  openNativeKernel({ modelPath, contextPerSlot: 256, maxSequences, maxBatchTokens: 128, threads: 1, gpuLayers: 0 });

kernelContract("native, Q8_0", { open: () => open(q8) });
// ggml multiplies halves in tiles whose shape follows the number of rows and the processor: equal with AVX-512, by 0.007
// apart with AVX2 (docs/divergences.md).
kernelContract("native, F16", { open: () => open(f16), tolerance: 0.02 });

test("two thousand forwards leave the process no larger than two hundred did", async () => {
  const kernel = await open(q8, 4);
  const forward = (rounds: number): void => {
    for (let i = 0; i < rounds; i++) {
      kernel.forward(
        batchOf(kernel, [
          [0, i % 100, true],
          [1, 5, true],
        ]),
      );
      if (kernel.length(0) === kernel.limits.contextPerSlot) for (const slot of [0, 1]) kernel.truncate(slot, 0);
    }
  };
  forward(200);
  const before = process.memoryUsage().external;
  forward(1800);
  assert.ok(process.memoryUsage().external - before < 1 << 20, "views or buffers pile up");
  kernel.close();
  kernel.close();
});

test("an unknown platform is refused by its name", async () => {
  assert.throws(
    () => locateKernels("cpu", "plan9", "x64"),
    (error) => error instanceof PlatformError && /plan9-x64/.test(error.message),
  );
});

test("a platform without its package says what to install", async () => {
  assert.throws(
    () => locateKernels("cpu", "win32", "arm64"),
    (error) => error instanceof PlatformError && /npm install @node-llama-cpp\/win-arm64@3\.22\.1/.test(error.message),
  );
});

test("devices without kernels say so, and auto is what is installed", async () => {
  const refused = (device: Device, platform: string, arch: string, reason: RegExp): void =>
    assert.throws(
      () => locateKernels(device, platform, arch),
      (error) => error instanceof PlatformError && reason.test(error.message),
    );
  refused("metal", "linux", "x64", /no metal kernels exist for linux-x64; there are: cpu,cuda,vulkan/);
  refused("cuda", "win32", "x64", /npm install @node-llama-cpp\/win-x64-cuda@3\.22\.1/);
  refused("cpu", "sunos", "x64", /no kernels exist for sunos-x64/);
  assert.equal(locateKernels("cpu").device, "cpu");
});

test("no more rows than were asked for at start: libllama would end the process", async () => {
  const kernel = await openNativeKernel({
    modelPath: q8,
    contextPerSlot: 256,
    maxSequences: 4,
    maxBatchTokens: 128,
    maxRows: 10,
    threads: 1,
    gpuLayers: 0,
  });
  const rows = (count: number) =>
    batchOf(
      kernel,
      Array.from({ length: count }, (_, i) => [0, i, true] as const),
    );
  assert.throws(
    () => kernel.forward(rows(11)),
    (error) => error instanceof KernelError && error.code === "invalid",
  );
  assert.equal(kernel.forward(rows(10)).length, 10);
  kernel.close();
});
