import { type KeyProvider, openKeys } from 'attested/keys';
import { signatureAlgorithms } from '../../src/core/algorithms.ts';
import { openFileKeys } from '../../src/keys/software/files.ts';
import { describeKeyProvider, type OpenedForTest } from '../contract/key-provider.ts';
import { machineWithId, machineWithoutId, makePlace, type Place } from './places.ts';

async function inPlace(open: (place: Place) => Promise<KeyProvider>): Promise<OpenedForTest> {
  const place = await makePlace();
  return { provider: await open(place), reopen: () => open(place), dispose: place.dispose };
}

describeKeyProvider(
  'memory',
  async () => ({ provider: await openKeys('software'), dispose: async () => undefined }),
  signatureAlgorithms,
);

describeKeyProvider(
  'files under a passphrase',
  // the least cost that is accepted: the suite opens a store for every test
  () => inPlace(({ directory }) => openKeys('software', { directory, passphrase: 'correct horse', scryptLog2N: 14 })),
  signatureAlgorithms,
);

describeKeyProvider(
  'files under a given machine secret',
  () => inPlace(({ directory }) => openKeys('software', { directory, machineSecret: Buffer.alloc(32, 7) })),
  signatureAlgorithms,
);

describeKeyProvider(
  'files under the machine id',
  () =>
    inPlace(async ({ root, directory }) =>
      openFileKeys(directory, {}, await machineWithId(root, '0123456789abcdef0123456789abcdef')),
    ),
  signatureAlgorithms,
);

describeKeyProvider(
  'files under a secret file, with room for one key in memory',
  () => inPlace(({ root, directory }) => openFileKeys(directory, { maxLoadedKeys: 1 }, machineWithoutId(root))),
  signatureAlgorithms,
);
