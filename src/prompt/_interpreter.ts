/**
 * The Jinja interpreter under guard: every evaluation is counted, and every string remembers who wrote it.
 *
 * It extends @huggingface/jinja's interpreter and keeps its results; two things are added.
 * - Budget: each node, block, filter and operation on long values is charged before it runs, and what would make
 *   a huge value is measured first.
 * - Provenance (Wall: T04, special tokens): a string that the package makes is the client's unless this file derives
 *   otherwise, exactly. So an operation nobody thought of loses a special token; it never grants one.
 * Callers: template.ts only. One instance renders once.
 */
import { type Budget, TemplateLimitError } from "./_budget.ts";
import {
  BaseInterpreter,
  isList,
  isMap,
  isString,
  type Node,
  newString,
  newUndefined,
  type Scope,
  type StringLike,
  type Value,
} from "./_jinja.ts";
import { clientRuns, isTrusted, RunBuilder, type Runs, sliceRuns, trustedRuns } from "./_provenance.ts";

// Each level is a few JavaScript frames of about 200 bytes; the default stack holds some 10,000.
const MAX_DEPTH = 500;
const MAX_VALUE_DEPTH = 128;
const MAX_INDENT = 64;
// `and` and `or` are lazy and stay with the package; the rest works on numbers only.
const GUARDED_OPERATORS = new Set(["+", "~", "==", "!=", "in", "not in"]);
const NUMERIC = new Set(["IntegerValue", "FloatValue", "BooleanValue"]);
const TRIMS = new Set(["trim", "strip", "lstrip", "rstrip"]);
const CASES = new Set(["upper", "lower", "title", "capitalize"]);

/** A node that stands for a value already at hand, so that the package's own code can go on with it. */
interface Evaluated extends Node {
  readonly type: "Evaluated";
  readonly held: Value;
}

function evaluated(held: Value): Evaluated {
  return { type: "Evaluated", held };
}

interface ForFrame {
  readonly node: Node;
  readonly parts: Value[];
}

export class GuardedInterpreter extends BaseInterpreter {
  private readonly budget: Budget;
  private readonly sourceLength: number;
  private readonly provenance = new WeakMap<Value, Runs>();
  private readonly loops: ForFrame[] = [];
  private depth = 0;

  constructor(scope: Scope, budget: Budget, sourceLength: number) {
    super(scope);
    this.budget = budget;
    this.sourceLength = sourceLength;
  }

  /** Vouches for the whole string: it is the template's. */
  trust<T extends Value>(value: T): T {
    if (isString(value)) this.provenance.set(value, trustedRuns(value.value.length));
    return value;
  }

  runsOf(value: StringLike): Runs {
    return this.provenance.get(value) ?? clientRuns(value.value.length);
  }

  override evaluate(node: Node | undefined, scope: Scope): Value {
    if (node === undefined) return super.evaluate(node, scope);
    if (node.type === "Evaluated") return (node as Evaluated).held;
    if (++this.depth > MAX_DEPTH) throw new TemplateLimitError("the chat template nests too deeply");
    this.budget.charge(1);
    try {
      const value = this.evaluateNode(node, scope);
      this.chargeSize(value);
      return value;
    } finally {
      this.depth--;
    }
  }

  private evaluateNode(node: Node, scope: Scope): Value {
    switch (node.type) {
      case "StringLiteral":
        return this.trust(super.evaluate(node, scope));
      case "BinaryExpression":
        return this.binary(node, scope);
      case "Macro":
      case "CallStatement":
        // The package walks the whole body to see which arguments it names.
        this.budget.charge(16 + (this.sourceLength >> 4));
        return super.evaluate(node, scope);
      default:
        return super.evaluate(node, scope);
    }
  }

  /** Whoever gets a value may walk it: that is paid here. */
  private chargeSize(value: Value): void {
    if (isString(value)) this.budget.charge(value.value.length >> 8);
    else if (isList(value)) this.budget.charge(value.value.length >> 3);
    else if (isMap(value)) this.budget.charge(value.value.size >> 3);
  }

  override evaluateIdentifier(node: Node, scope: Scope): Value {
    const name = node.value as string;
    for (let at: Scope | undefined = scope; at; at = at.parent) {
      const value = at.variables.get(name);
      if (value !== undefined) return value;
    }
    return newUndefined();
  }

  // Operators ---------------------------------------------------------------------------------------------------

  private binary(node: Node, scope: Scope): Value {
    const operator = (node.operator as { readonly value: string }).value;
    if (!GUARDED_OPERATORS.has(operator)) return super.evaluate(node, scope);
    const left = this.evaluate(node.left as Node, scope);
    const right = this.evaluate(node.right as Node, scope);
    const joins = operator === "+" || operator === "~";
    if (joins && isString(left) && isString(right)) return this.concat(left, right);
    if (joins && isList(left) && isList(right)) this.budget.items(left.value.length + right.value.length);
    else this.measureCoercion(left, right);
    this.chargeSearch(right, left);
    const held = { ...node, left: evaluated(left), right: evaluated(right) };
    const result = super.evaluate(held, scope);
    if (joins && isString(result)) this.deriveJoin(left, right, result);
    return result;
  }

