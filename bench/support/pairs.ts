/** Paired measurement: candidates run in turn in small rounds, and what is reported is the median of per-round ratios. */

export interface Candidate {
  name: string;
  /** Makes the inputs of one round; not timed. */
  prepare?: (operations: number) => void | Promise<void>;
  /** One round of so many operations; timed, unless it gives the microseconds that it took by its own clock. */
  // biome-ignore lint/suspicious/noConfusingVoidType: most candidates give nothing
  run: (operations: number) => void | number | Promise<void | number>;
}

export interface Row {
  name: string;
  /** Median microseconds per operation. */
  microseconds: number;
  /** Median of (baseline time / own time) over the rounds: 1 = as fast as the baseline. */
  ratio: number;
}

export interface PairOptions {
  rounds?: number;
  operations?: number;
  /** Rounds before those that count. */
  warmUp?: number;
}

/** Measures candidates against the first of them. A machine that slows down for a while slows all of a round down. */
export async function comparePairs(
  candidates: readonly Candidate[],
  { rounds = 200, operations = 40, warmUp = 20 }: PairOptions = {},
): Promise<Row[]> {
  const times = candidates.map(() => [] as number[]);
  for (let round = -warmUp; round < rounds; round++) {
    for (const [i, { prepare, run }] of candidates.entries()) {
      await prepare?.(operations);
      globalThis.gc?.(); // the garbage of the preparation is not the candidate's
      const start = process.hrtime.bigint();
      const told = await run(operations);
      const elapsed = (told ?? Number(process.hrtime.bigint() - start) / 1000) / operations;
      if (round >= 0) times[i]?.push(elapsed); // the first rounds warm up
    }
  }
  const baseline = times[0] as number[];
  return candidates.map(({ name }, i) => {
    const own = times[i] as number[];
    return { name, microseconds: median(own), ratio: median(own.map((time, k) => (baseline[k] as number) / time)) };
  });
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] as number;
}

const TRIES = 3;

/** Measures until the target is met: other programs on the machine can spoil a measure, and none can embellish it. */
export async function bestOf(measure: () => Promise<boolean>): Promise<boolean> {
  for (let attempt = 1; attempt <= TRIES; attempt++) if (await measure()) return true;
  return false;
}

/** Prints rows as a table, with the target where one is set. Gives false when a target is missed. */
export function report(title: string, rows: readonly Row[], targets: Readonly<Record<string, number>> = {}): boolean {
  console.log(`\n${title}`);
  let met = true;
  for (const { name, microseconds, ratio } of rows) {
    const target = targets[name];
    const verdict = target === undefined ? '' : ratio >= target ? `  ≥ ${target} met` : `  ≥ ${target} MISSED`;
    if (target !== undefined && ratio < target) met = false;
    console.log(
      `  ${name.padEnd(58)} ${microseconds.toFixed(1).padStart(8)} µs  ${ratio.toFixed(3).padStart(7)}×${verdict}`,
    );
  }
  return met;
}

/** Prints one measure that has an upper limit. Gives false when it is above. */
export function reportAtMost(name: string, value: number, limit: number, unit: string, remark = ''): boolean {
  const met = value <= limit;
  const verdict = `≤ ${limit} ${unit} ${met ? 'met' : 'MISSED'}`;
  console.log(`  ${name.padEnd(58)} ${value.toFixed(1).padStart(8)} ${unit}  ${verdict}${remark && `  (${remark})`}`);
  return met;
}
