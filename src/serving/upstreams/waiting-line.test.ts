import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import fc from "fast-check";
import { Fault } from "#core/fault.ts";
import type { Ticket, Wish } from "./balancer.ts";
import { WaitingLine } from "./waiting-line.ts";

const MINUTES = 600_000;
const wishOf = (more: Partial<Wish> = {}): Wish => ({ tokens: 10, blocks: [], excluded: new Set(), ...more });
const share = (key: string, weight = 1) => ({ key, weight });
const turn = (): Promise<void> => new Promise((done) => setImmediate(done));

/** Upstreams with so many places free: `any`, and those of an adapter. */
function scene(t: TestContext | undefined, most: number, mostMs = MINUTES) {
  const free: Record<string, number> = { any: 0 };
  const done: string[] = [];
  let tickets = 0;
  const take = ({ adapter = "any" }: Wish): Ticket | "full" | "none" => {
    if (free[adapter] === undefined) return "none";
    if (free[adapter] === 0) return "full";
    free[adapter]--;
    return { id: tickets++, tokens: 0, returned: false };
  };
  const line = new WaitingLine(most, mostMs, take, () => new Fault("upstream_unavailable", "Nobody."));
  t?.after(() => line.close());
  const wait = (name: string, key: string, more: Partial<Wish> = {}, signal?: AbortSignal): void => {
    const refused = (fault: unknown): void => void done.push(`${name} ${fault instanceof Fault ? fault.kind : fault}`);
    try {
      line.wait(wishOf(more), share(key), signal).then(() => void done.push(name), refused);
    } catch (error) {
      refused(error);
    }
  };
  const open = async (places: number, of = "any"): Promise<readonly string[]> => {
    free[of] = (free[of] ?? 0) + places;
    line.look();
    await turn();
    return done.splice(0);
  };
  return { line, free, wait, open, done };
}

test("one tenant floods: another's is next but one", async (t) => {
  const { wait, open } = scene(t, 1000);
  for (let at = 0; at < 500; at++) wait(`a${at}`, "a");
  wait("b0", "b");
  assert.deepEqual(await open(2), ["a0", "b0"]);
  wait("b1", "b");
  wait("c0", "c");
  assert.deepEqual(await open(4), ["c0", "a1", "b1", "a2"]);
});

test("who leaves by a listener is told why, and nothing is taken for it", async (t) => {
  const { line, wait, open, free } = scene(t, 10);
  const told: string[] = [];
  let leave: ((reason: Fault) => void) | undefined;
  const gone = (fault: unknown): void => void told.push(fault instanceof Fault ? fault.kind : String(fault));
  line.wait(wishOf(), share("a"), undefined, (run) => (leave = run)).then(() => told.push("a ticket"), gone);
  wait("next", "a");
  leave?.(new Fault("request_timeout", "late"));
  leave?.(new Fault("cancelled", "again"));
  assert.deepEqual(await open(1), ["next"]);
  const over = new Fault("cancelled", "It is over.");
  line.wait(wishOf(), share("a"), undefined, (run) => run(over)).then(() => told.push("a ticket"), gone);
  assert.deepEqual(await open(1), []);
  assert.deepEqual([told, line.length, free["any"]], [["request_timeout", "cancelled"], 0, 1]);
});

test("one that waits for what others do not is not in their way", async (t) => {
  const { wait, open, free } = scene(t, 10);
  free["sql"] = 0;
  wait("sql", "a", { adapter: "sql" });
  wait("any", "a");
  assert.deepEqual(await open(1), ["any"]);
  assert.deepEqual(await open(1, "sql"), ["sql"]);
  free["sql"] = 0;
  wait("sql", "a", { adapter: "sql" });
  delete free["sql"];
  assert.deepEqual(await open(0), ["sql upstream_unavailable"], "they are gone");
});

test("a full line makes room for who has fewer there, and for nobody else", async (t) => {
  const { line, wait, open, done } = scene(t, 4);
  for (let at = 0; at < 5; at++) wait(`a${at}`, "a");
  await turn();
  assert.deepEqual(done.splice(0), ["a4 overloaded"]);
  for (const name of ["b0", "b1", "b2"]) wait(name, "b");
  await turn();
  // With a third there would be more of it than of the other.
  assert.deepEqual(done.splice(0).sort(), ["a2 overloaded", "a3 overloaded", "b2 overloaded"]);
  assert.equal(line.length, 4);
  assert.deepEqual(await open(4), ["a0", "b0", "a1", "b1"]);
});

test("who leaves, or has waited long enough, gets that and no ticket", async (t) => {
  const { line, wait, open, done } = scene(t, 10);
  const stop = new AbortController();
  wait("leaves", "a", {}, stop.signal);
  wait("stays", "a");
  stop.abort(new Fault("cancelled", "It left."));
  await turn();
  assert.deepEqual(done.splice(0), ["leaves cancelled"]);
  assert.deepEqual(await open(2), ["stays"]);
  line.close();
  wait("late", "a");
  await turn();
  assert.deepEqual(done, ["late draining"]);
  const short = scene(t, 10, 1);
  short.wait("waits", "a");
  while (short.done.length === 0) await new Promise((over) => setTimeout(over, 5));
  assert.deepEqual(short.done, ["waits overloaded"]);
  assert.equal(short.line.length, 0);
});

const STEP = fc.oneof(
  fc.record({
    kind: fc.constant("wait" as const),
    key: fc.constantFrom("a", "a", "a", "b", "c"),
    adapter: fc.constantFrom(undefined, undefined, "sql"),
  }),
  fc.record({ kind: fc.constant("open" as const), of: fc.constantFrom("any", "sql"), places: fc.nat(3) }),
  fc.record({ kind: fc.constant("leave" as const), at: fc.nat() }),
);

test("whatever happens, each gets one outcome, as many wait as are bounded, and no place is lost", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(STEP, { maxLength: 60 }), fc.integer({ min: 0, max: 8 }), async (steps, most) => {
      const { line, free, wait, done } = scene(undefined, most);
      free["sql"] = 0;
      const stops: AbortController[] = [];
      let opened = 0;
      for (const step of steps) {
        if (step.kind === "wait") {
          const stop = new AbortController();
          const more = step.adapter === undefined ? {} : { adapter: step.adapter };
          wait(String(stops.length), step.key, more, stop.signal);
          stops.push(stop);
        } else if (step.kind === "open") {
          free[step.of] = (free[step.of] ?? 0) + step.places;
          opened += step.places;
          line.look();
        } else stops[step.at % Math.max(1, stops.length)]?.abort(new Fault("cancelled", "It left."));
        assert.ok(line.length <= most);
      }
      line.close();
      await turn();
      assert.equal(line.length, 0);
      assert.deepEqual(
        done.map((name) => Number.parseInt(name, 10)).sort((a, b) => a - b),
        [...stops.keys()],
      );
      const served = done.filter((name) => !name.includes(" ")).length;
      assert.equal(served + (free["any"] ?? 0) + (free["sql"] ?? 0), opened);
    }),
  );
});
