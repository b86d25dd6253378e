/**
 * The words of `castellan keys`: its commands, flags and help. What they do is in keys.ts, which loads when it is needed.
 */
import { type Command, Option } from "commander";
import { LIMIT_DOCS } from "#core/limits.ts";
import { OPERATOR_TENANT, ROLES } from "#core/principal.ts";
import { kebab } from "./key-words.ts";
import type { PlaceOptions } from "./keys.ts";

const EXAMPLES = `
Examples:
  castellan keys create --name laptop                       a user's key: models, nothing else
  castellan keys create --role operator --name deploys      LoRA adapters, pause, scale, metrics
  castellan keys create --tenant acme --models 'llama-*' --requests-per-minute 60 --budget 10usd/month --expires 90d
  castellan keys create --name ci | pass insert -e castellan/ci
  castellan keys rotate laptop --overlap 24h                both work for a day, under one id
  castellan keys disable key_4fQz0V1mXk2bT9aE
  castellan keys list --json`;

const WHICH = ["<key>", "its id (key_…), or its name where one key alone has it"] as const;

/** @param finish ends the program with this exit code */
export function addKeysCommands(program: Command, finish: (code: number) => void): void {
  const keys = program
    .command("keys")
    .summary("make, list, rotate, disable and delete keys")
    .description(
      "Keys: who may call, and what they may. Works on the state directory or the database; no server need run, and one\nthat does sees the change within a second or two.",
    )
    .addHelpText("after", EXAMPLES);
  addCreate(keys, finish);
  place(keys.command("list").description("List keys; a * behind a role: narrower scopes than the role's."))
    .option("--tenant <name>", "of this tenant only")
    .option("--all", "deleted ones too")
    .action(async (options) => finish(await (await import("./keys.ts")).listKeys(options)));
  place(
    keys
      .command("show")
      .description("Show all that is known of a key.")
      .argument(...WHICH),
  ).action(async (which, options) => finish(await (await import("./keys.ts")).showKey(which, options)));
  place(
    keys
      .command("rotate")
      .description("Make the next generation of a key and print it; id, rights, limits and usage stay.")
      .argument(...WHICH),
  )
    .option("--overlap <duration>", "how long the generation before works on: 0, 30m, 12h, 7d", "24h")
    .action(async (which, options) => finish(await (await import("./keys.ts")).rotateKey(which, options)));
  for (const [change, doc] of [
    ["disable", "Stop a key, every generation of it, until it is enabled."],
    ["enable", "Let a disabled key work again."],
    ["delete", "End a key for good; its record stays, so that the past can be read."],
  ] as const)
    place(
      keys
        .command(change)
        .description(doc)
        .argument(...WHICH),
    ).action(async (which, options) => finish(await (await import("./keys.ts")).changeKey(change, which, options)));
}

function addCreate(keys: Command, finish: (code: number) => void): void {
  const create = place(keys.command("create").description("Make a key and print it, once."))
    .option("--tenant <name>", "whose resources these are", OPERATOR_TENANT)
    .option("--name <text>", "for people", "")
    .addOption(new Option("--role <role>", "what it may do").choices(Object.keys(ROLES)).default("user"))
    .option("--scopes <list>", "fewer scopes than the role's: inference,models:read", listed)
    .option("--models <list>", "served names it may use, with * and ?", listed)
    .option("--adapters <list>", "names of LoRA adapters it may use, with * and ?", listed)
    .option("--tools <list>", "tools of the server it may use, with * and ?", listed)
    .option("--networks <list>", "where it may come from: 10.0.0.0/8,2001:db8::/32", listed)
    .option("--priority <n>", "the most urgent priority a request may ask for; lower is sooner")
    .option("--not-before <time>", "works from then on: a date, or a duration from now")
    .option("--expires <time>", "works until then: 90d, 12h, 2030-01-31, 2030-01-31T12:00Z");
  for (const [name, doc] of Object.entries(LIMIT_DOCS)) create.option(`--${kebab(name)} <n>`, doc);
  create
    .option("--budget <budget>", "10usd/month, 1000000tokens/day; may be repeated", several)
    .option("--cap <name=n>", "a request's limit that differs from the server's, such as n=2; may be repeated", several)
    .addHelpText("after", EXAMPLES)
    .action(async (options) => finish(await (await import("./keys.ts")).createKey(options)));
}

/** Flags of every command. */
export function place(command: Command): Command {
  const options: Record<keyof PlaceOptions, readonly [string, string]> = {
    json: ["--json", "print JSON"],
    stateDir: ["--state-dir <path>", "the server's state directory"],
    databaseUrl: ["--database-url <url>", "the servers' PostgreSQL; better in CASTELLAN_DATABASE_URL"],
    databaseUrlFile: ["--database-url-file <path>", "a file that holds that URL"],
    pepperFile: ["--pepper-file <path>", "what keys are hashed under"],
    config: ["--config <file>", "a server's YAML file, for these four"],
  };
  for (const [flag, doc] of Object.values(options)) command.option(flag, doc);
  return command;
}

function listed(text: string, before: readonly string[] = []): readonly string[] {
  return [
    ...before,
    ...text
      .split(",")
      .map((item) => item.trim())
      .filter((item) => item !== ""),
  ];
}

function several(text: string, before: readonly string[] = []): readonly string[] {
  return [...before, text];
}
