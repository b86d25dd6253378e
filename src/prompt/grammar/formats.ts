/**
 * `format` of JSON Schema as regular expressions: each gives a subset of what the format allows. Formats of
 * the specification that are not here are refused; what is no format of it says nothing (int32, password), as it has it.
 */
const DATE = "\\d{4}-(0[1-9]|1[0-2])-(0[1-9]|1\\d|2[0-8])";
const TIME = "([01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(\\.\\d{1,6})?(Z|[+-]([01]\\d|2[0-3]):[0-5]\\d)";
const LABEL = "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?";
const HOST = `${LABEL}(\\.${LABEL}){0,6}`;
const OCTET = "(25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)";

export const FORMATS: ReadonlyMap<string, string> = new Map([
  ["date", DATE],
  ["time", TIME],
  ["date-time", `${DATE}T${TIME}`],
  ["duration", "P(\\d{1,4}W|\\d{1,4}Y|\\d{1,4}M|\\d{1,4}D|T\\d{1,4}[HMS]|\\d{1,4}DT\\d{1,4}[HMS])"],
  ["uuid", "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"],
  ["ipv4", `${OCTET}\\.${OCTET}\\.${OCTET}\\.${OCTET}`],
  ["ipv6", "[0-9a-f]{1,4}(:[0-9a-f]{1,4}){7}"],
  ["hostname", HOST],
  ["email", `[A-Za-z0-9_+-]{1,20}(\\.[A-Za-z0-9_+-]{1,20}){0,3}@${LABEL}(\\.${LABEL}){1,4}`],
  ["uri", `https?://${HOST}(:[1-9]\\d{0,3})?(/[A-Za-z0-9._~-]{0,40}){0,8}(\\?[A-Za-z0-9._~=&-]{0,80})?`],
]);

/** Formats of draft 2020-12 that cannot be followed. */
export const UNSUPPORTED_FORMATS: ReadonlySet<string> = new Set([
  ...["idn-email", "idn-hostname", "iri", "iri-reference", "uri-reference", "uri-template"],
  ...["json-pointer", "relative-json-pointer", "regex"],
]);
