/**
 * The words of `castellan policy`: its commands, flags and help. What they do is in policy.ts, which loads when it is needed.
 */
import { type Command, Option } from "commander";
import { ROLES } from "#core/principal.ts";
import { place } from "./keys-commands.ts";

const EXAMPLES = `
Examples:
  castellan policy explain --key laptop POST /v1/chat/completions --model llama-3
  castellan policy explain --key laptop                              every route, and whether the key may call it
  castellan policy explain --tenant acme --role user GET /metrics
  castellan policy explain --issuer https://login.example.com --claims '{"groups": ["llm"]}' POST /tokenize
  castellan policy test policy.yaml

Exit code 0: allowed, or all tests pass. 1: denied, or a test fails.`;

/** @param finish ends the program with this exit code */
export function addPolicyCommands(program: Command, finish: (code: number) => void): void {
  const policy = program
    .command("policy")
    .summary("say what a caller may do and by which rule; test a policy file")
    .description("The policy: what keys, tokens, certificates and the policy file together allow. No server need run.")
    .addHelpText("after", EXAMPLES);

  policy
    .command("test")
    .description("Check a policy file and run the tests that it carries, as a server does before it uses it.")
    .argument("<file>", "the policy file (castellan serve --policy)")
    .option("--json", "print JSON")
    .action(async (file, options) => finish(await (await import("./policy.ts")).runPolicyTest(file, options)));

  place(
    policy
      .command("explain")
      .description("Say whether a request would be let in, and which rule decides.")
      .argument("[request...]", "METHOD PATH; every route without it"),
  )
    .option("--policy <file>", "the policy file, as for serve")
    .option("--key <key>", "asks as this key: its id (key_…), or its name where one key alone has it")
    .option("--tenant <name>", "asks as a key of this tenant could")
    .addOption(new Option("--role <role>", "with this role").choices(Object.keys(ROLES)))
    .option("--issuer <url>", "asks as a token of this issuer")
    .option("--claims <json>", "with these claims")
    .option("--certificate <name>", "asks as a client certificate: its SPIFFE id, or its subject (CN=…,O=…)")
    .option("--nobody", "asks without a credential")
    .option("--model <name>", "the request is about this model")
    .option("--adapter <name>", "… this LoRA adapter")
    .option("--tool <name>", "… this tool of the server")
    .option("--from <address>", "the caller's address")
    .addOption(
      new Option("--listener <name>", "the listener; without it the one that has the path").choices(["public", "ops"]),
    )
    .addHelpText("after", EXAMPLES)
    .action(async (request, options) => finish(await (await import("./policy.ts")).runPolicyExplain(request, options)));
}
