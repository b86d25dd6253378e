/**
 * What one rendering may cost. Steps are counted inside the interpreter, so a template cannot hang the process:
 * every expression costs one step, and operations on long values cost steps in proportion to their size.
 * The wall clock is the second line, for costs that the steps misjudge.
 */

export interface TemplateLimits {
  /** Characters of template source. */
  readonly maxSourceChars: number;
  /** Interpreter steps a rendering; a step takes about 0.2 µs. */
  readonly maxSteps: number;
  /** UTF-16 units of any string that the template makes, the output included. */
  readonly maxChars: number;
  /** Entries of any list that the template makes. */
  readonly maxItems: number;
  /** Milliseconds a rendering. */
  readonly maxMillis: number;
}

export const DEFAULT_TEMPLATE_LIMITS: TemplateLimits = {
  maxSourceChars: 512 * 1024,
  maxSteps: 4_000_000,
  maxChars: 32 * 1024 * 1024,
  maxItems: 200_000,
  maxMillis: 2_000,
};

/** The template wants more than it may have. */
export class TemplateLimitError extends Error {}

// performance.now() costs about a tenth of this many steps.
const CLOCK_EVERY = 4096;

export class Budget {
  readonly limits: TemplateLimits;
  private stepsLeft: number;
  private nextClock: number;
  private readonly deadline: number;

  constructor(limits: TemplateLimits) {
    this.limits = limits;
    this.stepsLeft = limits.maxSteps;
    this.nextClock = limits.maxSteps - CLOCK_EVERY;
    this.deadline = performance.now() + limits.maxMillis;
  }

  get used(): number {
    return this.limits.maxSteps - this.stepsLeft;
  }

  charge(steps: number): void {
    this.stepsLeft -= steps;
    if (this.stepsLeft < this.nextClock) this.look();
  }

  private look(): void {
    if (this.stepsLeft < 0) throw new TemplateLimitError("the chat template takes too many steps");
    this.nextClock = this.stepsLeft - CLOCK_EVERY;
    if (performance.now() > this.deadline) throw new TemplateLimitError("the chat template takes too long");
  }

  chars(length: number): void {
    if (length > this.limits.maxChars) throw new TemplateLimitError("the chat template makes too much text");
  }

  items(length: number): void {
    if (length > this.limits.maxItems) throw new TemplateLimitError("the chat template makes too long a list");
  }
}
