/**
 * The rows of the settings table for a vLLM that this server starts and stands in front of. Spread into SETTINGS, under
 * its rules.
 */
import { ENGINES } from "./engines.ts";
import { choice, list, seconds, string } from "./kinds.ts";

const VLLM = "vLLM as the engine";

export const VLLM_SETTINGS = {
  engine: choice("llama", ENGINES, {
    section: VLLM,
    doc: "What computes: the kernels in this server, or a vLLM that it starts behind itself with vLLM's own flags (docs/guide/vllm.md).",
  }),
  vllmCommand: string("vllm", "path", { section: VLLM, doc: "The program that `vllm serve` is." }),
  vllmHostIp: string(undefined, "address", {
    section: VLLM,
    doc: "Address on which vLLM's processes of several machines talk to each other; one, and a private one.",
    fallbackDoc: "127.0.0.1, where all of them are here",
    variables: ["VLLM_HOST_IP"],
  }),
  vllmEnvironment: list("name", {
    section: VLLM,
    doc: "Variables that vLLM gets of this server's environment, besides those of libraries and GPUs.",
    loosens: "a variable may switch something on in vLLM that its flags may not",
  }),
  vllmStartTimeout: seconds(1800, [1, 86_400], {
    section: VLLM,
    doc: "How long vLLM may take until it answers; it is ended and started again after that.",
  }),
};
