/** What a TPM tells: PCRs, NV, capabilities, random bytes. Each is asked for as often as it takes to get the whole. */
import { type Context, NONE } from './context.ts';
import { NO_RESPONSE, TpmError } from './error.ts';
import { readNumber } from './library.ts';
import { hierarchies } from './objects.ts';
import type { Esys, EsysHandle, PcrBank } from './types.ts';
import { createReader, pcrSelection, unsized } from './wire.ts';

type Reading = 'pcrRead' | 'nvRead' | 'getCapability' | 'getRandom' | 'shutdown';
type Pair = { property: number; value: number };
type Reader = ReturnType<typeof createReader>;

const none = [NONE, NONE, NONE] as const;

/** Rounds that an answer in parts may take; a TPM that wants more is not well. */
const MOST_ROUNDS = 128;

const never = (what: string) => new TpmError(NO_RESPONSE, `the TPM does not come to an end with ${what}`);

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
    throw never('a capability');
  };

  let nvBuffer: Promise<number> | undefined;
  /** Bytes that one TPM2_NV_Read may give. */
  const nvChunk = (): Promise<number> => {
    nvBuffer ??= getCapability(TPM_PROPERTIES, NV_BUFFER_MAX, 1).then(([found]) =>
      found?.property === NV_BUFFER_MAX ? Math.min(found.value, MOST_NV_BUFFER) : LEAST_NV_BUFFER,
    );
    nvBuffer.catch(() => {
      nvBuffer = undefined;
    });
    return nvBuffer;
  };

  const nvRead: Esys['nvRead'] = async (index) => {
    const handle = await nvHandle(context, index);
    if (handle === undefined) return undefined;
    try {
      const { attributes, size } = await nvPublic(context, handle);
      if (!(attributes & NV_WRITTEN)) return undefined;
      const chunk = await nvChunk();
      return await asReader(attributes, handle, async (reader) => {
        const content = new Uint8Array(size);
        for (let at = 0; at < size; ) {
          const part = await nvPart(context, reader, handle, Math.min(chunk, size - at), at);
          if (part.length === 0 || part.length > size - at) throw never('an NV index');
          content.set(part, at);
          at += part.length;
        }
        return content;
      });
    } finally {
      await exclusively(async (io) => io.quick('Esys_TR_Close', io.handle(handle))).catch(() => undefined);
    }
  };

  return {
    getCapability,
    nvRead,
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
        if (part.length === 0 || part.length > bytes - at) throw never('random bytes');
        random.set(part, at);
        at += part.length;
      }
      return random;
    },

    shutdown: (type) => exclusively((io) => io.call('Esys_Shutdown', ...none, type === 'state' ? 1 : 0)),
  };
}

/** TPM_CAP_TPM_PROPERTIES, TPM_PT_NV_BUFFER_MAX, and the bounds of the library and of the specification for it. */
const TPM_PROPERTIES = 0x06;
const NV_BUFFER_MAX = 0x12c;
const MOST_NV_BUFFER = 2048;
const LEAST_NV_BUFFER = 512;

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

/** TPMA_NV */
const NV_OWNERREAD = 1 << 17;
const NV_AUTHREAD = 1 << 18;
const NV_NO_DA = 1 << 25;
const NV_WRITTEN = 1 << 29;

/** TPM_RC_HANDLE for parameter 1, in whichever layer a resource manager sends it. */
const isNoSuchHandle = (error: unknown) => error instanceof TpmError && (error.code & 0xffff) === 0x18b;
/** TPM_RC_BAD_AUTH and TPM_RC_AUTH_FAIL, for session 1. */
const isWrongAuth = (error: unknown) => error instanceof TpmError && [0x9a2, 0x98e].includes(error.code & 0xffff);

function nvHandle({ exclusively }: Context, index: number): Promise<EsysHandle | undefined> {
  if (!Number.isInteger(index) || index < 0x01000000 || index > 0x01ffffff) {
    return Promise.reject(new TpmError(NO_RESPONSE, 'an NV index is a number from 0x01000000 to 0x01ffffff'));
  }
  return exclusively(async (io) => {
    const handle = io.cell();
    await io.call('Esys_TR_FromTPMPublic', index, ...none, handle);
    return readNumber(handle);
  }).catch((error: unknown) => {
    if (isNoSuchHandle(error)) return undefined;
    throw error;
  });
}

function nvPublic({ exclusively }: Context, handle: EsysHandle): Promise<{ attributes: number; size: number }> {
  return exclusively(async (io) => {
    const area = io.result();
    await io.call('Esys_NV_ReadPublic', handle, ...none, area, null);
    const reader = createReader(unsized(io.output('TPM2B_NV_PUBLIC', area)));
    reader.u32(); // nvIndex
    reader.u16(); // nameAlg
    const attributes = reader.u32();
    reader.sized(); // authPolicy
    return { attributes, size: reader.u16() };
  });
}

/**
 * Reads as the owner, and as the index itself where the owner may not or has a password. An index that counts wrong auth
 * values towards the lock-out is never asked with a guess.
 */
async function asReader<T>(
  attributes: number,
  index: EsysHandle,
  read: (reader: EsysHandle) => Promise<T>,
): Promise<T> {
  const byItself = Boolean(attributes & NV_AUTHREAD && attributes & NV_NO_DA);
  if (!(attributes & NV_OWNERREAD) && byItself) return read(index);
  try {
    return await read(hierarchies.owner);
  } catch (error) {
    if (byItself && isWrongAuth(error)) return read(index);
    throw error;
  }
}

function nvPart({ exclusively }: Context, reader: EsysHandle, handle: EsysHandle, length: number, offset: number) {
  return exclusively(async (io) => {
    const data = io.result();
    const sessions = io.sessions({ command: false, response: true }, [{ object: reader }]);
    await io.call('Esys_NV_Read', reader, handle, ...sessions, length, offset, data);
    return unsized(io.output('TPM2B_MAX_NV_BUFFER', data));
  });
}

const pcrAt = (hash: number, pcr: number) => `${hash}/${pcr}`;

/** A TPM gives some of the PCRs at a time. If one is extended in between, the values would be of no one moment: again. */
async function pcrRead(
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
      await io.call('Esys_PCR_Read', ...none, io.input('TPML_PCR_SELECTION', pcrSelection(left)), updates, out, list);
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
  throw never('its PCRs');
}
