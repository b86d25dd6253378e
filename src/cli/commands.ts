/**
 * The commands and their help. Called by main.ts, unless the command line plainly says `serve`.
 */
import { Command } from "commander";
import { version } from "#app/paths.ts";
import { addKeysCommands } from "./keys-commands.ts";
import { addPolicyCommands } from "./policy-commands.ts";

/** @param finish told the exit code of a command that ran */
export async function runCommand(finish: (code: number) => void): Promise<void> {
  const program = new Command("castellan")
    .description("An LLM inference server and gateway: wire-compatible with vLLM, closed by default.")
    .version(version(), "-V, --version")
    .showSuggestionAfterError(true)
    .showHelpAfterError("(castellan --help lists the commands)");

  serverCommands(program, finish);

  withConnection(program.command("chat"))
    .summary("chat with a running server in the terminal")
    .option("--model <name>", "the model to talk to; the first one served without it")
    .option("--system <text>", "a system prompt")
    .option("--temperature <t>", "0 is greedy", Number)
    .option("--max-tokens <n>", "tokens of an answer at most", Number, 512)
    .option("--think", "ask the model to reason first")
    .addHelpText(
      "after",
      "\nThe key comes from CASTELLAN_API_KEY (or VLLM_API_KEY). In the chat: /reset forgets, /exit ends.",
    )
    .action(async (options) => finish(await (await import("./chat.ts")).runChat(options)));

  withConnection(program.command("bench"))
    .summary("send a load to a running server and print throughput and latencies")
    .option("--model <name>", "the model to load; the first one served without it")
    .option("--load <name>", "short, long-prompt, chat or mixed", "chat")
    .option("--concurrency <n>", "requests at once", Number, 8)
    .option("--requests <n>", "requests in all", Number, 64)
    .option("--max-tokens <n>", "tokens of each answer", Number, 64)
    .option("--seed <n>", "of the load", Number, 1)
    .option("--json", "print JSON")
    .addHelpText("after", "\nThe key comes from CASTELLAN_API_KEY (or VLLM_API_KEY).")
    .action(async (options) => finish(await (await import("./bench.ts")).runBench(options)));

  addKeysCommands(program, finish);
  addPolicyCommands(program, finish);
  auditCommands(program, finish);
  program
    .command("usage")
    .summary("print what was used, by day, key, tenant and model")
    .option("--by <groups>", "day, key, tenant, model, several with commas", "day")
    .option("--tenant <name>", "of this tenant only")
    .option("--key <id>", "of this key only")
    .option("--model <name>", "of this model only")
    .option("--from <day>", "first day of UTC, as 2026-11-25; the month's first without it")
    .option("--to <day>", "last day")
    .option("--json", "print JSON; cost in micro-dollars")
    .option("--csv", "print CSV")
    .option("--state-dir <path>", "the server's state directory, as for serve")
    .addHelpText("after", "\nWith CASTELLAN_DATABASE_URL set, as for serve, out of that database.")
    .action(async (options) => finish(await (await import("./usage.ts")).runUsage(options)));

  await program.parseAsync();
}

/** Their flags are the settings table's, and read by it. */
function serverCommands(program: Command, finish: (code: number) => void): void {
  program
    .command("serve")
    .summary("serve a model (castellan serve --help lists every flag)")
    .argument("[model]", "a GGUF file, or hf:org/repo[:file or quantisation]; the demo model without one")
    .helpOption(false)
    .allowUnknownOption()
    .allowExcessArguments()
    .action(async () => finish(await (await import("./serve.ts")).runServe(process.argv.slice(3))));

  program
    .command("run-batch")
    .summary("answer the requests of a JSONL file, without a server (castellan run-batch --help lists every flag)")
    .argument("[model]", "as for serve")
    .helpOption(false)
    .allowUnknownOption()
    .allowExcessArguments()
    .action(async () => finish(await (await import("./run-batch.ts")).runBatchCommand(process.argv.slice(3))));
}

function auditCommands(program: Command, finish: (code: number) => void): void {
  const audit = program.command("audit").summary("the record of who did what: verify it, look at it");
  const STATE_DIR = ["--state-dir <path>", "the server's state directory; as for serve without it"] as const;

  audit
    .command("verify")
    .summary("say whether the log is the one that was written, and where not")
    .argument("[dir]", "the log's folder; the server's own without it")
    .option(...STATE_DIR)
    .option("--public-key <file>", "the key that signed it (castellan audit key); the state directory's without it")
    .option("--head <hash>", "a head that you kept: the log must hold it")
    .option("--json", "print JSON")
    .addHelpText("after", "\nExit code 0: the log is whole. 1: it is not.")
    .action(async (dir, options) => finish(await (await import("./audit.ts")).runVerify(dir, options)));

  audit
    .command("tail")
    .summary("print the newest records")
    .option("-n, --lines <n>", "records at most", Number, 20)
    .option("-f, --follow", "go on with those that come, until Ctrl-C")
    .option("--tenant <name>", "of this tenant")
    .option("--key <id>", "of this key, token or user, or about it")
    .option("--route <path>", "of this route, as declared")
    .option("--status <status>", "with this status: 403, or 4xx")
    .option("--since <time>", "from this time on (2026-11-25T10:00Z), or of this age (10m, 2h, 1d)")
    .option("--dir <path>", "the log's folder; the server's own without it")
    .option(...STATE_DIR)
    .option("--json", "print JSON lines")
    .action(async (options) => finish(await (await import("./audit.ts")).runTail(options)));

  audit
    .command("head")
    .summary("print the last signed head, for somebody else to hold")
    .argument("[dir]", "the log's folder; the server's own without it")
    .option(...STATE_DIR)
    .action(async (directory, options) =>
      finish(await (await import("./audit.ts")).runHead({ directory, ...options })),
    );

  audit
    .command("key")
    .summary("print the public key that checks the log's signatures")
    .option(...STATE_DIR)
    .action(async (options) => finish(await (await import("./audit.ts")).runKey(options)));
}

/** Where the server is, and how to know it; the files are curl's. */
function withConnection(command: Command): Command {
  return command
    .option("--url <url>", "where the server is", "http://127.0.0.1:8000")
    .option("--cacert <file>", "PEM: who may vouch for the server of an https URL, instead of the public authorities")
    .option("--cert <file>", "PEM: a client certificate to show")
    .option("--key <file>", "PEM: its key; in --cert without it");
}
