/**
 * Every secret that the operator gave, so that text that is kept or sent can be searched for it.
 */
import { Secret } from "#base/secret.ts";
import { type Settings, settingRows } from "#config/settings.ts";
import { databaseUrlOf, redisUrlOf } from "./given-urls.ts";
import { givenKeys } from "./keys.ts";
import { upstreamKeys } from "./upstream-models.ts";

/** @throws StartupError a file with secrets cannot be read */
export function givenSecrets(settings: Settings): Secret[] {
  const texts = settingRows()
    .filter(([, row]) => row.secret === true)
    .flatMap(([name]) => settings[name])
    .filter((value) => typeof value === "string");
  const files = [databaseUrlOf(settings), redisUrlOf(settings)].filter((value) => value !== undefined);
  return [
    ...givenKeys(settings),
    ...upstreamKeys(settings),
    ...[...texts, ...files].flatMap(withPassword).map((text) => new Secret(text)),
  ];
}

/** A URL's password is one by itself, too. */
function withPassword(text: string): string[] {
  const password = URL.parse(text)?.password ?? "";
  return password === "" ? [text] : [text, password, decoded(password)];
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
