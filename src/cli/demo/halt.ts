/** Why the demo cannot go on, where that is no fault of the step it happened in. */
export class Halt extends Error {
  /** What to do about it. */
  readonly advice: string;

  constructor(message: string, advice: string) {
    super(message);
    this.advice = advice;
  }
}