  private concat(left: StringLike, right: StringLike): Value {
    this.budget.chars(left.value.length + right.value.length);
    const runs = new RunBuilder();
    runs.append(this.runsOf(left));
    runs.append(this.runsOf(right));
    return this.mark(newString(left.value + right.value), runs.runs());
  }

  /** `"a" ~ 1`: the string side is known, numbers are nobody's; lists and maps count as the client's. */
  private deriveJoin(left: Value, right: Value, result: StringLike): void {
    const runs = new RunBuilder();
    const length = result.value.length;
    const leftLength = isString(left)
      ? left.value.length
      : isString(right)
        ? length - right.value.length
        : String(left.value).length;
    for (const [side, size] of [[left, leftLength] as const, [right, length - leftLength] as const]) {
      if (isString(side)) runs.append(this.runsOf(side));
      else runs.add(size, NUMERIC.has(side.type));
    }
    this.mark(result, runs.runs());
  }

  /** JavaScript turns a list into text when it meets a string; a list that holds itself many times explodes. */
  private measureCoercion(left: Value, right: Value): void {
    if (isList(left) && !isList(right)) this.measure(left, 0);
    if (isList(right) && !isList(left)) this.measure(right, 0);
    if (left.type === "FunctionValue" || right.type === "FunctionValue") throw new Error("a function is not a value");
  }

  // Blocks ------------------------------------------------------------------------------------------------------

  override evaluateBlock(statements: readonly Node[], scope: Scope): Value {
    this.budget.charge(4);
    let text = "";
    const runs = new RunBuilder();
    for (const statement of statements) {
      const value = this.evaluate(statement, scope);
      if (value.type === "NullValue" || value.type === "UndefinedValue") continue;
      text += this.print(value, runs);
      this.budget.chars(text.length);
    }
    this.budget.charge(runs.runs().length >> 3);
    const block = this.mark(newString(text), runs.runs());
    const loop = this.loops.at(-1);
    if (loop && (statements === loop.node.body || statements === loop.node.defaultBlock)) loop.parts.push(block);
    return block;
  }

  private print(value: Value, runs: RunBuilder): string {
    if (isString(value)) {
      runs.append(this.runsOf(value));
      return value.value;
    }
    if (value.type === "FunctionValue") throw new Error("a function cannot be printed");
    if (isList(value) || isMap(value)) this.measure(value, 0);
    const text = value.toString();
    runs.add(text.length, NUMERIC.has(value.type));
    return text;
  }

  /** The package joins the loop's bodies itself, so their runs are collected on the way. */
  override evaluateFor(node: Node, scope: Scope): Value {
    const frame: ForFrame = { node, parts: [] };
    this.loops.push(frame);
    try {
      const result = super.evaluateFor(node, scope);
      const runs = new RunBuilder();
      let length = 0;
      for (const part of frame.parts as StringLike[]) {
        runs.append(this.runsOf(part));
        length += part.value.length;
      }
      if (isString(result) && result.value.length === length) this.mark(result, runs.runs());
      return result;
    } finally {
      this.loops.pop();
    }
  }

  // Calls, slices, filters --------------------------------------------------------------------------------------

  override evaluateCallExpression(node: Node, scope: Scope): Value {
    const callee = node.callee as Node;
    if (callee.type !== "MemberExpression" || callee.computed === true)
      return super.evaluateCallExpression(node, scope);
    const object = this.evaluate(callee.object as Node, scope);
    const name = (callee.property as Node).value as string;
    this.charge(object);
    const args = (node.args as readonly Node[]).map((arg) =>
      arg.type.startsWith("Keyword") || arg.type === "SpreadExpression" ? arg : evaluated(this.evaluate(arg, scope)),
    );
    const values = args.map(heldOf);
    for (const value of values) if (value) this.chargeSearch(object, value);
    if (name === "replace" && isString(object)) this.measureReplace(object, values);
    const held = { ...node, args, callee: { ...callee, object: evaluated(object) } };
    const result = super.evaluateCallExpression(held, scope);
    return args.length === 0 ? this.derive(object, name, result) : result;
  }

  override evaluateSliceExpression(object: Value, node: Node, scope: Scope): Value {
    // The package spreads a string into code points first.
    if (isString(object)) this.budget.charge(object.value.length >> 3);
    const result = super.evaluateSliceExpression(object, node, scope);
    return isString(object) && isTrusted(this.runsOf(object)) ? this.trust(result) : result;
  }

  override applyFilter(operand: Value, filter: Node, scope: Scope): Value {
    const call = filter.type === "CallExpression";
    const name = (call ? (filter.callee as Node).value : filter.value) as string;
    const [args, named] = call ? this.evaluateArguments(filter.args as readonly Node[], scope) : [[], new Map()];
    this.charge(operand);
    if (name === "join" && isList(operand)) return this.join(operand.value, args[0] ?? named.get("separator"));
    this.measureFilter(operand, name, [...args, ...named.values()]);
    const result = super.applyFilter(operand, filter, scope);
    // `first` of an empty list is undefined in the package.
    return result === undefined ? newUndefined() : call ? result : this.derive(operand, name, result);
  }

