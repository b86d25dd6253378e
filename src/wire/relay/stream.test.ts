import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { type Shown, StreamReader } from "./stream.ts";
import { usageOf } from "./usage.ts";

const USAGE = { promptTokens: 7, completionTokens: 3, cachedTokens: 2, reasoningTokens: 1 };
const printed =
  '{"prompt_tokens":7,"total_tokens":10,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":2},"completion_tokens_details":{"reasoning_tokens":1}}';
const delta = (content: string): string =>
  `data: {"id":"c","object":"chat.completion.chunk","model":"m","choices":[{"index":0,"delta":{"content":${JSON.stringify(content)}}}]}\n\n`;
const alone = `data: {"id":"c","object":"chat.completion.chunk","model":"m","choices":[],"usage":${printed}}\n\n`;
const OPENAI = `${delta('say "usage":{"prompt_tokens":99}')}: still here\n\n${delta("usage")}${delta('{"usage":{"prompt_tokens":99,"completion_tokens":9}}')}${alone}data: [DONE]\n\n`;
const ANTHROPIC = `event: message_start\ndata: {"type":"message_start","message":{"id":"x","model":"m","usage":{"input_tokens":5,"output_tokens":0,"cache_read_input_tokens":2}}}\n\nevent: ping\ndata: {"type":"ping"}\n\nevent: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"hi"}}\n\nevent: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":3,"input_tokens":0}}\n\nevent: message_stop\ndata: {"type":"message_stop"}\n\n`;
const RESPONSES = `event: response.created\ndata: {"type":"response.created","response":{"id":"r","model":"m","usage":null}}\n\nevent: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"x"}\n\nevent: response.completed\ndata: {"type":"response.completed","response":{"id":"r","model":"m","usage":{"input_tokens":7,"input_tokens_details":{"cached_tokens":2},"output_tokens":3,"output_tokens_details":{"reasoning_tokens":1},"total_tokens":10}}}\n\n`;

/** Through a reader in pieces of these lengths; what comes out is copied before the chunk is used again. */
function relay(text: string, lengths: readonly number[], reader: StreamReader): string {
  const bytes = Buffer.from(text);
  const out: Buffer[] = [];
  const chunk = Buffer.alloc(1024);
  for (let at = 0, i = 0; at < bytes.length; i++) {
    const length = Math.min(lengths[i % lengths.length] ?? 1, 1024, bytes.length - at);
    bytes.copy(chunk, 0, at, at + length);
    const given = chunk.subarray(0, length);
    // As whoever relays does: what passes is not looked at again.
    for (const piece of reader.passes(given) ? [given] : reader.take(given)) out.push(Buffer.from(piece));
    chunk.fill(0x21);
    at += length;
  }
  out.push(...reader.end().map((piece) => Buffer.from(piece)));
  return Buffer.concat(out).toString();
}

const named = (model: string): Shown => ({ where: ["model"], edits: new Map([["model", JSON.stringify(model)]]) });

const cuts = fc.array(fc.integer({ min: 1, max: 400 }), { minLength: 1, maxLength: 30 });

test("wherever the chunks end: the same bytes, the same usage, the same count, the end seen", () => {
  fc.assert(
    fc.property(cuts, fc.boolean(), (lengths, crlf) => {
      for (const [text, events] of [
        [OPENAI, 4],
        [ANTHROPIC, 5],
        [RESPONSES, 3],
      ] as const) {
        const sent = crlf ? text.replaceAll("\n", "\r\n") : text;
        const reader = new StreamReader();
        assert.equal(relay(sent, lengths, reader), sent);
        assert.equal(reader.events, events);
        assert.equal(reader.ended, true);
        assert.equal(reader.failed, false);
        const expected = text === ANTHROPIC ? { ...USAGE, reasoningTokens: 0 } : USAGE;
        assert.deepEqual(reader.usage, expected);
      }
    }),
    { numRuns: 300 },
  );
});

test("an event that comes alone passes unread, unless something in it is read, changed or the end", () => {
  const passes = (text: string, reader = new StreamReader({ strip: true })): boolean =>
    reader.passes(Buffer.from(text));
  assert.equal(passes(delta("x")), true);
  const read = [alone, "data: [DONE]\n\n", 'data: {"error":{}}\n\n', ": still here\n\n", delta("x").slice(0, -1)];
  for (const text of [...read, `${delta("x")}${delta("y")}`, 'event: error\ndata: {"x":1}\n\n', "\n\n", ""])
    assert.equal(passes(text), false, text);
  assert.equal(passes(delta("x"), new StreamReader({ shown: named("m") })), false);
  const reader = new StreamReader({ strip: true });
  reader.take(Buffer.from("data: "));
  assert.equal(passes(delta("x"), reader), false, "it is the rest of another");
  reader.take(Buffer.from(delta("x")));
  assert.equal(passes(delta("y"), reader), true);
  assert.equal(reader.events, 2);
});

test("a forced usage chunk is left out, and nothing else", () => {
  fc.assert(
    fc.property(cuts, (lengths) => {
      const reader = new StreamReader({ strip: true });
      assert.equal(relay(OPENAI, lengths, reader), OPENAI.replace(alone, ""));
      assert.deepEqual(reader.usage, USAGE);
      assert.equal(reader.events, 3);
    }),
  );
});

test("another name of the model is shown, where it stands in events and in what they wrap", () => {
  for (const text of [OPENAI, ANTHROPIC, RESPONSES])
    fc.assert(
      fc.property(cuts, (lengths) => {
        const shown = relay(text, lengths, new StreamReader({ shown: named('their "name"') }));
        assert.equal(shown, text.replaceAll('"model":"m"', '"model":"their \\"name\\""'));
      }),
      { numRuns: 60 },
    );
});

