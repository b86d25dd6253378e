/**
 * Two of the same server on one port, one a core: `--reuse-port`, a state directory each. Ends them with itself.
 *
 *   node pair.ts ARGUMENTS ARGUMENTS     (each a JSON list: what Node hears)
 */
import { spawn } from "node:child_process";

const children = process.argv
  .slice(2)
  .map((args, core) =>
    spawn("taskset", ["-c", String(core), process.execPath, ...(JSON.parse(args) as string[])], { stdio: "inherit" }),
  );
process.on("SIGTERM", () => {
  for (const child of children) child.kill("SIGTERM");
});
