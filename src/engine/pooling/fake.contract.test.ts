import { openFakePoolingKernel } from "./fake.ts";
import { poolingContract } from "./kernel.contract.ts";

poolingContract("fake", { open: () => openFakePoolingKernel({}), tolerance: 0 });
poolingContract("fake with a head", { open: () => openFakePoolingKernel({ type: "rank", width: 3 }), tolerance: 0 });
