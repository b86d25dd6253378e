/**
 * The rows of the settings table about keys and what outlives a start. Part of settings.ts, which alone reads it.
 */
import { list, type Setting, string } from "./kinds.ts";

const KEYS = "Keys and state";

export const KEY_SETTINGS = {
  apiKey: list("key", {
    section: KEYS,
    doc: "A key that may call the server; may be given several times. With none anywhere the first start makes one.",
    variables: ["VLLM_API_KEY"],
    secret: true,
  }),
  apiKeyFile: string(undefined, "path", {
    section: KEYS,
    doc: "File with one key a line, readable by its owner alone.",
  }),
  policy: string(undefined, "path", {
    section: KEYS,
    doc: "YAML file of tenants, limits, prices, issuers and certificates, with cases that it has to pass; read anew at SIGHUP; see docs/policy.md.",
  }),
  jwtConfig: string(undefined, "path", {
    section: KEYS,
    doc: "YAML file of the issuers whose signed tokens (JWT) may call, and what their claims allow; see docs/tokens.md.",
  }),
  stateDir: string(undefined, "path", {
    section: KEYS,
    doc: "Where the server keeps its state (mode 0700).",
    fallbackDoc: "$XDG_STATE_HOME/castellan, else ~/.local/state/castellan",
  }),
  pepperFile: string(undefined, "path", {
    section: KEYS,
    doc: "File with the 32 bytes under which keys are hashed, readable by its owner alone; one for all servers of a database.",
    fallbackDoc: "the file pepper in the state directory",
  }),
  databaseUrl: string(undefined, "url", {
    section: KEYS,
    doc: "PostgreSQL that several servers share: postgres://user@host/database; the password may stand in ~/.pgpass.",
    fallbackDoc: "the SQLite file policy.db in the state directory",
    secret: true,
  }),
  databaseUrlFile: string(undefined, "path", {
    section: KEYS,
    doc: "File with that URL, readable by its owner alone, where the URL holds a password.",
  }),
} as const satisfies Record<string, Setting<unknown>>;
