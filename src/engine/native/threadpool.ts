/**
 * Compute threads that live as long as their context. The pinned kernels are built without OpenMP, and without a pool of
 * its own ggml starts and ends its threads for every graph: once a token.
 *
 * The functions stand in the CPU backend, whose variant is chosen by processor, so they are asked of its registry.
 * Source: ggml.h and ggml-cpu.cpp of llama.cpp v0.5.0. Used by kernel.ts and pooling-kernel.ts.
 */
import koffi, { type LibraryHandle } from "koffi";

type Pointer = unknown;

/** ggml_threadpool_params: 512 bytes of a mask, threads, priority, polling, two flags; rounded up. */
const PARAMS_BYTES = 1024;
const POLL_AT = 512 + 4 + 4;
/**
 * How long a thread without work looks for some before it sleeps, 0 … 100; 1 is 1 to 2 ms, which spans the JavaScript
 * between two steps. Measured with 125M parameters on two processors, a token alone: 7.8 ms without a pool, 8.0 with 0,
 * 6.5 with 1, 6.8 with ggml's own 50, which would keep every processor awake for a tenth of a second.
 */
const POLL = 1;
/** GGML_BACKEND_DEVICE_TYPE_CPU */
const CPU = 0;

export interface AttachedThreads {
  /** Once the context is free. */
  release(): void;
}

interface Pool {
  readonly handle: Pointer;
  users: number;
}

/** Contexts with equally many threads share a pool: two pools would look for work where the other one has some. */
export class Threadpools {
  readonly #pools = new Map<number, Pool>();
  readonly #create: (threads: number) => Pointer | null;
  readonly #free: (pool: Pointer) => void;
  readonly #attach: (context: Pointer, pool: Pointer, batchPool: Pointer) => void;

  constructor(llama: LibraryHandle, ggml: LibraryHandle, base: LibraryHandle) {
    const device = ggml.func("void *ggml_backend_dev_by_type(int type)")(CPU);
    const registry = base.func("void *ggml_backend_dev_backend_reg(void *device)")(device);
    const find = base.func("void *ggml_backend_reg_get_proc_address(void *registry, const char *name)");
    const [create, free] = [find(registry, "ggml_threadpool_new"), find(registry, "ggml_threadpool_free")];
    const init = base.func("void ggml_threadpool_params_init(void *params, int threads)");
    const [acquire, release] = [koffi.proto("void *pool_new(void *params)"), koffi.proto("void pool_free(void *pool)")];
    this.#create = (threads) => {
      if (create === null || free === null) return null;
      const params = koffi.alloc("uint8_t", PARAMS_BYTES);
      init(params, threads);
      new DataView(koffi.view(params, PARAMS_BYTES)).setUint32(POLL_AT, POLL, true);
      const pool: Pointer = koffi.call(create, acquire, params);
      koffi.free(params);
      return pool;
    };
    this.#free = (pool) => koffi.call(free, release, pool);
    this.#attach = llama.func("void llama_attach_threadpool(void *context, void *pool, void *batchPool)");
  }

  /** One thread needs no pool. */
  attach(context: Pointer, threads: number): AttachedThreads {
    const pool = threads < 2 ? undefined : this.#poolOf(threads);
    if (pool === undefined) return { release: () => {} };
    pool.users++;
    this.#attach(context, pool.handle, pool.handle);
    return { release: () => this.#leave(threads, pool) };
  }

  #poolOf(threads: number): Pool | undefined {
    const present = this.#pools.get(threads);
    if (present !== undefined) return present;
    const handle = this.#create(threads);
    if (handle === null) return undefined;
    const pool = { handle, users: 0 };
    this.#pools.set(threads, pool);
    return pool;
  }

  #leave(threads: number, pool: Pool): void {
    if (--pool.users > 0) return;
    this.#pools.delete(threads);
    this.#free(pool.handle);
  }
}
