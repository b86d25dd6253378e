/**
 * What becomes of one field of a request, as data: the rows of the tables beside this file.
 *
 *   honoured   taken, and something of the answer or of the model's work is another with it
 *   silent     honoured, where nothing of that can be seen over a scripted model; the why says it
 *   absent     honoured: a 404 that names it, as there is nothing of that name
 *   refused    a 400, or a 501 for what is not done yet, that names it
 *   ignored    taken, and nothing is another with it; docs/divergences.md says so
 */

export type Body = Readonly<Record<string, unknown>>;

export interface Field {
  readonly outcome: "honoured" | "silent" | "absent" | "refused" | "ignored";
  /** Of the right type, and not what holds without it. */
  readonly value: unknown;
  /** What it needs beside it: compared is the body with it and without. */
  readonly beside: Body;
  readonly why?: string;
}

/** Fields by name; a dot leads into an object. */
export type Fields = Readonly<Record<string, Field>>;

export interface Surface {
  /** Method and path. */
  readonly route: string;
  /** What the model behind it does. */
  readonly model: "text" | "vectors" | "classes";
  /** The smallest body that is answered. */
  readonly body: Body;
  readonly fields: Fields;
  /** One call changes what the next one finds. */
  readonly changes?: true;
  /** Where the fields stand; the body unless said. */
  readonly within?: "query";
  /** Headers of every call, besides the key and the type. */
  readonly headers?: Readonly<Record<string, string>>;
  /** What becomes of a field that nobody knows. */
  readonly unknown: "ignored" | "refused";
}

export const honoured = (value: unknown, beside: Body = {}): Field => ({ outcome: "honoured", value, beside });
export const absent = (value: unknown, beside: Body = {}): Field => ({ outcome: "absent", value, beside });
export const refused = (value: unknown, beside: Body = {}): Field => ({ outcome: "refused", value, beside });
export const ignored = (value: unknown, beside: Body = {}): Field => ({ outcome: "ignored", value, beside });
export const silent = (value: unknown, why: string, beside: Body = {}): Field => ({
  outcome: "silent",
  value,
  beside,
  why,
});

/** The fields under a name: `a` in `sampling_params` is `sampling_params.a`, and so is what it needs beside it. */
export function under(name: string, fields: Fields): Fields {
  const inside = (beside: Body): Body => (Object.keys(beside).length === 0 ? {} : { [name]: beside });
  return Object.fromEntries(
    Object.entries(fields).map(([key, field]) => [`${name}.${key}`, { ...field, beside: inside(field.beside) }]),
  );
}

export function without(fields: Fields, ...names: readonly string[]): Fields {
  return Object.fromEntries(Object.entries(fields).filter(([name]) => !names.includes(name)));
}
