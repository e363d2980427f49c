/** TPML_PCR_SELECTION: which PCRs of which banks, in order (TPM 2.0 Part 2 §10.6.2, §10.9.7). */
import { AttestedError } from '../errors.ts';
import { type HashName, hashes, hashesById } from './algorithms.ts';
import { concat, type Reader, u8, u16, u32 } from './wire.ts';

/** One bank of a selection; PCR numbers ascend. */
export interface SelectedBank {
  bank: HashName;
  pcrs: readonly number[];
}
/** In the order in which the TPM digests it. */
export type PcrSelectionList = readonly SelectedBank[];

const MAX_BANKS = 16;
/** Four bytes of bits: a TPM has 24 PCRs, or up to 32. */
const MAX_SELECT_BYTES = 4;
/** What PC Client TPMs take, neither more nor less. */
const USUAL_SELECT_BYTES = 3;

/** @throws AttestedError `tpm_malformed` also for a bank that is named twice: which PCRs it means would be open to argument */
export function readPcrSelection(reader: Reader): PcrSelectionList {
  const banks: SelectedBank[] = [];
  for (let left = reader.count(MAX_BANKS); left > 0; left--) {
    const bank = reader.id(hashesById, 'a PCR bank').name;
    if (banks.some((row) => row.bank === bank)) reader.fail('a PCR bank is named twice');
    const size = reader.u8();
    if (size > MAX_SELECT_BYTES) reader.fail('more PCRs than a TPM has');
    banks.push({ bank, pcrs: numbersOf(reader.take(size)) });
  }
  return banks;
}

/** The numbers of the bits that are set, lowest bit of the first byte first. */
function numbersOf(bits: Uint8Array): number[] {
  return Array.from({ length: bits.length * 8 }, (_, pcr) => pcr).filter(
    (pcr) => ((bits[pcr >> 3] as number) >> (pcr & 7)) & 1,
  );
}

/** Writes a selection. @throws AttestedError `invalid_argument` for a number that is no PCR's */
export function encodePcrSelection(selection: PcrSelectionList): Uint8Array {
  const banks = selection.map(({ bank, pcrs }) => {
    if (!pcrs.every((pcr) => Number.isInteger(pcr) && pcr >= 0 && pcr < MAX_SELECT_BYTES * 8)) {
      throw new AttestedError('invalid_argument', 'PCR numbers go from 0 to 31');
    }
    const bits = new Uint8Array(
      pcrs.some((pcr) => pcr >= USUAL_SELECT_BYTES * 8) ? MAX_SELECT_BYTES : USUAL_SELECT_BYTES,
    );
    for (const pcr of pcrs) bits[pcr >> 3] = (bits[pcr >> 3] as number) | (1 << (pcr & 7));
    return concat(u16(hashes[bank].id), u8(bits.length), bits);
  });
  return concat(u32(banks.length), ...banks);
}
