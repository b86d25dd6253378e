/**
 * A side of a scoring request: a text, or content parts that are text.
 */
import { Fault, invalid } from "#core/fault.ts";
import type { RequestCaps } from "#core/request-caps.ts";
import { isObject, kindOf, requireList, requireObject, requireString } from "#wire/openai/_compound.ts";

const PART = { type: "object", required: ["type"], properties: { type: { const: "text" }, text: { type: "string" } } };
const TEXT_DOC = {
  anyOf: [{ type: "string" }, { type: "object", properties: { content: { type: "array", items: PART } } }],
};

export const ONE_TEXT_DOC = TEXT_DOC;
export const TEXTS_DOC = { anyOf: [TEXT_DOC, { type: "array", items: TEXT_DOC }] };

/** A text as it is read, and as the answer repeats it. */
export interface GivenText {
  readonly text: string;
  readonly parts?: readonly { readonly type: "text"; readonly text: string }[];
}

/** @throws Fault invalid_request | not_implemented, naming the entry */
export function decodeTexts(value: unknown, field: string, caps: RequestCaps): readonly GivenText[] {
  if (!Array.isArray(value)) return [decodeText(value, field, caps)];
  const list = requireList(value, field, caps.poolingInputs);
  return list.map((entry, i) => decodeText(entry, `${field}.${i}`, caps));
}

/** @throws Fault invalid_request | not_implemented, naming the part */
export function decodeText(value: unknown, path: string, caps: RequestCaps): GivenText {
  if (typeof value === "string") return { text: value };
  if (!isObject(value))
    throw invalid(path, `${path} must be a string or an object with content, not ${kindOf(value)}.`);
  return decodeParts(value["content"], `${path}.content`, caps);
}

/** Text parts, put together as a template's plain content is. @throws Fault invalid_request | not_implemented */
export function decodeParts(value: unknown, path: string, caps: RequestCaps): GivenText {
  const parts = requireList(value, path, caps.contentParts).map((entry, i) => {
    const part = requireObject(entry, `${path}.${i}`);
    if (part["type"] !== "text")
      throw new Fault("not_implemented", "Only text parts are supported by this server yet.", {
        param: `${path}.${i}.type`,
      });
    return { type: "text" as const, text: requireString(part["text"], `${path}.${i}.text`) };
  });
  return { text: parts.map(({ text }) => text).join("\n"), parts };
}
