/** How long a signature takes. */

const ROUNDS = 7;
const DATA = new TextEncoder().encode('attested doctor');

/** Median of a few, milliseconds; the first one, which may have to load the key, does not count. */
export async function signLatency(sign: (data: Uint8Array) => Promise<Uint8Array>): Promise<number> {
  await sign(DATA);
  const times: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const begun = performance.now();
    await sign(DATA);
    times.push(performance.now() - begun);
  }
  return Math.round((times.sort((a, b) => a - b)[ROUNDS >> 1] as number) * 1000) / 1000;
}
