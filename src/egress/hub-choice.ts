/**
 * Which GGUF file of a repository is meant, when no file is named.
 *
 * A quantisation matches a file that has it as a whole token, whatever the case: bounded by `-`, `.`, `/`, the
 * name's ends, or a `_` in front (`Q4_K` is not found in `Q4_K_M`). Projectors (mmproj) and importance matrices
 * are no models and never chosen. No quantisation given: the only GGUF file there is, else the first of
 * PREFERENCE that exactly one whole file has. Pure.
 */
import { checkFilePath, HubError, isGguf } from "./hub-names.ts";

/** Good on a CPU first, then larger, then unquantised. */
export const PREFERENCE = ["Q4_K_M", "Q8_0", "Q5_K_M", "Q6_K", "Q4_K_S", "Q4_0", "F16", "BF16"] as const;

const SPLIT = /-\d{5}-of-\d{5}\.gguf$/i;
const NO_MODEL = /(?:^|\/)mmproj|imatrix/i;
const MAX_LISTED = 20;

/**
 * @param paths every path of the repository.
 * @throws HubError no_choice listing the candidates; bad_name when the hub lists a GGUF path that is not safe.
 */
export function chooseFile(paths: readonly string[], quantisation: string | undefined): string {
  const files = paths.filter(isGguf);
  for (const path of files) checkFilePath(path);
  const models = files.filter((path) => !NO_MODEL.test(path)).sort();
  if (models.length === 0) throw noChoice("the repository has no GGUF file", []);
  if (quantisation === undefined) return preferred(models);
  const matching = models.filter((path) => hasToken(path, quantisation));
  if (matching.length === 0) throw noChoice(`no GGUF file of the repository is ${quantisation}`, models);
  return only(matching, quantisation);
}

/** @throws HubError no_choice when the file is one part of several. */
export function refuseSplit(path: string): void {
  if (SPLIT.test(path)) throw noChoice("models split into several files are not supported", [path]);
}

function preferred(models: readonly string[]): string {
  const whole = models.filter((path) => !SPLIT.test(path));
  const [first] = whole;
  if (first === undefined) throw noChoice("models split into several files are not supported", models);
  if (whole.length === 1) return first;
  for (const quantisation of PREFERENCE) {
    const matching = whole.filter((path) => hasToken(path, quantisation));
    if (matching.length > 0) return only(matching, quantisation);
  }
  throw noChoice("several GGUF files and none of a usual quantisation: name one", whole);
}

function only(matching: readonly string[], quantisation: string): string {
  const [first, second] = matching;
  if (first === undefined) throw noChoice(`no GGUF file of the repository is ${quantisation}`, []);
  if (second === undefined) {
    refuseSplit(first);
    return first;
  }
  const split = matching.every((path) => SPLIT.test(path));
  const why = split
    ? "models split into several files are not supported"
    : `several GGUF files are ${quantisation}: name one`;
  throw noChoice(why, matching);
}

/** Linear: each occurrence is looked at once. */
function hasToken(path: string, token: string): boolean {
  const [text, wanted] = [path.toLowerCase(), token.toLowerCase()];
  for (let at = text.indexOf(wanted); at >= 0; at = text.indexOf(wanted, at + 1)) {
    const [before, after] = [text[at - 1], text[at + wanted.length]];
    const opens = before === undefined || "-._/".includes(before);
    if (opens && (after === undefined || "-./".includes(after))) return true;
  }
  return false;
}

function noChoice(message: string, candidates: readonly string[]): HubError {
  const listed = candidates.slice(0, MAX_LISTED).map((path) => `\n  ${path}`);
  const more = candidates.length > MAX_LISTED ? `\n  … and ${candidates.length - MAX_LISTED} more` : "";
  return new HubError("no_choice", listed.length === 0 ? message : `${message}; there are:${listed.join("")}${more}`);
}
