/** The values of PCRs, all of one moment. */
import { readNumber } from './cells.ts';
import { type Context, NONE } from './context.ts';
import { endless, MOST_ROUNDS } from './rounds.ts';
import type { Esys, PcrBank } from './types.ts';
import { createReader, pcrSelection } from './wire.ts';

const pcrAt = (hash: number, pcr: number) => `${hash}/${pcr}`;

/** A TPM gives some of the PCRs at a time. If one is extended in between, the values would be of no one moment: again. */
export async function pcrRead(
  { exclusively }: Context,
  selection: readonly PcrBank[],
): Promise<Awaited<ReturnType<Esys['pcrRead']>>> {
  const values = new Map<string, Uint8Array>();
  let left = selection;
  let moment: number | undefined;
  for (let round = 0; round < MOST_ROUNDS; round++) {
    const { counter, given, digests } = await exclusively(async (io) => {
      const updates = io.cell();
      const out = io.result();
      const list = io.result();
      await io.call(
        'Esys_PCR_Read',
        NONE,
        NONE,
        NONE,
        io.input('TPML_PCR_SELECTION', pcrSelection(left)),
        updates,
        out,
        list,
      );
      const reader = createReader(io.output('TPML_DIGEST', list));
      return {
        counter: readNumber(updates),
        given: createReader(io.output('TPML_PCR_SELECTION', out)).pcrSelection(),
        digests: Array.from({ length: reader.u32() }, () => reader.sized()),
      };
    });
    if (moment !== undefined && counter !== moment) {
      values.clear();
      left = selection;
      moment = undefined;
      continue;
    }
    moment = counter;
    const names = given.flatMap(({ hash, pcrs }) => pcrs.map((pcr) => pcrAt(hash, pcr)));
    digests.forEach((digest, at) => {
      const name = names[at];
      if (name !== undefined) values.set(name, digest);
    });
    left = selection
      .map(({ hash, pcrs }) => ({ hash, pcrs: pcrs.filter((pcr) => !values.has(pcrAt(hash, pcr))) }))
      .filter(({ pcrs }) => pcrs.length > 0);
    // What a TPM leaves out when it gives nothing at all is in a bank that it does not have.
    if (left.length === 0 || digests.length === 0) {
      return selection.map(({ hash, pcrs }) => ({
        hash,
        values: new Map(
          pcrs.flatMap((pcr) => {
            const value = values.get(pcrAt(hash, pcr));
            return value ? [[pcr, value] as const] : [];
          }),
        ),
      }));
    }
  }
  throw endless('its PCRs');
}
