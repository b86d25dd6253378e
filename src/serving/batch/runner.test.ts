import assert from "node:assert/strict";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { silentLog } from "#base/log.ts";
import { type Batch, type BatchChange, type BatchRecords, type FileRoom, OPEN_STATUSES } from "#core/batches.ts";
import { Fault } from "#core/fault.ts";
import { memoryRecords } from "#test/fixtures/batches.ts";
import { Files } from "./files.ts";
import type { InputLine } from "./lines.ts";
import { BatchRunner, type LineCaller } from "./runner.ts";
import type { Tries } from "./turns.ts";

const WINDOW = 86_400_000;
const BATCH: Batch = {
  id: "batch_1",
  tenant: "t",
  author: { id: "k", kind: "key", role: "user", scopes: [], reach: {}, limits: {}, caps: {} },
  status: "validating",
  endpoint: "/v1/completions",
  inputFileId: "file-1",
  window: "24h",
  metadata: null,
  createdAt: 0,
  expiresAt: WINDOW,
  times: {},
  counts: { total: 0, completed: 0, failed: 0 },
};
const ROOM: FileRoom = { allBytes: 1 << 30, tenantBytes: 1 << 20, tenantFiles: 10 };

interface Rig {
  readonly folder: string;
  readonly records: BatchRecords;
  readonly files: Files;
  readonly runner: BatchRunner;
  /** Unix milliseconds. */
  clock: number;
  now(): Promise<Batch>;
  /** @param step of the clock, at each look */
  over(step?: number): Promise<Batch>;
  rows(file: string | undefined): readonly { readonly custom_id: string; readonly error: { code: string } | null }[];
}

type Run = (name: string, signal: AbortSignal, tries: Tries, batch: Batch) => Promise<void>;

interface Words {
  readonly lines: number;
  readonly room?: FileRoom;
  readonly width?: number;
  readonly answer?: string;
  readonly wrap?: (records: BatchRecords) => BatchRecords;
  /** Absent: BATCH alone. */
  readonly batches?: readonly Batch[];
}

