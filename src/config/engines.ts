/** What may compute: llama.cpp's kernels in this server, or a vLLM that it starts. */
export const ENGINES = ["llama", "vllm"] as const;
export type Engine = (typeof ENGINES)[number];
