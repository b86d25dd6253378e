/**
 * Builds dist/: plain JavaScript for the published package. Node strips the types, just as it does when it runs the
 * sources, so what is published is what was tested; relative imports get .js endings, and `#area/file.ts` imports stay
 * as they are and are mapped by dist/package.json. Tests and their fakes are left out.
 */
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { stripTypeScriptTypes } from "node:module";
import { dirname, join, relative, resolve } from "node:path";
import { AREAS } from "./layers.ts";

const root = resolve(import.meta.dirname, "..");
const [src, dist] = [join(root, "src"), join(root, "dist")];
const NOT_PUBLISHED = /\.(test|contract)\.ts$|\/_(fake|scripted|fixture)[^/]*\.ts$/;
const RELATIVE_IMPORT = /((?:from|import)\s*\(?\s*"\.\/[^"]+)\.ts"/g;

rmSync(dist, { recursive: true, force: true });
const files = readdirSync(src, { recursive: true, withFileTypes: true })
  .filter((entry) => entry.isFile() && entry.name.endsWith(".ts"))
  .map((entry) => join(entry.parentPath, entry.name))
  .filter((file) => !NOT_PUBLISHED.test(file));
if (files.length === 0) throw new Error("there is nothing to build");
for (const file of files) {
  const target = join(dist, relative(src, file)).replace(/\.ts$/, ".js");
  mkdirSync(dirname(target), { recursive: true });
  const code = stripTypeScriptTypes(readFileSync(file, "utf8"), { mode: "strip" });
  writeFileSync(target, code.replace(RELATIVE_IMPORT, '$1.js"'));
}
const imports = Object.fromEntries(AREAS.map((area) => [`#${area}/*.ts`, `./${area}/*.js`]));
writeFileSync(join(dist, "package.json"), `${JSON.stringify({ type: "module", imports }, null, 2)}\n`);
console.log(`build: ${files.length} files in dist/`);
