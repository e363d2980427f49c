/** The content of NV indexes, in parts of what the TPM reads at once. */
import { TPM_CAP } from './capabilities.ts';
import { readNumber } from './cells.ts';
import { type Context, NONE } from './context.ts';
import { NO_RESPONSE, TpmError } from './error.ts';
import { hierarchies } from './objects.ts';
import { endless } from './rounds.ts';
import type { Esys, EsysHandle } from './types.ts';
import { createReader, unsized } from './wire.ts';

const none = [NONE, NONE, NONE] as const;

/** TPM_PT_NV_BUFFER_MAX, and the bounds of the library and of the specification for it. */
const NV_BUFFER_MAX = 0x12c;
const MOST_NV_BUFFER = 2048;
const LEAST_NV_BUFFER = 512;

export function createNvReader(context: Context, getCapability: Esys['getCapability']): Esys['nvRead'] {
  const { exclusively } = context;
  let nvBuffer: Promise<number> | undefined;
  /** Bytes that one TPM2_NV_Read may give. */
  const nvChunk = (): Promise<number> => {
    nvBuffer ??= getCapability(TPM_CAP.TPM_PROPERTIES, NV_BUFFER_MAX, 1).then(([found]) =>
      found?.property === NV_BUFFER_MAX ? Math.min(found.value, MOST_NV_BUFFER) : LEAST_NV_BUFFER,
    );
    nvBuffer.catch(() => {
      nvBuffer = undefined;
    });
    return nvBuffer;
  };

  return async (index) => {
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
          if (part.length === 0 || part.length > size - at) throw endless('an NV index');
          content.set(part, at);
          at += part.length;
        }
        return content;
      });
    } finally {
      await exclusively(async (io) => io.quick('Esys_TR_Close', io.handle(handle))).catch(() => undefined);
    }
  };
}

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
