import assert from "node:assert/strict";
import { test } from "node:test";
import { Fault } from "#core/fault.ts";
import { readRelayForm, writeRelayForm } from "./form.ts";

const BOUNDS = { fields: 3, fieldBytes: 20, file: "file" };
const TYPE = "multipart/form-data; boundary=xyz";
const field = (name: string, value: string) =>
  `--xyz\r\nContent-Disposition: form-data; name="${name}"\r\n\r\n${value}\r\n`;
const file = (name = "file", shown = "a.wav") =>
  `--xyz\r\nContent-Disposition: form-data; name="${name}"; filename="${shown}"\r\nContent-Type: audio/wav\r\n\r\nRI\0FF\r\n`;
const END = "--xyz--\r\n";
const read = (body: string, type: string | undefined = TYPE) =>
  readRelayForm(Buffer.from(body, "latin1"), type, BOUNDS);

test("a form's parts are read, and written anew under another boundary", async () => {
  const form = read(field("model", "m") + file() + field("stream", "true") + END);
  assert.deepEqual(form.fields, [
    ["model", "m"],
    ["stream", "true"],
  ]);
  assert.deepEqual(form.file, { fileName: "a.wav", contentType: "audio/wav", bytes: Buffer.from("RI\0FF") });
  const { contentType, pieces } = writeRelayForm({ ...form, fields: [["model", "ünder"]] }, "file");
  // Read by another reader than ours.
  const seen = await new Response(Buffer.concat(pieces), { headers: { "content-type": contentType } }).formData();
  assert.deepEqual([...seen.keys()], ["model", "file"]);
  assert.equal(seen.get("model"), "ünder");
  const given = seen.get("file");
  assert.ok(given instanceof File);
  assert.deepEqual(
    [given.name, given.type, Buffer.from(await given.arrayBuffer())],
    ["a.wav", "audio/wav", Buffer.from("RI\0FF")],
  );
  assert.doesNotMatch(contentType, /xyz/);
});

test("what FormData writes is read", async () => {
  const form = new FormData();
  form.set("model", "m");
  form.set("file", new File([Buffer.from("--xyz\r\n")], 'we"ird\n.mp3'));
  const request = new Request("http://x", { method: "POST", body: form });
  const bytes = Buffer.from(await request.arrayBuffer());
  const read = readRelayForm(bytes, request.headers.get("content-type") ?? "", BOUNDS);
  assert.deepEqual(read.fields, [["model", "m"]]);
  assert.equal(String(read.file?.bytes), "--xyz\r\n");
  const { pieces } = writeRelayForm(read, "file");
  assert.match(String(Buffer.concat(pieces)), /filename="file\.mp3"/, "an odd name is not passed on");
});

test("what has two meanings, or too much, is refused", () => {
  const head = (text: string) => `--xyz\r\n${text}\r\n\r\nv\r\n${END}`;
  for (const [what, body, type] of [
    ["no boundary", field("a", "b") + END, "multipart/form-data"],
    ["two parameters", field("a", "b") + END, "multipart/form-data; boundary=xyz; boundary=abc"],
    ["text before", `hello\r\n${field("a", "b")}${END}`],
    ["text behind", `${field("a", "b")}${END}more`],
    ["no end", field("a", "b")],
    ["a boundary that goes on", field("a", "b\r\n--xyzz\r\n") + END],
    ["bare line feeds", field("a", "b").replaceAll("\r\n", "\n") + END],
    ["no disposition", head("X: y")],
    ["twice a header", head('Content-Disposition: form-data; name="a"\r\ncontent-disposition: form-data; name="b"')],
    ["twice a name", head('Content-Disposition: form-data; name="a"; name="b"')],
    ["an escaped quote in a name", head('Content-Disposition: form-data; name="a\\"b"')],
    ["a folded header", head('Content-Disposition: form-data;\r\n name="a"')],
    ["encoded", head('Content-Disposition: form-data; name="a"\r\nContent-Transfer-Encoding: base64')],
    ["a long field", field("a", "x".repeat(21)) + END],
    ["no text", field("a", "\xff") + END],
    ["NUL", field("a", "\0") + END],
    ["too many", field("a", "") + field("b", "") + field("c", "") + field("d", "") + END],
    ["two files", file() + file() + END],
    ["another's file", file("other") + END],
  ] as const)
    assert.throws(
      () => read(body, type),
      (error) => error instanceof Fault && error.kind === "invalid_request",
      what,
    );
});
