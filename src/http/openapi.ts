/**
 * The declarations as an OpenAPI document. Pure. Callers: app, which serves it, and scripts/docs.ts, which prints it.
 */
import { z } from "zod";
import type { AnyRoute, ListenerPlane, ReplyDeclaration } from "./route.ts";

/** @param version of this server @param plane only what its listener serves; absent: everything */
export function openapi<S>(routes: readonly AnyRoute<S>[], version: string, plane?: ListenerPlane): object {
  const paths: Record<string, Record<string, unknown>> = {};
  for (const route of routes) {
    if (plane !== undefined && route.plane !== plane && route.plane !== "both") continue;
    paths[route.path] ??= {};
    const entry = paths[route.path];
    if (entry !== undefined) entry[route.method.toLowerCase()] = operation(route);
  }
  return {
    openapi: "3.1.0",
    info: { title: "Castellan", version, license: { name: "Apache-2.0" } },
    paths,
    components: {
      securitySchemes: {
        key: { type: "http", scheme: "bearer" },
        apiKey: { type: "apiKey", in: "header", name: "x-api-key" },
      },
    },
  };
}

function operation<S>(route: AnyRoute<S>): unknown {
  return {
    summary: route.doc,
    security:
      route.access.kind === "open" ? [] : [{ key: [] }, ...(speaks(route, "anthropic") ? [{ apiKey: [] }] : [])],
    ...(route.access.kind === "key" ? { "x-scope": route.access.scope } : {}),
    "x-listener": route.plane,
    ...parametersOf(route),
    ...(route.form === undefined ? {} : { requestBody: { required: true, content: { "multipart/form-data": {} } } }),
    ...(route.body === undefined
      ? {}
      : {
          requestBody: {
            required: true,
            content: { "application/json": { schema: schemaOf(route.body, "input") } },
          },
        }),
    responses: responses(route.reply),
  };
}

function speaks<S>({ dialect, orBy }: AnyRoute<S>, name: string): boolean {
  return dialect.name === name || orBy?.dialect.name === name;
}

function parametersOf<S>({ path, query }: Pick<AnyRoute<S>, "path" | "query">): object {
  const inPath = [...path.matchAll(/\{(.*?)\}/g)].map(([, name]) => ({
    name,
    in: "path",
    required: true,
    schema: { type: "string", pattern: "^[A-Za-z0-9_-]{1,128}$" },
  }));
  const all = [...inPath, ...(query === undefined ? [] : parameters(query))];
  return all.length === 0 ? {} : { parameters: all };
}

function parameters(query: z.ZodType): readonly object[] {
  const { properties = {}, required = [] } = schemaOf(query, "input");
  return Object.entries(properties).map(([name, schema]) => {
    const { description, ...rest } = schema as z.core.JSONSchema.BaseSchema;
    return { name, in: "query", ...(description && { description }), required: required.includes(name), schema: rest };
  });
}

function responses(replies: readonly ReplyDeclaration[]): unknown {
  const byStatus: Record<string, { description: string; content?: Record<string, unknown> }> = {};
  for (const reply of replies) {
    const known = byStatus[reply.status];
    const content =
      reply.contentType === null
        ? {}
        : { [reply.contentType]: reply.schema === undefined ? {} : { schema: schemaOf(reply.schema, "output") } };
    byStatus[reply.status] = {
      description: known === undefined ? reply.doc : `${known.description} ${reply.doc}`,
      ...(Object.keys({ ...known?.content, ...content }).length === 0
        ? {}
        : { content: { ...known?.content, ...content } }),
    };
  }
  return byStatus;
}

function schemaOf(schema: z.ZodType, io: "input" | "output"): z.core.JSONSchema.BaseSchema {
  const { $schema: _, ...rest } = z.toJSONSchema(schema, { io, unrepresentable: "any" });
  return rest;
}
