/**
 * Ways to write a request that other servers take for another one: methods, paths, targets.
 */

export const METHODS = [
  "GET",
  "POST",
  "PUT",
  "DELETE",
  "HEAD",
  "OPTIONS",
  "PATCH",
  "TRACE",
  "PROPFIND",
  "QUERY",
  "M-SEARCH",
];

/** A target of a declared path: its parameter, if it has one, is an id that nothing has. */
export function targetOf(path: string): string {
  return path.replace(/\{.*\}/, "id_1");
}

/** What is no parameter of a path, in its place. */
export function strangeSegments(path: string): string[] {
  const segments = [
    "",
    ".",
    "..",
    "%2e",
    "%2e%2e",
    "..%2f",
    "id%5f1",
    "%69d_1",
    "id_1%00",
    "id_1%0a",
    "id_1;x",
    "id_1.json",
  ];
  const more = [
    "id_1,x",
    "id_1/",
    "/id_1",
    "id_1/x",
    "id 1",
    "id+1",
    "id~1",
    "id:1",
    "{response_id}",
    ":id",
    "*",
    "id_1#x",
    "id\\1",
  ];
  const long = "a".repeat(129);
  return [...segments, ...more, long].map((segment) => path.replace(/\{.*\}/, segment));
}

/** Other ways to write a path, some of which other servers take for the same. */
export function spellings(path: string): string[] {
  const [, first = "", ...rest] = path.split("/");
  const tail = rest.length === 0 ? "" : `/${rest.join("/")}`;
  const hex = (text: string): string => [...text].map((c) => `%${c.charCodeAt(0).toString(16)}`).join("");
  return [
    `/${path}`,
    `${path}/`,
    `${path}//`,
    `/.${path}`,
    `/..${path}`,
    `/x/..${path}`,
    `/health/..${path}`,
    `/health/../..${path}`,
    `${path}/.`,
    `${path}/..`,
    `${path}/../health`,
    path.toUpperCase(),
    `/${first.toUpperCase()}${tail}x`,
    `/%2f${path.slice(1)}`,
    `/%2F${path.slice(1)}`,
    `/${first}%2f${rest.join("/")}x`,
    `/${hex(first)}${tail}`,
    `/%25${hex(first)}${tail}`,
    `${path}%20`,
    `${path}%00`,
    `${path}%00/health`,
    `${path};x=/health`,
    `${path};/health`,
    `${path}.json`,
    `${path}%3f`,
    `${path}%23/health`,
    `/\\${path.slice(1)}`,
    `/health\\..${path}`,
    `/health%2f..${path}`,
    `/health/%2e%2e${path}`,
    `/%2e%2e${path}`,
    `/%c0%ae%c0%ae${path}`,
    `/%u002e${path}`,
    `/%${path}`,
    `/%zz${path}`,
    `http://x${path}`,
    `HTTP://x${path}`,
    `http://127.0.0.1/health${path}`,
    `http://x:80${path}`,
    `https://x${path}`,
    `http://user@x${path}`,
    `//x${path}`,
    `///${path}`,
    `*`,
    path.slice(1),
    `x${path}`,
    `http:${path}`,
    `http:/health`,
    `http://x/health`,
    `//health`,
    `/health/`,
    `/HEALTH`,
    `/Health`,
    `/healthz`,
    `/health%20`,
    `/%68ealth`,
    `/health%2f`,
    `/health;x`,
    `/./health`,
    `/x/../health`,
    `/health/.`,
    `/health#x`,
    `/health%3fx`,
  ];
}