test("errors in a stream, and a stream that breaks off", () => {
  const failed = new StreamReader();
  relay('data: {"error":{"message":"x","code":500}}\n\ndata: [DONE]\n\n', [9], failed);
  assert.deepEqual([failed.failed, failed.ended], [true, true]);
  const anthropic = new StreamReader();
  relay('event: error\ndata: {"type":"error","error":{}}\n\n', [5], anthropic);
  assert.deepEqual([anthropic.failed, anthropic.ended], [true, false]);
  const broken = new StreamReader({ strip: true });
  const text = `${delta("a")}${alone.slice(0, 40)}`;
  assert.equal(relay(text, [7], broken), text);
  assert.deepEqual([broken.ended, broken.usage], [false, undefined]);
});

test("an event beyond the bound is passed on unread, in time that grows with its length", { timeout: 60_000 }, () => {
  const long = delta("x".repeat(3_000_000));
  for (const options of [{}, { strip: true }]) {
    const reader = new StreamReader(options);
    const text = `${long}${alone}data: [DONE]\n\n`;
    const expected = options.strip === true ? text.replace(alone, "") : text;
    assert.equal(relay(text, [100, 333], reader), expected);
    assert.deepEqual(reader.usage, USAGE);
    assert.equal(reader.ended, true);
  }
});

test("garbage is passed on as it is", () => {
  fc.assert(
    fc.property(
      fc.array(
        fc.constantFrom("data: ", "\n", "\r", '{"usage"', ":{}", '"choices":[]', "}", "[DONE]", "event: error", "x"),
      ),
      cuts,
      (words, lengths) => {
        const text = words.join("");
        assert.equal(relay(text, lengths, new StreamReader()), text);
        assert.equal(relay(text, lengths, new StreamReader({ shown: named("m") })), text);
      },
    ),
  );
});

test("whole answers: each shape, and what is none", () => {
  const read = (text: string) => usageOf(Buffer.from(text));
  assert.deepEqual(read(`{"id":"x","choices":[{"message":{"content":"\\"usage\\":{}"}}],"usage":${printed}}`), USAGE);
  assert.deepEqual(
    read(
      '{"type":"message","usage":{"input_tokens":4,"output_tokens":3,"cache_read_input_tokens":2,"cache_creation_input_tokens":1}}',
    ),
    { ...USAGE, reasoningTokens: 0 },
  );
  assert.deepEqual(
    read(
      '{"object":"list","data":[],"usage":{"prompt_tokens":5,"total_tokens":5,"completion_tokens":0,"prompt_tokens_details":null}}',
    ),
    { promptTokens: 5, completionTokens: 0, cachedTokens: 0, reasoningTokens: 0 },
  );
  assert.equal(read('{"results":[],"usage":{"total_tokens":6}}')?.promptTokens, 6);
  assert.equal(read('{"embeddings":{},"meta":{"tokens":{"input_tokens":8}}}')?.promptTokens, 8);
  assert.equal(read('{"input_tokens":9}')?.promptTokens, 9);
  for (const none of [
    "",
    "[1]",
    "{",
    "not JSON",
    "{}",
    '{"usage":null}',
    '{"usage":{"prompt_tokens":-1}}',
    '{"usage":{"prompt_tokens":"7"}}',
    '{"choices":[{"usage":{"prompt_tokens":7}}]}',
    '{"text":"\\"usage\\":{\\"prompt_tokens\\":7}"}',
    '{"usage":{"prompt_tokens":1e400}}',
    '{"meta":[]}',
  ])
    assert.equal(read(none), undefined, none);
});

test("a response's id and more are the server's, wherever its chunks end, and the last response is kept as it came", () => {
  const shown: Shown = {
    where: ["id", "output"],
    edits: new Map([
      ["id", '"ours"'],
      ["store", "true"],
    ]),
  };
  const theirs = '{"id":"r","model":"m",';
  fc.assert(
    fc.property(cuts, fc.boolean(), (lengths, keeps) => {
      const reader = new StreamReader({ shown, keeps });
      const text = relay(RESPONSES, lengths, reader);
      assert.equal(text, RESPONSES.replaceAll(theirs, '{"store":true,"id":"ours","model":"m",'));
      const last = keeps ? `${theirs}"usage":{"input_tokens":7` : undefined;
      const got = reader.response === undefined ? undefined : Buffer.from(reader.response).toString();
      assert.equal(got?.slice(0, last?.length), last);
      assert.deepEqual(reader.usage, USAGE);
    }),
  );
});

test("an event that wraps a response is read whatever its length, up to a bound", () => {
  const shown: Shown = { where: ["id"], edits: new Map([["id", '"ours"']]) };
  const end = (length: number): string =>
    `event: response.completed\ndata: {"type":"response.completed","response":{"id":"r","text":"${"x".repeat(length)}"}}\n\n`;
  const reader = new StreamReader({ shown, keeps: true });
  const long = end(4 * 1024 * 1024);
  assert.equal(relay(long, [1024], reader), long.replace('"r"', '"ours"'));
  assert.equal(reader.response?.length, 4 * 1024 * 1024 + '{"id":"r","text":""}'.length);
  const beyond = new StreamReader({ shown, keeps: true });
  relay(end(33 * 1024 * 1024), [1024], beyond);
  assert.deepEqual([beyond.ended, beyond.response], [false, undefined]);
});
