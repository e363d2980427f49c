/** Short ways to the keys that the binding's tests use. */

import { createPublicKey, verify } from 'node:crypto';
import { type CreatedObject, type Esys, type EsysHandle, openEsys } from '../../src/native/tpm2-tss/index.ts';
import { instanceKeyTemplate, jwsSignature, parsePublic, parseSignature, srkTemplate } from '../../src/tpm2/index.ts';
import { type Swtpm, type SwtpmOptions, startSwtpm } from '../support/swtpm.ts';

/** A TPM and a context on it, for as long as `use` runs. */
export async function withTpm<T>(use: (esys: Esys, tpm: Swtpm) => Promise<T>, options?: SwtpmOptions): Promise<T> {
  const tpm = await startSwtpm(options);
  try {
    const esys = await openEsys(tpm.tcti);
    try {
      return await use(esys, tpm);
    } finally {
      tpm.thaw();
      await esys.close();
    }
  } finally {
    await tpm.stop();
  }
}

export const bytes = (text: string): Uint8Array => new Uint8Array(Buffer.from(text));
export const hex = (value: Uint8Array): string => Buffer.from(value).toString('hex');

export const SHA256 = 0x000b;

/** A key under a transient storage root key that is gone again: two handles fewer. */
export async function newKey(
  esys: Esys,
  template: Uint8Array = instanceKeyTemplate('ES256'),
  options: { authValue?: Uint8Array; data?: Uint8Array } = {},
): Promise<{ handle: EsysHandle; object: CreatedObject }> {
  const srk = await esys.createPrimary('owner', srkTemplate());
  const object = await esys.create(srk.handle, template, options);
  const handle = await esys.load(srk.handle, object);
  await esys.flush(srk.handle);
  return { handle, object };
}

/** Does a TPMT_SIGNATURE over a text's SHA-256 digest check with the key of a TPM2B_PUBLIC? Asked of node:crypto. */
export function isSigned(text: string, signature: Uint8Array, tpm2bPublic: Uint8Array): boolean {
  const { publicJwk } = parsePublic(tpm2bPublic);
  const key = createPublicKey({ key: publicJwk as never, format: 'jwk' });
  const raw = jwsSignature(parseSignature(signature), 'ES256');
  return verify('sha256', bytes(text), { key, dsaEncoding: 'ieee-p1363' }, raw);
}

/** Handles of one kind that the TPM holds now. */
export async function handles(esys: Esys, first: number): Promise<number[]> {
  return (await esys.getCapability(0x01, first, 64)).map(({ value }) => value);
}
export const TRANSIENT = 0x80000000;
export const LOADED_SESSION = 0x02000000;
