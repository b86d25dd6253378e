import assert from "node:assert/strict";
import { test } from "node:test";
import { Fault } from "#core/fault.ts";
import { joinAnswers, type OperatedAnswer } from "./operate.ts";

const said = (body: OperatedAnswer["body"], status = 200): OperatedAnswer => ({ status, body });
const lost = new Fault("upstream_unavailable", "It is away.");

test("results of all servers are one list; what is none adds nothing", () => {
  const answers = [
    said({ results: [1, [2]] }),
    said(undefined),
    said({ results: "x" }),
    said([3]),
    said({ results: [4] }),
  ];
  assert.deepEqual(joinAnswers(answers, "results"), said({ results: [1, [2], 4] }));
  assert.throws(() => joinAnswers([said({ results: [] }), lost], "results"), /1 of 2 servers did not do it/);
});

test("engines are numbered through, in either form; who does not answer stands among them", () => {
  const own = said({ "0": { status: "ready", restarts: 2 }, "1": { status: "starting", restarts: 0 } });
  const vllm = said({
    total_engines: 2,
    engines: [
      { id: 0, status: "healthy" },
      { id: 1, status: "<b>", restarts: 1.5 },
    ],
  });
  assert.deepEqual(joinAnswers([own, lost, vllm, said("x")], "engines").body, {
    "0": { status: "ready", restarts: 2 },
    "1": { status: "starting", restarts: 0 },
    "2": { status: "unreachable", restarts: 0 },
    "3": { status: "healthy", restarts: 0 },
    "4": { status: "unknown", restarts: 0 },
  });
  assert.throws(() => joinAnswers([lost, lost], "engines"), /2 of 2/, "nobody is there");
  assert.throws(() => joinAnswers([own, said({}, 404)], "engines"), /1 of 2/, "it answers, and does not do it");
  assert.equal(joinAnswers([said({}, 404), said({}, 404)], "engines").status, 404);
});
