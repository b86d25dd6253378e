/**
 * Whether a template walks over message content as a list of parts or prints it as a string.
 *
 * vLLM's `auto` (vllm/renderers/hf.py, detect_content_format) looks for a loop over `message['content']` or over a
 * variable set from it; so does this, macro parameters included.
 */
import type { Node } from "./_jinja.ts";
import type { ContentFormat } from "./_variables.ts";

export function detectContentFormat(program: Node): ContentFormat {
  const nodes = collect(program);
  const aliases = contentAliases(nodes);
  const loops = nodes.filter((node) => node.type === "For");
  return loops.some((loop) => holdsContent(loop.iterable, aliases)) ? "openai" : "string";
}

/** Every node, without recursion: a hostile template nests as deep as the parser lets it. */
function collect(program: Node): Node[] {
  const found: Node[] = [];
  const open: unknown[] = [program];
  while (open.length > 0) {
    const next = open.pop();
    if (Array.isArray(next)) for (const item of next) open.push(item);
    else if (next instanceof Map) for (const [key, value] of next) open.push(key, value);
    else if (typeof next === "object" && next !== null) {
      if (isNode(next)) found.push(next);
      for (const child of Object.values(next)) if (typeof child === "object") open.push(child);
    }
  }
  return found;
}

function isNode(value: unknown): value is Node {
  return typeof value === "object" && value !== null && typeof (value as Node).type === "string";
}

/** Variables and macro parameters that hold a message's content; two rounds, for a macro given a set variable. */
function contentAliases(nodes: readonly Node[]): Set<string> {
  const macros = new Map<string, Node>();
  for (const node of nodes) if (node.type === "Macro") macros.set((node.name as Node).value as string, node);
  const aliases = new Set<string>();
  for (let round = 0; round < 2; round++) {
    for (const node of nodes) {
      if (node.type === "Set" && isNode(node.value) && holdsContent(node.value, aliases))
        addName(aliases, node.assignee);
      if (node.type === "CallExpression") aliasParameters(node, macros, aliases);
    }
  }
  return aliases;
}

function aliasParameters(call: Node, macros: ReadonlyMap<string, Node>, aliases: Set<string>): void {
  const callee = call.callee as Node;
  const macro = callee.type === "Identifier" ? macros.get(callee.value as string) : undefined;
  if (!macro) return;
  const parameters = macro.args as readonly Node[];
  (call.args as readonly Node[]).forEach((arg, index) => {
    if (holdsContent(arg, aliases)) addName(aliases, parameters[index]);
  });
}

function addName(aliases: Set<string>, node: unknown): void {
  if (!isNode(node)) return;
  if (node.type === "Identifier") aliases.add(node.value as string);
  if (node.type === "KeywordArgumentExpression") addName(aliases, node.key);
}

/** `x.content`, `x['content']`, an alias; also behind a filter, a slice test or a ternary. */
function holdsContent(node: unknown, aliases: ReadonlySet<string>): boolean {
  if (!isNode(node)) return false;
  switch (node.type) {
    case "Identifier":
      return aliases.has(node.value as string);
    case "MemberExpression":
      return (node.property as Node).value === "content";
    case "FilterExpression":
      return holdsContent(node.operand, aliases);
    case "SelectExpression":
      return holdsContent(node.lhs, aliases);
    case "Ternary":
      return holdsContent(node.trueExpr, aliases) || holdsContent(node.falseExpr, aliases);
    default:
      return false;
  }
}
