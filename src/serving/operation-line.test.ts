import assert from "node:assert/strict";
import { test } from "node:test";
import { Fault, type FaultKind } from "#core/fault.ts";
import { OperationLine, type Work } from "./operation-line.ts";

interface Job {
  readonly result: Promise<unknown>;
  readonly begun: () => boolean;
  end(error?: Error): void;
}

function job(line: OperationLine, work: Work, workMs?: number): Job {
  const over = Promise.withResolvers<void>();
  let begun = false;
  const what = (): Promise<void> => {
    begun = true;
    return over.promise;
  };
  const result = line.run(work, `${work} goes on`, what, workMs).catch((error: unknown) => error);
  return {
    result,
    begun: () => begun,
    end: (error) => (error === undefined ? over.resolve() : over.reject(error)),
  };
}

/** What can begin has begun. */
const turns = (): Promise<void> => new Promise((done) => setImmediate(done));
const kindOf = async ({ result }: Job): Promise<FaultKind | undefined> => {
  const error = await result;
  return error instanceof Fault ? error.kind : undefined;
};

test("one after another in the order of asking, also after a failure", async () => {
  const line = new OperationLine();
  const jobs = (["scale", "sleep", "weights"] as const).map((work) => job(line, work));
  const [first, second, third] = jobs as [Job, Job, Job];
  await turns();
  assert.deepEqual(
    jobs.map(({ begun }) => begun()),
    [true, false, false],
  );
  assert.deepEqual([line.doing("scale"), line.doing("sleep")], [true, false]);
  first.end(new Error("it failed"));
  assert.match(String(await first.result), /it failed/);
  await turns();
  assert.deepEqual([second.begun(), third.begun(), line.doing("scale")], [true, false, false]);
  second.end();
  third.end();
  assert.deepEqual(await Promise.all([second.result, third.result]), [undefined, undefined]);
});

test("what calls a pause or a sleep off does not wait for it; nothing overtakes other weights", async () => {
  const line = new OperationLine();
  const sleep = job(line, "sleep");
  const [resume, wake, pause] = [job(line, "resume"), job(line, "wake"), job(line, "pause")];
  await turns();
  assert.deepEqual([resume.begun(), wake.begun(), pause.begun()], [true, false, false], "wake waits for the resume");
  resume.end();
  await turns();
  assert.deepEqual([wake.begun(), pause.begun()], [true, false]);
  for (const one of [wake, sleep, pause]) one.end();
  await Promise.all([wake.result, sleep.result, pause.result]);

  const weights = job(line, "weights");
  const others = (["pause", "resume", "sleep", "wake", "scale", "reset"] as const).map((work) => job(line, work));
  await turns();
  assert.ok(others.every(({ begun }) => !begun()));
  for (const one of [weights, ...others]) one.end();
  await Promise.all(others.map(({ result }) => result));
  const scale = job(line, "scale");
  const emergency = job(line, "pause");
  await turns();
  assert.ok(emergency.begun(), "a pause need not wait until engines have drained");
  for (const one of [scale, emergency]) one.end();
});

test("whose turn does not come is told so; what takes too long keeps its place until it is over", async () => {
  const line = new OperationLine({ turnMs: 5 });
  const slow = job(line, "scale", 1);
  assert.equal(await kindOf(slow), "request_timeout");
  assert.match(String(await slow.result), /scale goes on/);
  const next = job(line, "sleep");
  assert.equal(await kindOf(next), "overloaded");
  assert.match(String(await next.result), /scale is under way/);
  assert.equal(next.begun(), false);
  slow.end();
  await turns();
  const later = job(line, "sleep");
  later.end();
  assert.equal(await later.result, undefined);
});

test("the line has an end", async () => {
  const line = new OperationLine();
  const jobs = Array.from({ length: 17 }, () => job(line, "scale"));
  const last = jobs.at(-1) as Job;
  assert.equal(await kindOf(last), "overloaded");
  for (const one of jobs) one.end();
  assert.deepEqual(await Promise.all(jobs.slice(0, 16).map(({ result }) => result)), Array(16).fill(undefined));
});
