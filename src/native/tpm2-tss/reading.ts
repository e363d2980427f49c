/** What a TPM tells of itself. Capabilities and random bytes are asked for as often as it takes to get the whole. */
import { type Context, NONE } from './context.ts';
import { NO_RESPONSE, TpmError } from './error.ts';
import { createNvReader } from './nv.ts';
import { pcrRead } from './pcrs.ts';
import { endless, MOST_ROUNDS } from './rounds.ts';
import type { Esys } from './types.ts';
import { createReader, unsized } from './wire.ts';

type Reading = 'pcrRead' | 'nvRead' | 'getCapability' | 'getRandom' | 'shutdown';
type Pair = { property: number; value: number };
type Reader = ReturnType<typeof createReader>;

const none = [NONE, NONE, NONE] as const;

export function readingCommands(context: Context): Pick<Esys, Reading> {
  const { exclusively } = context;

  /** One TPM2_GetCapability. */
  const page = (capability: number, property: number, count: number) =>
    exclusively(async (io) => {
      const more = io.cell();
      const data = io.result();
      await io.call('Esys_GetCapability', ...none, capability, property, count, more, data);
      const reader = createReader(io.output('TPMS_CAPABILITY_DATA', data));
      const parse = capabilities[reader.u32()];
      if (!parse) throw new TpmError(NO_RESPONSE, 'a capability that is not known here');
      return { pairs: Array.from({ length: reader.u32() }, () => parse(reader)), more: more[0] === 1 };
    });

  const getCapability: Esys['getCapability'] = async (capability, property, count) => {
    const pairs: Pair[] = [];
    let next = property;
    for (let round = 0; round < MOST_ROUNDS; round++) {
      const { pairs: found, more } = await page(capability, next, count - pairs.length);
      pairs.push(...found);
      const last = found.at(-1);
      if (!more || last === undefined || pairs.length >= count) return pairs.slice(0, count);
      next = last.property + 1;
    }
    throw endless('a capability');
  };

  return {
    getCapability,
    nvRead: createNvReader(context, getCapability),
    pcrRead: (selection) => pcrRead(context, selection),

    async getRandom(bytes) {
      if (!Number.isInteger(bytes) || bytes < 1 || bytes > 0xffff) {
        throw new TpmError(NO_RESPONSE, 'random bytes are asked for by a whole number from 1 to 65535');
      }
      const random = new Uint8Array(bytes);
      for (let at = 0; at < bytes; ) {
        const part = await exclusively(async (io) => {
          const some = io.result();
          await io.call('Esys_GetRandom', ...none, Math.min(bytes - at, MOST_RANDOM), some);
          return unsized(io.output('TPM2B_DIGEST', some));
        });
        if (part.length === 0 || part.length > bytes - at) throw endless('random bytes');
        random.set(part, at);
        at += part.length;
      }
      return random;
    },

    shutdown: (type) => exclusively((io) => io.call('Esys_Shutdown', ...none, type === 'state' ? 1 : 0)),
  };
}

/** A TPM gives at most a digest's length at once; this fits the smallest of them. */
const MOST_RANDOM = 32;

const one = (value: number): Pair => ({ property: value, value });
const bitmask = (bits: readonly number[]) => bits.reduce((mask, bit) => mask | (2 ** bit), 0) >>> 0;

/** One element of each TPM_CAP's list (TPMU_CAPABILITIES, Part 2 §10.10.1). */
const capabilities: Record<number, (reader: Reader) => Pair> = {
  0: (reader) => ({ property: reader.u16(), value: reader.u32() }), // algorithms: TPM_ALG_ID, TPMA_ALGORITHM
  1: (reader) => one(reader.u32()), // handles
  2: (reader) => commandCode(reader.u32()), // commands: TPM_CC, TPMA_CC
  3: (reader) => one(reader.u32()), // commands that need physical presence
  4: (reader) => one(reader.u32()), // audited commands
  5: (reader) => ({ property: reader.u16(), value: bitmask(reader.bits()) }), // PCR banks: TPM_ALG_ID, bit mask
  6: (reader) => ({ property: reader.u32(), value: reader.u32() }), // properties
  7: (reader) => ({ property: reader.u32(), value: bitmask(reader.bits()) }), // PCR properties: TPM_PT_PCR, bit mask
  8: (reader) => one(reader.u16()), // curves
};

/** commandIndex, and the bit of a vendor's command. */
const commandCode = (attributes: number): Pair => ({ property: attributes & 0x2000ffff, value: attributes });