/** Batches of lines that are named by their numbers. @param run resolves: the line is answered */
async function rig(t: TestContext, words: Words, run: Run): Promise<Rig> {
  const folder = mkdtempSync(join(tmpdir(), "castellan-runner-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const line = (_: unknown, at: number): string =>
    `{"custom_id":"${at}","method":"POST","url":"/v1/completions","body":{}}\n`;
  writeFileSync(join(folder, BATCH.inputFileId), Array.from({ length: words.lines }, line).join(""));
  const plain = memoryRecords();
  const records = words.wrap?.(plain) ?? plain;
  const files = new Files({ records, folder, room: words.room ?? ROOM, keepMs: WINDOW });
  for (const batch of words.batches ?? [BATCH]) await plain.add(batch, 100);
  const call = (batch: Batch): LineCaller => ({
    run: async ({ text }: InputLine, tries, signal) => {
      const { custom_id: name } = JSON.parse(String(text)) as { custom_id: string };
      await run(name, signal, tries, batch);
      return { customId: name, id: name, requestId: name, status: 200, answer: words.answer ?? "{}" };
    },
    close: () => {},
  });
  const made: Rig = {
    folder,
    records,
    files,
    clock: 0,
    runner: new BatchRunner({
      records,
      files,
      call,
      width: words.width ?? 4,
      mostLines: 100,
      lineBytes: 1000,
      keepMs: WINDOW,
      log: silentLog,
      now: () => made.clock,
    }),
    now: async () => (await plain.get("t", BATCH.id)) ?? BATCH,
    over: async (step = 0) => {
      for (;;) {
        const batch = await made.now();
        if (!OPEN_STATUSES.includes(batch.status)) return batch;
        made.clock += step;
        made.runner.wake();
        await new Promise(setImmediate);
      }
    },
    rows: (file) =>
      file === undefined
        ? []
        : readFileSync(join(folder, file), "utf8")
            .split("\n")
            .slice(0, -1)
            .map((row) => JSON.parse(row)),
  };
  t.after(() => made.runner.close());
  return made;
}

/** @param runner looks at what there is to do, meanwhile */
const until = async (condition: () => boolean | Promise<boolean>, runner?: BatchRunner): Promise<void> => {
  while (!(await condition())) {
    runner?.wake();
    await new Promise(setImmediate);
  }
};

/** Ends as the signal does. */
const never = (signal: AbortSignal): Promise<never> =>
  new Promise((_, reject) => {
    if (signal.aborted) reject(signal.reason);
    signal.addEventListener("abort", () => reject(signal.reason));
  });

const names = (rows: ReturnType<Rig["rows"]>): readonly string[] => rows.map(({ custom_id: name }) => name);

/** Fails as the store would, when it is told to. */
function sick(state: { away: boolean }): (records: BatchRecords) => BatchRecords {
  return (records) => ({
    ...records,
    change: async (id, from, change) => {
      if (state.away) throw new Fault("policy_unavailable", "The store is away.");
      return records.change(id, from, change);
    },
  });
}

test("a store that was away for a moment does not end a batch, nor lose what was done of it", async (t) => {
  const state = { away: false };
  let runs = 0;
  const made = await rig(t, { lines: 1, wrap: sick(state) }, async () => {
    runs++;
    state.away = true;
  });
  made.runner.start();
  await until(() => runs === 1);
  await until(() => existsSync(join(made.folder, "batch_1.rows")));
  state.away = false;
  const { status, counts } = await made.over(1000);
  assert.deepEqual([status, counts, runs], ["completed", { total: 1, completed: 1, failed: 0 }, 1]);
});

test("a batch whose end cannot be kept is tried again, later each time", async (t) => {
  let tries = 0;
  const made = await rig(
    t,
    {
      lines: 1,
      wrap: (records) => ({
        ...records,
        change: async () => {
          tries++;
          throw new Error("the disk is full");
        },
      }),
    },
    async () => assert.fail("no line is run"),
  );
  made.runner.start();
  for (const [after, expected] of [
    [0, 1],
    [999, 1],
    [1, 2],
    [1999, 2],
    [1, 3],
    [3999, 3],
    [1, 4],
  ] as const) {
    made.clock += after;
    made.runner.wake();
    // A slow disk is no early end: what has to come is waited for, what must not come has time to.
    await until(() => tries >= expected);
    for (let turn = 0; turn < 200; turn++) {
      made.runner.wake();
      await new Promise(setImmediate);
    }
    assert.equal(tries, expected, `at ${made.clock}`);
  }
  for (let turn = 0; turn < 10; turn++) {
    const before = tries;
    made.clock += 60_000;
    made.runner.wake();
    await until(() => tries === before + 1);
  }
});

test("whatever stops a batch, a line that was answered has its row, and those before it say why they have none", async (t) => {
  for (const why of ["cancelled", "expired", "failed"] as const) {
    const answered = new Set<string>();
    const gate = Promise.withResolvers<void>();
    const made = await rig(t, { lines: 50, width: 4 }, async (name, signal) => {
      if (name === "5") return never(signal);
      if (name === "9") {
        await gate.promise;
        if (why === "failed") throw new Fault("unauthenticated", "The key is gone.");
        return never(signal);
      }
      answered.add(name);
    });
    made.runner.start();
    await until(() => answered.has("20"));
    if (why === "cancelled")
      await made.records.change(BATCH.id, ["in_progress"], { status: "cancelling", times: { cancelling: 1 } });
    if (why === "expired") made.clock = WINDOW;
    gate.resolve();
    const batch = await made.over();
    assert.equal(batch.status, why);
    const good = names(made.rows(batch.outputFileId));
    const bad = made.rows(batch.errorFileId);
    assert.deepEqual([...good].sort(), [...answered].sort(), why);
    const code = { cancelled: "batch_cancelled", expired: "batch_expired", failed: "unauthenticated" }[why];
    assert.ok(bad.every(({ error }) => error?.code === code));
    assert.deepEqual(names(bad).slice(0, 2), ["5", "9"]);
    assert.equal(new Set([...good, ...names(bad)]).size, good.length + bad.length, "none twice");
    if (why === "expired") assert.equal(good.length + bad.length, 50);
    assert.equal(batch.problem?.code, why === "failed" ? "unauthenticated" : undefined);
    await until(() => readdirSync(made.folder).every((name) => !name.startsWith("batch_")));
  }
});

test("a window that was over before a line ran ends the batch with a row for each line", async (t) => {
  const made = await rig(t, { lines: 3 }, async () => assert.fail("no line is run"));
  made.clock = WINDOW;
  made.runner.start();
  const batch = await made.over();
  assert.equal(batch.status, "expired");
  assert.deepEqual(names(made.rows(batch.errorFileId)), ["0", "1", "2"]);
  assert.deepEqual([batch.outputFileId, batch.times.expired], [undefined, WINDOW]);
});

test("answers are kept when the tenant's room has been used up in the meantime; no further line is begun", async (t) => {
  const room = { allBytes: 1 << 30, tenantBytes: 1000, tenantFiles: 1 };
  const begun: string[] = [];
  const made = await rig(t, { lines: 50, width: 1, room, answer: `"${"x".repeat(300)}"` }, async (name) => {
    begun.push(name);
  });
  await made.records.addFile({
    ...{ id: "file-1", tenant: "t", createdBy: "k", purpose: "batch", name: "in" },
    ...{ bytes: 100, createdAt: 0, expiresAt: 1 },
  });
  made.runner.start();
  const batch = await made.over();
  assert.deepEqual([batch.status, batch.problem?.code], ["failed", "payload_too_large"]);
  assert.ok(begun.length > 0 && begun.length < 20, `${begun.length} lines`);
  assert.deepEqual(names(made.rows(batch.outputFileId)), begun);
});

test("a batch without any room runs no line", async (t) => {
  const room = { allBytes: 100, tenantBytes: 1000, tenantFiles: 1 };
  const made = await rig(t, { lines: 2, room }, async () => assert.fail("no line is run"));
  await made.records.addFile({
    ...{ id: "file-9", tenant: "other", createdBy: "k", purpose: "batch", name: "in" },
    ...{ bytes: 100, createdAt: 0, expiresAt: 1 },
  });
  made.runner.start();
  assert.deepEqual((await made.over()).problem?.code, "payload_too_large");
});

test("a disk that fails while results are written keeps the rows, and they are written later", async (t) => {
  let runs = 0;
  const made = await rig(t, { lines: 5 }, async () => {
    runs++;
  });
  const inTheWay = join(made.folder, "batch_1.rows.output");
  mkdirSync(inTheWay);
  made.runner.start();
  await until(async () => (await made.now()).status === "finalizing");
  for (let turn = 0; turn < 50; turn++) await new Promise(setImmediate);
  assert.equal((await made.now()).status, "finalizing");
  rmdirSync(inTheWay);
  const batch = await made.over(1000);
  assert.deepEqual([batch.status, runs], ["completed", 5]);
  assert.deepEqual(names(made.rows(batch.outputFileId)), ["0", "1", "2", "3", "4"]);
});

test("why a batch failed is known after a crash between its last line and its end", async (t) => {
  const made = await rig(t, { lines: 5 }, async () => assert.fail("no line is run"));
  const change: BatchChange = {
    status: "finalizing",
    problem: { code: "unauthenticated", message: "m" },
    counts: { total: 5, completed: 0, failed: 0 },
  };
  await made.records.change(BATCH.id, ["validating"], change);
  made.runner.start();
  const batch = await made.over();
  assert.deepEqual([batch.status, batch.problem?.code], ["failed", "unauthenticated"]);
});

test("a server that is ending ends no batch: what it could not answer any more is done another time", async (t) => {
  let draining = true;
  const done: string[] = [];
  const made = await rig(t, { lines: 8, width: 2 }, async (name) => {
    if (draining && Number(name) > 2) throw new Fault("draining", "The server is shutting down.");
    done.push(name);
  });
  made.runner.start();
  await until(() => done.includes("2"));
  for (let turn = 0; turn < 50; turn++) await new Promise(setImmediate);
  assert.equal((await made.now()).status, "in_progress");
  draining = false;
  const batch = await made.over(1000);
  assert.deepEqual([batch.status, batch.counts], ["completed", { total: 8, completed: 8, failed: 0 }]);
  assert.deepEqual(
    done.toSorted((a, b) => Number(a) - Number(b)),
    ["0", "1", "2", "3", "4", "5", "6", "7"],
  );
});

test("what closes in the middle leaves rows of a beginning, and another goes on there", async (t) => {
  const first = await rig(t, { lines: 10, width: 2 }, (name, signal) =>
    Number(name) < 4 ? Promise.resolve() : never(signal),
  );
  first.runner.start();
  await until(async () => {
    const rows = join(first.folder, "batch_1.rows");
    return existsSync(rows) && readFileSync(rows, "utf8").split("\n").length === 5;
  });
  await first.runner.close();
  assert.equal((await first.now()).status, "in_progress");
  const later: string[] = [];
  const second = new BatchRunner({
    ...{ records: first.records, files: first.files, width: 2, mostLines: 100, lineBytes: 1000, keepMs: WINDOW },
    call: () => ({
      run: async ({ text }) => {
        const { custom_id: name } = JSON.parse(String(text)) as { custom_id: string };
        later.push(name);
        return { customId: name, id: name, requestId: name, status: 200, answer: "{}" };
      },
      close: () => {},
    }),
    log: silentLog,
    now: () => 0,
  });
  t.after(() => second.close());
  second.start();
  const batch = await first.over();
  assert.deepEqual(later, ["4", "5", "6", "7", "8", "9"]);
  assert.deepEqual(names(first.rows(batch.outputFileId)), ["0", "1", "2", "3", ...later]);
});

test("an input that is gone fails the batch; what was answered before is kept", async (t) => {
  const made = await rig(t, { lines: 3 }, async () => {});
  rmSync(join(made.folder, BATCH.inputFileId));
  made.runner.start();
  const batch = await made.over();
  assert.deepEqual([batch.status, batch.problem?.message], ["failed", "Its file is gone."]);
});

/** Of a tenant, oldest first. */
const several = (tenant: string, count: number): readonly Batch[] =>
  Array.from({ length: count }, (_, at) => ({ ...BATCH, id: `batch_${tenant}${at}`, tenant, createdAt: at }));

/** Some turns of the loop, each with a look at what there is to do. */
async function looks(made: Rig): Promise<void> {
  for (let turn = 0; turn < 100; turn++) {
    made.runner.wake();
    await new Promise(setImmediate);
  }
}

async function isOver(made: Rig, { tenant, id }: Batch): Promise<Batch> {
  let batch: Batch | undefined;
  await until(async () => {
    batch = await made.records.get(tenant, id);
    return batch !== undefined && !OPEN_STATUSES.includes(batch.status);
  }, made.runner);
  return batch as Batch;
}

test("lines that wait for a limit take no turn from another tenant's, and what is answered of theirs is told", async (t) => {
  const [patient, other] = [several("t", 1), several("other", 1)];
  let waiting = 0;
  const made = await rig(t, { lines: 12, width: 2, batches: patient }, async (name, _, tries, { tenant }) => {
    await tries.once(async () => {});
    if (tenant === "other" || Number(name) < 8) return;
    waiting++;
    await tries.wait(WINDOW / 2);
    await tries.once(async () => assert.fail("the limit begins anew"));
  });
  made.runner.start();
  await until(() => waiting === 2);
  for (const batch of other) await made.records.add(batch, 100);
  const batch = await isOver(made, other[0] as Batch);
  assert.deepEqual([batch.status, batch.counts.completed], ["completed", 12]);
  const counts = async () => (await made.records.get("t", "batch_t0"))?.counts;
  await until(async () => (await counts())?.completed === 8);
  assert.deepEqual(await counts(), { total: 12, completed: 8, failed: 0 });
  assert.equal((await made.records.get("t", "batch_t0"))?.status, "in_progress");
});

test("batches that only wait for a limit leave their places to another's, keep what they have, and go on behind it", async (t) => {
  let used = true;
  const asked: string[] = [];
  const patient = several("t", 8);
  const made = await rig(t, { lines: 6, width: 2, batches: patient }, async (name, _, tries, { id, tenant }) => {
    asked.push(`${id}:${name}`);
    // The third is small enough for what is left of the limit.
    if (tenant === "t" && used && !["0", "2"].includes(name)) await tries.wait(60_000);
  });
  const asks = (id: string): readonly string[] =>
    asked.filter((one) => one.startsWith(`${id}:`)).map((one) => one.slice(id.length + 1));
  made.runner.start();
  for (const { id } of patient.slice(0, 4)) await until(() => asks(id).length === 4);
  await looks(made);
  assert.equal(asks("batch_t4").length, 0, "four are at work");
  made.clock = 10_000;
  await until(() => asks("batch_t7").length === 4, made.runner);
  const [other] = several("other", 1) as [Batch];
  await made.records.add(other, 100);
  assert.deepEqual((await isOver(made, other)).counts, { total: 6, completed: 6, failed: 0 });
  for (const { id } of patient) assert.deepEqual(asks(id), ["0", "1", "2", "3"], "no limit has begun anew");
  used = false;
  made.clock = 60_000;
  const rested = await isOver(made, patient[0] as Batch);
  assert.deepEqual([rested.status, rested.counts], ["completed", { total: 6, completed: 6, failed: 0 }]);
  assert.deepEqual(names(made.rows(rested.outputFileId)), ["0", "1", "2", "3", "4", "5"]);
  assert.deepEqual(asks("batch_t0").slice(4), ["1", "2", "3", "4", "5"]);
});

test("a batch that rests is cancelled, and expires, at once", async (t) => {
  for (const why of ["cancelled", "expired"] as const) {
    const patient = several("t", 8);
    let waiting = 0;
    const made = await rig(t, { lines: 3, width: 2, batches: patient }, async (name, _, tries, { tenant }) => {
      if (tenant === "other" || name === "0") return;
      waiting++;
      await tries.wait(WINDOW * 2);
    });
    made.runner.start();
    await until(() => waiting === 8);
    made.clock = 10_000;
    await until(() => waiting === 16, made.runner);
    const [other] = several("other", 1) as [Batch];
    await made.records.add(other, 100);
    await isOver(made, other);
    if (why === "expired") made.clock = WINDOW;
    else await made.records.change("batch_t0", ["in_progress"], { status: "cancelling" });
    const batch = await isOver(made, patient[0] as Batch);
    assert.equal(batch.status, why);
    assert.deepEqual(names(made.rows(batch.outputFileId)), ["0"]);
  }
});

test("a tenant with many long batches lets another's in, after what is on its way, and asks nothing twice", async (t) => {
  const asked: string[] = [];
  const gate = Promise.withResolvers<void>();
  const youngest = Promise.withResolvers<void>();
  const long = several("t", 4);
  const made = await rig(t, { lines: 5, width: 2, batches: long }, async (name, signal, _, { id }) => {
    asked.push(`${id}:${name}`);
    await Promise.race([id === "batch_t3" ? youngest.promise : gate.promise, never(signal)]);
  });
  const begun = (id: string): number => asked.filter((one) => one.startsWith(`${id}:`)).length;
  made.runner.start();
  for (const { id } of long) await until(() => begun(id) === 2);
  const others = several("other", 2);
  for (const batch of others) await made.records.add(batch, 100);
  for (const { id } of others) await until(() => begun(id) === 2, made.runner);
  youngest.resolve();
  await until(async () => (await made.records.get("t", "batch_t3"))?.counts.completed === 2);
  await looks(made);
  assert.equal(begun("batch_t3"), 2, "no further line is begun");
  gate.resolve();
  for (const batch of [...long, ...others]) {
    const { status, outputFileId } = await isOver(made, batch);
    assert.deepEqual([status, names(made.rows(outputFileId))], ["completed", ["0", "1", "2", "3", "4"]], batch.id);
  }
  assert.equal(new Set(asked).size, asked.length, "none is asked twice");
});
