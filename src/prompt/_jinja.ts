/**
 * The parts of @huggingface/jinja that its type declarations keep private, as this area uses them.
 *
 * The package is pinned to an exact version; `assertJinjaShape` fails at load if a method that the guarded
 * interpreter overrides has gone, because a guard that is never called is no guard.
 */
import { Environment, Interpreter } from "@huggingface/jinja";

/** A runtime value; `type` is its class name ("StringValue", "ArrayValue" …). */
export interface Value {
  readonly type: string;
  readonly value: unknown;
  toString(): string;
}

export interface StringLike extends Value {
  readonly value: string;
}

/** A node of the syntax tree: `type` and fields by node type. */
export interface Node {
  readonly type: string;
  readonly [field: string]: unknown;
}

export interface Scope {
  readonly parent?: Scope;
  readonly variables: Map<string, Value>;
  set(name: string, value: unknown): Value;
}

/** Methods of Interpreter.prototype; all recursion of the package goes through them. */
export interface InterpreterMethods {
  evaluate(node: Node | undefined, scope: Scope): Value;
  run(program: Node): Value;
  evaluateBlock(statements: readonly Node[], scope: Scope): Value;
  evaluateFor(node: Node, scope: Scope): Value;
  evaluateIdentifier(node: Node, scope: Scope): Value;
  evaluateCallExpression(node: Node, scope: Scope): Value;
  evaluateSliceExpression(object: Value, node: Node, scope: Scope): Value;
  evaluateArguments(args: readonly Node[], scope: Scope): [Value[], Map<string, Value>];
  applyFilter(operand: Value, filter: Node, scope: Scope): Value;
}

export const BaseInterpreter = Interpreter as unknown as new (scope: Scope) => InterpreterMethods;

export function newScope(): Scope {
  return new Environment() as unknown as Scope;
}

const probe = newScope();
const StringValue = probe.set("s", "").constructor as new (value: string) => StringLike;
const UndefinedValue = probe.set("u", undefined).constructor as new () => Value;

export function newString(value: string): StringLike {
  return new StringValue(value);
}

export function newUndefined(): Value {
  return new UndefinedValue();
}

export function isString(value: Value): value is StringLike {
  return value.type === "StringValue";
}

/** Lists and tuples. */
export function isList(value: Value): value is Value & { readonly value: readonly Value[] } {
  return Array.isArray(value.value);
}

export function isMap(value: Value): value is Value & { readonly value: ReadonlyMap<string, Value> } {
  return value.value instanceof Map;
}

const OVERRIDDEN = [
  "evaluate",
  "run",
  "evaluateBlock",
  "evaluateFor",
  "evaluateIdentifier",
  "evaluateCallExpression",
  "evaluateSliceExpression",
  "evaluateArguments",
  "applyFilter",
];

function assertJinjaShape(): void {
  const prototype = Interpreter.prototype as unknown as Record<string, unknown>;
  for (const name of OVERRIDDEN) {
    if (typeof prototype[name] !== "function") throw new Error(`@huggingface/jinja has no Interpreter.${name}`);
  }
}

assertJinjaShape();