  private charge(operand: Value): void {
    if (isString(operand)) this.budget.charge(operand.value.length >> 6);
    else if (isList(operand)) this.budget.charge(operand.value.length);
    else if (isMap(operand)) this.budget.charge(operand.value.size);
  }

  /** Searching is n · m in the worst case, over about 250 by the engine's shift table. */
  private chargeSearch(text: Value, needle: Value): void {
    if (isString(text) && isString(needle)) this.budget.charge((text.value.length * needle.value.length) / 64_000);
  }

  private join(items: readonly Value[], separator: Value | undefined): Value {
    const between = separator ?? newString("");
    if (!isString(between)) throw new Error("separator must be a string");
    const runs = new RunBuilder();
    const parts: string[] = [];
    let length = 0;
    items.forEach((item, index) => {
      if (index > 0) {
        parts.push(between.value);
        runs.append(this.runsOf(between));
      }
      const part = item.type === "NullValue" || item.type === "UndefinedValue" ? "" : this.print(item, runs);
      parts.push(part);
      length += part.length + between.value.length;
      this.budget.chars(length);
    });
    this.budget.charge((length >> 6) + runs.runs().length);
    return this.mark(newString(parts.join("")), runs.runs());
  }

  private measureFilter(operand: Value, name: string, args: readonly Value[]): void {
    const widths = args.filter((arg) => arg.type === "IntegerValue").map((arg) => arg.value as number);
    if (name === "tojson" || name === "string") {
      if (widths.some((width) => width > MAX_INDENT)) throw new TemplateLimitError("the chat template indents too far");
      this.measure(operand, Math.max(0, ...widths) + this.longest(args));
    } else if (name === "indent" && isString(operand)) {
      if (widths.some((width) => width > MAX_INDENT)) throw new TemplateLimitError("the chat template indents too far");
      this.budget.chars(operand.value.length * (1 + Math.max(4, ...widths)));
    } else if (name === "replace" && isString(operand)) {
      this.measureReplace(operand, args);
    } else if ((name === "sort" || name === "dictsort" || name === "unique") && (isList(operand) || isMap(operand))) {
      const items = isList(operand) ? operand.value : [...operand.value.values()];
      // Each comparison lowers both strings: n · log n · length.
      this.budget.charge(items.length * Math.ceil(Math.log2(items.length + 2)) * (1 + (this.longest(items) >> 6)));
    }
  }

  private measureReplace(operand: StringLike, args: readonly (Value | undefined)[]): void {
    const [from, to] = args;
    if (from === undefined || to === undefined || !isString(from) || !isString(to)) return;
    const places = operand.value.length / Math.max(1, from.value.length) + 1;
    this.budget.chars(operand.value.length + places * to.value.length);
    this.budget.charge((operand.value.length + places * to.value.length) >> 6);
  }

  private longest(items: readonly Value[]): number {
    let longest = 0;
    for (const item of items) {
      if (isString(item)) longest = Math.max(longest, item.value.length);
      else if (isList(item) || isMap(item))
        for (const inner of item.value.values()) longest = Math.max(longest, isString(inner) ? inner.value.length : 0);
    }
    return longest;
  }

  /** Counts what printing the value would make, and stops as soon as it is too much: a value may hold itself. */
  private measure(value: Value, indent: number): void {
    let chars = 0;
    const visit = (inner: Value, depth: number): void => {
      if (depth > MAX_VALUE_DEPTH) throw new TemplateLimitError("a value in the chat template nests too deeply");
      chars += 4 + indent * (depth + 1);
      if (isString(inner)) chars += inner.value.length;
      this.budget.chars(chars);
      this.budget.charge(1);
      if (isList(inner)) for (const item of inner.value) visit(item, depth + 1);
      else if (isMap(inner)) {
        for (const [key, item] of inner.value) {
          chars += key.length + 4;
          visit(item, depth + 1);
        }
      }
    };
    visit(value, 0);
    this.budget.charge(chars >> 6);
  }

  private mark<T extends Value>(value: T, runs: Runs): T {
    this.provenance.set(value, runs);
    return value;
  }

  /** What a function of one string and nothing else makes of it. */
  private derive(operand: Value, name: string, result: Value): Value {
    if (!isString(operand) || !isString(result) || result === operand) return result;
    const runs = this.runsOf(operand);
    if (CASES.has(name) && isTrusted(runs)) return this.trust(result);
    if (!TRIMS.has(name)) return result;
    const start = name === "rstrip" ? 0 : operand.value.length - operand.value.trimStart().length;
    return this.mark(result, sliceRuns(runs, start, start + result.value.length));
  }
}

function heldOf(node: Node): Value | undefined {
  return node.type === "Evaluated" ? (node as Evaluated).held : undefined;
}
