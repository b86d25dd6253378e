import assert from "node:assert/strict";
import { test } from "node:test";
import type { Usage } from "#core/calls.ts";
import { Fault } from "#core/fault.ts";
import type { RelaySource, RelayTarget } from "#core/relay.ts";
import { SettledSource, type UsageReader } from "./settled-source.ts";

const USED: Usage = { promptTokens: 3, completionTokens: 2, cachedTokens: 0, reasoningTokens: 0 };
const bytes = (text: string): Uint8Array => Buffer.from(text);

/** The answer is complete with a chunk that says END. */
class Reader implements UsageReader {
  complete = false;
  broken = false;
  chunks = 0;
  take(chunk: Uint8Array): readonly Uint8Array[] {
    this.chunks++;
    this.complete ||= Buffer.from(chunk).includes("END");
    return [chunk];
  }
  end(): readonly Uint8Array[] {
    return [];
  }
  used(): Usage {
    return this.complete ? USED : { ...USED, completionTokens: this.chunks };
  }
}

interface Setting {
  readonly takes?: boolean;
  readonly broken?: boolean;
  readonly keep?: () => Promise<void>;
}

function fixture({ takes = true, broken = false, keep }: Setting = {}) {
  const log: string[] = [];
  let inner: RelayTarget | undefined;
  const source: RelaySource = {
    pipe: (target) => {
      inner = target;
    },
    resume: () => log.push("resume"),
    cancel: () => log.push("cancel"),
  };
  const books = Promise.withResolvers<void>();
  const settled: [Usage, boolean][] = [];
  const announced: number[] = [];
  const target: RelayTarget = {
    soon: () => announced.push(settled.length),
    write: (chunk) => {
      log.push(`write ${Buffer.from(chunk).toString()}`);
      return takes;
    },
    end: () => log.push("end"),
    fail: (fault) => log.push(`fail ${fault.kind}`),
  };
  const reader = new Reader();
  reader.broken = broken;
  const book = (used: Usage, lost: boolean): Promise<void> => {
    settled.push([used, lost]);
    return books.promise;
  };
  const one = new SettledSource(source, reader, book, keep);
  one.pipe(target);
  assert.ok(inner !== undefined);
  return { one, inner, log, settled, books, announced };
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test("the chunk that ends the answer waits for the books, those before it do not", async () => {
  const { inner, log, settled, books } = fixture();
  assert.equal(inner.write(bytes("a")), true);
  const last = bytes("END");
  assert.equal(inner.write(last), false);
  // The memory is the upstream's: it is used again.
  last.fill(0);
  inner.end();
  await turn();
  assert.deepEqual(log, ["write a"]);
  assert.deepEqual(settled, [[USED, false]]);
  books.resolve();
  await turn();
  assert.deepEqual(
    log.filter((line) => line !== "resume"),
    ["write a", "write END", "end"],
  );
});

test("a chunk that is given away is passed on as it is, and another's copy when the books are safe", async () => {
  for (const given of [true, false]) {
    const passed: Uint8Array[] = [];
    const { one, inner, books } = fixture();
    one.pipe({ write: (chunk) => passed.push(chunk) > 0, end: () => {}, fail: () => {} });
    const last = bytes("END");
    inner.write(last, given);
    books.resolve();
    await turn();
    assert.deepEqual([passed.length, passed[0]?.buffer === last.buffer && passed[0] === last], [1, given]);
    assert.equal(Buffer.from(passed[0] ?? []).toString(), "END");
  }
});

test("books that cannot be made keep nobody waiting", async () => {
  const { inner, log, books } = fixture();
  inner.write(bytes("END"));
  inner.end();
  books.reject(new Error("the disk is full"));
  await turn();
  assert.deepEqual(log, ["write END", "end"]);
});

test("the target hears that the end is there while the books are made, unless it may yet be another answer", async () => {
  const first = fixture();
  first.inner.write(bytes("END"));
  assert.deepEqual(first.announced, [1], "behind what is known of its usage");
  const second = fixture();
  second.inner.write(bytes("a"));
  assert.deepEqual(second.announced, []);
  second.inner.end();
  assert.deepEqual(second.announced, [1]);
  const kept = fixture({ keep: async () => {} });
  kept.inner.write(bytes("END"));
  assert.deepEqual(kept.announced, []);
  for (const { books } of [first, second, kept]) books.resolve();
  await turn();
});

test("what follows the final chunk goes on when the books are safe, in order", async () => {
  const { inner, log, books } = fixture();
  inner.write(bytes("END"));
  inner.write(bytes("b"));
  books.resolve();
  await turn();
  inner.write(bytes("c"));
  inner.end();
  await turn();
  assert.deepEqual(
    log.filter((line) => line !== "resume"),
    ["write ENDb", "write c", "end"],
  );
});

test("an answer without a final chunk is settled at its end, before the client sees that", async () => {
  const { inner, log, settled, books } = fixture();
  inner.write(bytes("a"));
  inner.end();
  await turn();
  assert.deepEqual(log, ["write a"]);
  assert.equal(settled[0]?.[0].completionTokens, 1);
  books.resolve();
  await turn();
  assert.deepEqual(log, ["write a", "end"]);
});

test("a stream that only stops has failed: it costs nothing, and its client hears of it", async () => {
  const { inner, log, settled, books } = fixture({ broken: true });
  inner.write(bytes("a"));
  inner.end();
  books.resolve();
  await turn();
  assert.equal(settled[0]?.[1], true);
  assert.deepEqual(log, ["write a", "fail upstream_failed"]);
});

test("a client that leaves pays for what passed, once, and hears nothing more", async () => {
  const { one, inner, log, settled, books } = fixture();
  inner.write(bytes("a"));
  one.cancel();
  one.cancel();
  inner.end();
  books.resolve();
  await turn();
  assert.deepEqual(log, ["write a", "cancel"]);
  assert.deepEqual(settled, [[{ ...USED, completionTokens: 1 }, false]]);
});

test("a call that is given up costs what passed, whoever hears of it first", async () => {
  const { inner, settled, books } = fixture();
  inner.write(bytes("a"));
  inner.fail(new Fault("cancelled", "The client left."));
  books.resolve();
  await turn();
  assert.deepEqual(settled, [[{ ...USED, completionTokens: 1 }, false]]);
});

test("what the upstream broke costs nothing, unless the answer was whole", async () => {
  const broken = fixture();
  broken.inner.write(bytes("a"));
  broken.inner.fail(new Fault("upstream_failed", "It broke."));
  broken.books.resolve();
  await turn();
  assert.equal(broken.settled[0]?.[1], true);
  assert.deepEqual(broken.log, ["write a", "fail upstream_failed"]);
  const whole = fixture();
  whole.inner.write(bytes("END"));
  whole.inner.fail(new Fault("upstream_failed", "It broke."));
  whole.books.resolve();
  await turn();
  assert.equal(whole.settled[0]?.[1], false);
  // It has all of its answer: another end behind that would be a second one.
  assert.deepEqual(
    whole.log.filter((line) => line !== "resume"),
    ["write END", "end"],
  );
});

test("an answer that is complete and none costs nothing, and is a failure", async () => {
  const { inner, log, settled, books } = fixture({ broken: true });
  assert.equal(inner.write(bytes("END")), false);
  inner.end();
  books.resolve();
  await turn();
  assert.equal(settled[0]?.[1], true);
  assert.deepEqual(log, ["fail upstream_failed"]);
});

test("a client that is behind is not sent more by the release of the last chunk", async () => {
  const { one, inner, log, books } = fixture({ takes: false });
  inner.write(bytes("END"));
  one.resume();
  assert.deepEqual(log, []);
  books.resolve();
  await turn();
  assert.deepEqual(log, ["write END"]);
  one.resume();
  assert.deepEqual(log, ["write END", "resume"]);
});

test("what is kept is kept before its end is seen, behind the books; what ended otherwise is not", async () => {
  const kept = Promise.withResolvers<void>();
  let asked = 0;
  const keep = () => {
    asked++;
    return kept.promise;
  };
  const { inner, log, books } = fixture({ keep });
  inner.write(bytes("a"));
  inner.write(bytes("END"));
  inner.end();
  await turn();
  assert.equal(asked, 0);
  books.resolve();
  await turn();
  assert.deepEqual([asked, log], [1, ["write a"]]);
  kept.resolve();
  await turn();
  assert.deepEqual(
    log.filter((line) => line !== "resume"),
    ["write a", "write END", "end"],
  );
  for (const end of ["fail", "cancel", "stop"] as const) {
    const other = fixture({ keep, broken: end === "stop" });
    other.inner.write(bytes("a"));
    if (end === "fail") other.inner.fail(new Fault("upstream_failed", "x"));
    else if (end === "cancel") other.one.cancel();
    else other.inner.end();
    other.books.resolve();
    await turn();
  }
  assert.equal(asked, 1);
});

test("what cannot be kept is a failure in place of the end, and the upstream is left", async () => {
  const { inner, log, books } = fixture({
    keep: () => Promise.reject(new Fault("policy_unavailable", "The database is away.")),
  });
  inner.write(bytes("a"));
  inner.write(bytes("END"));
  inner.end();
  books.resolve();
  await turn();
  assert.deepEqual(
    log.filter((line) => line !== "resume"),
    ["write a", "cancel", "fail policy_unavailable"],
  );
});
