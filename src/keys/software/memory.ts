/** Keys in this process's memory: for tests, and for agents that enrol anew at every start. */
import type { KeyObject } from 'node:crypto';
import { generatePrivateKey, signBytes, signerOf } from '../../platform/crypto.ts';
import { type HeldKey, keepKeys, publicPartOf } from '../kept.ts';
import type { KeyProvider } from '../provider.ts';
import { memorySecrets } from '../secrets.ts';

interface KeyInMemory extends HeldKey {
  key: KeyObject;
}

export function openMemoryKeys(): KeyProvider {
  const held = new Map<string, KeyInMemory>();
  const { assertOpen, close, ...keys } = keepKeys<KeyInMemory>({
    read: async (label) => held.get(label),
    async make(label, alg) {
      const key = generatePrivateKey(alg);
      held.set(label, { part: publicPartOf(label, alg, signerOf(key, alg)), key });
    },
    remove: async (label) => held.delete(label),
    list: async () => [...held.values()].map(({ part: { label, alg, thumbprint } }) => ({ label, alg, thumbprint })),
    sign: ({ part, key }, data) => signBytes(part.alg, key, data),
    withLock: (job) => job(), // nobody else is here
  });
  return {
    kind: 'software',
    assurance: 'software',
    why: 'keys in the memory of this process, which end with it: nothing is written anywhere',
    ...keys,
    secrets: memorySecrets(assertOpen),
    async close() {
      await close();
      held.clear();
    },
  };
}
