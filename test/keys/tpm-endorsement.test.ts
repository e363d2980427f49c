/** Which endorsement key a TPM is known by, where makers' certificates are odd. */
import { describe, expect, test } from 'vitest';
import type { Command } from '../../src/keys/tpm/commands.ts';
import { findEndorsementKey } from '../../src/keys/tpm/endorsement.ts';
import { ekCertificateIndexes, ekTemplate } from '../../src/tpm2/templates.ts';
import { issueEk, oaepSpki, rsaKeys } from '../support/ek-certificates.ts';
import { keyAround, softwareEk } from '../tpm2/forge.ts';

const publicArea = keyAround(rsaKeys.privateKey, ekTemplate('RSA-2048')).publicArea;

/** A TPM with one certificate in its NV, for its RSA endorsement key. */
function tpmWith(certificate: Uint8Array, area: Uint8Array): Command {
  const answers: Record<string, (argument: unknown) => unknown> = {
    nvRead: (index) => (index === ekCertificateIndexes['RSA-2048'] ? certificate : undefined),
    endorsementKey: () => area,
  };
  return (async (name: string, [argument]: unknown[]) => answers[name]!(argument)) as unknown as Command;
}

describe('the endorsement key that has a certificate', () => {
  test.each([
    ['as it should be', issueEk()],
    ['named for RSAES-OAEP', issueEk({ spki: oaepSpki(rsaKeys.publicKey) })],
  ])('is found where the key is %s', async (_how, { der }) => {
    const found = await findEndorsementKey(tpmWith(new Uint8Array(der), publicArea));
    expect(found.kind).toBe('RSA-2048');
    expect(Buffer.from(found.key.certificate!).equals(der)).toBe(true);
  });

  test('is not taken for another key', async () => {
    const other = softwareEk('RSA-2048').publicArea;
    for (const spki of [undefined, oaepSpki(rsaKeys.publicKey)]) {
      const { der } = issueEk({ spki });
      await expect(findEndorsementKey(tpmWith(new Uint8Array(der), other))).rejects.toMatchObject({
        code: 'key_store_unavailable',
      });
    }
  });
});
