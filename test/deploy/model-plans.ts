/**
 * What a configuration file says about models and upstreams, judged as a start judges it; for files whose secrets are not
 * here: a key in a file of the test's own stands for each.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { type ModelPlan, modelPlan } from "#app/upstream-models.ts";
import { resolveSettings } from "#config/resolve.ts";

/** @param folder of the test's own */
export function modelPlanOf(text: string, folder: string): ModelPlan {
  const [config, key] = [join(folder, "plan.yaml"), join(folder, "plan.key")];
  writeFileSync(key, "a-key-of-the-test\n", { mode: 0o600 });
  writeFileSync(config, text.replace(/^(\s*(?:upstream-)?key-file: ).*$/gm, `$1${key}`));
  return modelPlan(resolveSettings(["--config", config], {}).settings);
}
