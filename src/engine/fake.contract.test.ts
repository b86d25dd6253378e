import { openFakeKernel } from "./fake.ts";
import { kernelContract } from "./kernel.contract.ts";

kernelContract("fake", { open: () => openFakeKernel({ maxSequences: 32, maxBatchTokens: 128 }) });
