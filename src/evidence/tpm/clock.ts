/** Does a TPM's sense of time go forward? Pure. */

/** TPMS_CLOCK_INFO (TPM 2.0 Part 2 §10.11.1). */
export interface TpmClock {
  /** Milliseconds for which the TPM has run since it was last cleared. */
  clock: number;
  /** Modulo 2^32; for keys outside the endorsement and platform hierarchies with a secret offset, the same for one signer. */
  resetCount: number;
  restartCount: number;
  /** False after a loss of power, until the clock has passed all that it may have said before. */
  safe: boolean;
}

/**
 * Longest time between two writes of the clock to the TPM's memory, milliseconds (2^22, TPM 2.0 Part 1 §36.3): so much of
 * it a loss of power may cost.
 */
const CLOCK_MAY_LOSE = 2 ** 22;

/**
 * What a reset may do to the clock. `bounded`: what the specification says. `any`: it may go back however far, since
 * libtpms (swtpm, QEMU) writes it down at an orderly shutdown only, and calls it safe seconds after a loss of power.
 */
export type ClockAfterReset = 'bounded' | 'any';

/**
 * Is `now` from before `before`, by the same signer? Then the TPM's state was put back, as a snapshot of a virtual one is.
 *
 * @param slack milliseconds by which the clock may be behind while nothing was reset: requests overtake each other
 */
export function wentBack(
  now: TpmClock,
  before: Omit<TpmClock, 'safe'>,
  slack: number,
  afterReset: ClockAfterReset = 'bounded',
): boolean {
  const lost = before.clock - now.clock;
  const resets = forward(before.resetCount, now.resetCount);
  // a reset follows a loss of power, which may cost a part of the clock; nothing else may
  if (resets !== 0) return resets < 0 || (afterReset === 'bounded' && lost > (now.safe ? 0 : CLOCK_MAY_LOSE));
  return forward(before.restartCount, now.restartCount) < 0 || lost > slack;
}

/** The later of two readings by one signer. */
export function later<T extends Omit<TpmClock, 'safe'>>(a: T, b: T): T {
  const resets = forward(a.resetCount, b.resetCount);
  return resets > 0 || (resets === 0 && b.clock >= a.clock) ? b : a;
}

/** From a to b, as a signed number: counters are compared by their difference alone, since their offset is secret. */
function forward(a: number, b: number): number {
  return (b - a) | 0;
}
