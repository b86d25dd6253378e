/**
 * GET /admin/keys, /admin/keys/show; POST /admin/keys/create, /rotate, /disable, /enable, /delete: on the operations
 * listener.
 */
import { key } from "#http/access.ts";
import { json } from "#http/reply.ts";
import type { ReplyDeclaration } from "#http/route.ts";
import type { KeyChange } from "#serving/admin-keys.ts";
import {
  ChangeKeyBody,
  CreateKeyBody,
  decodeCreateKey,
  decodeListKeys,
  encodeKey,
  encodeKeys,
  encodeNewKey,
  KeyListReply,
  KeyReply,
  ListKeysQuery,
  NewKeyReply,
  RotateKeyBody,
  ShowKeyQuery,
} from "#wire/admin/keys.ts";
import { openai } from "#wire/openai/dialect.ts";
import { failures } from "./_answers.ts";
import { KIB, route, SECOND } from "./_services.ts";

const reads = { dialect: openai, access: key("keys:read"), plane: "ops", audit: "metadata" } as const;
const writes = { dialect: openai, access: key("keys:write"), plane: "ops", audit: "metadata" } as const;
const readLimits = { timeoutMs: 30 * SECOND };
const writeLimits = { bodyBytes: 64 * KIB, timeoutMs: 30 * SECOND };

const one: ReplyDeclaration = {
  status: 200,
  contentType: "application/json",
  schema: KeyReply,
  doc: "The key's record, without its secrets.",
};
const fresh: ReplyDeclaration = {
  status: 200,
  contentType: "application/json",
  schema: NewKeyReply,
  doc: "The key's record, and the key itself, shown this once.",
};

export const listKeys = route({
  ...reads,
  method: "GET",
  path: "/admin/keys",
  limits: readLimits,
  query: ListKeysQuery,
  reply: [
    { status: 200, contentType: "application/json", schema: KeyListReply, doc: "A page of keys, oldest first." },
    ...failures,
  ],
  doc: "List keys.",
  handler: async ({ caller, query, services }) => {
    const { keys, more } = await services.admin.keys.list(caller, decodeListKeys(query));
    return json(encodeKeys(keys, more, Date.now()));
  },
});

export const showKey = route({
  ...reads,
  method: "GET",
  path: "/admin/keys/show",
  limits: readLimits,
  query: ShowKeyQuery,
  reply: [one, ...failures],
  doc: "Show all that is known of a key.",
  handler: async ({ caller, query, services }) =>
    json(encodeKey(await services.admin.keys.show(caller, query.id), Date.now())),
});

export const createKey = route({
  ...writes,
  method: "POST",
  path: "/admin/keys/create",
  limits: writeLimits,
  body: CreateKeyBody,
  reply: [fresh, ...failures],
  doc: "Make a key; the answer holds it, this once.",
  handler: async ({ caller, body, services }) => {
    const { record, key: made } = await services.admin.keys.create(caller, decodeCreateKey(body));
    return json(encodeNewKey(made.expose(), record, Date.now()));
  },
});

export const rotateKey = route({
  ...writes,
  method: "POST",
  path: "/admin/keys/rotate",
  limits: writeLimits,
  body: RotateKeyBody,
  reply: [fresh, ...failures],
  doc: "Make the next generation of a key; id, rights, limits and usage stay.",
  handler: async ({ caller, body, services }) => {
    const { record, key: made } = await services.admin.keys.rotate(caller, body.id, body.overlap_seconds);
    return json(encodeNewKey(made.expose(), record, Date.now()));
  },
});

export const disableKey = change("disable", "Stop a key, every generation of it, until it is enabled.");
export const enableKey = change("enable", "Let a disabled key work again.");
export const deleteKey = change("delete", "End a key for good; its record stays, so that the past can be read.");

function change(what: KeyChange, doc: string) {
  return route({
    ...writes,
    method: "POST",
    path: `/admin/keys/${what}`,
    limits: writeLimits,
    body: ChangeKeyBody,
    reply: [one, ...failures],
    doc,
    handler: async ({ caller, body, services }) =>
      json(encodeKey(await services.admin.keys.change(caller, what, body.id), Date.now())),
  });
}
