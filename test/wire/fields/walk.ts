/**
 * The real routes over scripted models, and what of a call can be seen: its answer, and the work that it made. What
 * is random or a time of the day is left out, so that two calls of the same body look the same.
 */
import type { BatchRecords } from "#core/batches.ts";
import { createHttp, type Http } from "#http/server.ts";
import { principalOf } from "#policy/roles.ts";
import { modelTemplate } from "#prompt/template.ts";
import { routes } from "#routes/index.ts";
import { FakeOperations, fakeServerOperations } from "#serving/_fake-operations.ts";
import { type Fixture, fixture, IM_END } from "#serving/_fixture.ts";
import { poolFixture } from "#serving/_fixture-pooling.ts";
import type { Script } from "#serving/_scripted-backend.ts";
import { Models } from "#serving/models.ts";
import { memoryRecords, scratchBatches } from "#test/fixtures/batches.ts";
import { gateOf, servicesOf } from "#test/fixtures/services.ts";
import { openai } from "#wire/openai/dialect.ts";
import type { Body, Surface } from "./field.ts";
import { CALL } from "./generation.ts";

/** Prints all that a request can tell a template. */
const TEMPLATE =
  "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n" +
  "{{ m.name }}{{ m.reasoning }}{{ m.reasoning_content }}{{ m.tool_call_id }}{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% endif %}" +
  "{% endfor %}{% if tools %}{{ tools | tojson }}{% endif %}{% if documents %}{{ documents | tojson }}{% endif %}" +
  "{{ tone }}{{ reasoning_effort }}{{ enable_thinking }}" +
  "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/** The windows of the models that pool are small. */
const SHORT = "{% for m in messages %}{{ m.content }};{% endfor %}{{ tone }}{% if add_generation_prompt %}>{% endif %}";

const ADMIN = principalOf({ id: "k", tenant: "default", role: "admin" });

const CLASSIFIER = { tasks: ["classify", "score"], classes: 3, labels: ["a", "b", "c"] } as const;

const CONTROL = 257;
const THOUGHT = [...Buffer.from("<think>hm</think>ye"), CONTROL, ...Buffer.from("s"), IM_END];
const ONE = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>';
const TWO = [...Buffer.from(`${ONE}\n${ONE}`), IM_END];

const script: Script = {
  batch: 1,
  reply: ({ prompt }) => {
    const text = Buffer.from([...prompt].filter((id) => id < 256)).toString();
    return text.includes(CALL) && text.includes('"function"') ? TWO : THOUGHT;
  },
};

export interface Seen {
  readonly status: number;
  /** As it came. */
  readonly text: string;
  /** The answer and the work, to be compared. */
  readonly trace: string;
}

export interface Walker {
  send(surface: Surface, body: Body): Promise<Seen>;
  close(): Promise<void>;
}

export async function walker(model: Surface["model"]): Promise<Walker> {
  const pool = model === "text" ? undefined : poolFixture(model === "classes" ? { info: CLASSIFIER } : {});
  const setting = pool ?? fixture(script);
  const models = new Models([{ ...setting.model, template: modelTemplate(model === "text" ? TEMPLATE : SHORT) }]);
  const operations = new FakeOperations();
  const { priorities: _, ...serving } = setting.serving;
  const changed: Fixture = { ...setting, serving: { ...serving, models, priorities: true } };
  const http = await createHttp({
    routes,
    services: {
      ...servicesOf(changed),
      ...scratchBatches(await keptRecords()),
      operations: fakeServerOperations({ operations }),
    },
    gate: gateOf({ key: ADMIN }),
    dialect: openai,
  });
  await setting.adapters.preload("held", "/held");
  const work = (): unknown[] => [
    setting.backend.requests.splice(0),
    pool?.pooling.pools.splice(0),
    operations.asked.splice(0),
    setting.loaded.size,
  ];
  return {
    send: async (surface, body) => {
      work();
      const { status, type, text } = await post(http, surface, body);
      return { status, text, trace: traceOf([status, type, text, work()]) };
    },
    close: async () => void (await http.close(0)),
  };
}

const DAY = 86_400_000;

/** Files 1 to 3, the second a batch's, and two batches. */
async function keptRecords(): Promise<BatchRecords> {
  const records = memoryRecords();
  const own = { tenant: "default", createdAt: Date.now(), expiresAt: Date.now() + DAY };
  for (const [number, purpose] of [
    [1, "batch"],
    [2, "batch_output"],
    [3, "batch"],
  ] as const)
    await records.addFile({ ...own, id: `file-${number}`, createdBy: "k", purpose, name: "in", bytes: 1 });
  const { id, kind, role, scopes, reach, limits, caps } = ADMIN;
  for (const number of [1, 2]) {
    const words = { inputFileId: "file-1", endpoint: "/v1/completions", window: "24h", metadata: null } as const;
    const author = { id, kind, role, scopes: [...scopes], reach, limits, caps };
    const counts = { total: 0, completed: 0, failed: 0 };
    await records.add({ ...own, ...words, id: `batch_${number}`, author, status: "completed", times: {}, counts }, 9);
  }
  return records;
}

async function post(http: Http, { route, within, headers }: Surface, body: Body) {
  const [method, path = ""] = route.split(" ");
  const plane = routes.find((known) => known.path === path)?.plane === "ops" ? "ops" : "public";
  const query = within === "query" ? `?${new URLSearchParams(body as Record<string, string>)}` : "";
  const answer = await http.inject(plane, {
    method: method as "GET" | "POST",
    url: `${path}${query}`,
    headers: {
      authorization: "Bearer key",
      ...headers,
      ...(within === "query" ? {} : { "content-type": "application/json" }),
    },
    ...(within === "query" ? {} : { payload: JSON.stringify(body) }),
  });
  return { status: answer.statusCode, type: answer.headers["content-type"], text: answer.body };
}

function traceOf(parts: unknown): string {
  return JSON.stringify(parts, (_, value) => (ArrayBuffer.isView(value) ? Array.from(value as Uint8Array) : value))
    .replaceAll(/[0-9a-f-]{16,}/g, "ID")
    .replaceAll(/(\\?"(?:created|created_at|completed_at|expires_at)\\?":)[\d.]+/g, "$1 0");
}
