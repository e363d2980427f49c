/** Keys in this process's memory: for tests, and for agents that enrol anew at every start. */
import type { KeyObject } from 'node:crypto';
import type { SignatureAlgorithm } from '../../core/algorithms.ts';
import type { Signer } from '../../core/signer.ts';
import { AttestedError } from '../../errors.ts';
import { generatePrivateKey, signBytes, signerOf } from '../../platform/crypto.ts';
import { unavailable } from '../files/faults.ts';
import { assertLabel, assertSameAlgorithm, assertSignatureAlgorithm } from '../labels.ts';
import type { KeyProvider } from '../provider.ts';
import { memorySecrets } from '../secrets.ts';

interface HeldKey {
  alg: SignatureAlgorithm;
  publicJwk: Signer['publicJwk'];
  thumbprint: string;
  key: KeyObject;
}

export function openMemoryKeys(): KeyProvider {
  const held = new Map<string, HeldKey>();
  let closed = false;
  const assertOpen = () => {
    if (closed) throw unavailable('the key provider is closed');
  };

  function signerFor(label: string, entry: HeldKey): Signer {
    const { alg, publicJwk, thumbprint } = entry;
    return {
      alg,
      publicJwk: { ...publicJwk },
      thumbprint,
      async sign(data) {
        assertOpen();
        const now = held.get(label);
        // a label that was deleted and made again is another key, which this signer must not use
        if (now?.thumbprint !== thumbprint)
          throw new AttestedError('key_not_found', 'the key of this signer was deleted');
        return signBytes(alg, now.key, data);
      },
    };
  }

  return {
    kind: 'software',
    assurance: 'software',
    why: 'keys in the memory of this process, which end with it: nothing is written anywhere',

    async createKey({ label, alg = 'ES256' }) {
      assertOpen();
      assertLabel(label);
      assertSignatureAlgorithm(alg);
      let entry = held.get(label);
      if (entry === undefined) {
        const key = generatePrivateKey(alg);
        const { publicJwk, thumbprint } = signerOf(key, alg);
        entry = { alg, publicJwk, thumbprint, key };
        held.set(label, entry);
      }
      assertSameAlgorithm(entry.alg, alg);
      return signerFor(label, entry);
    },

    async getKey(label) {
      assertOpen();
      assertLabel(label);
      const entry = held.get(label);
      return entry && signerFor(label, entry);
    },

    async listKeys() {
      assertOpen();
      return [...held]
        .map(([label, { alg, thumbprint }]) => ({ label, alg, thumbprint }))
        .sort((a, b) => (a.label < b.label ? -1 : 1));
    },

    async deleteKey(label) {
      assertOpen();
      assertLabel(label);
      return held.delete(label);
    },

    secrets: memorySecrets(assertOpen),

    async close() {
      closed = true;
      held.clear();
    },
  };
}
