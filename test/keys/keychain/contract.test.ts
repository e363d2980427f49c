import { openKeys } from 'attested/keys';
import { afterAll, beforeAll, describe } from 'vitest';
import { signatureAlgorithms } from '../../../src/core/algorithms.ts';
import { describeKeyProvider } from '../../contract/key-provider.ts';
import { type Keyring, skipKeychain, startKeyring } from '../../support/keyring.ts';
import { makePlace } from '../places.ts';

describe.skipIf(skipKeychain)('in a real keychain', () => {
  let keyring: Keyring;
  beforeAll(async () => {
    keyring = await startKeyring();
    Object.assign(process.env, keyring.env); // of this test file's own process
  });
  afterAll(() => keyring?.stop());

  describeKeyProvider(
    'keychain',
    async () => {
      const { directory, dispose } = await makePlace();
      const open = () => openKeys('keychain', { directory });
      return {
        provider: await open(),
        reopen: open,
        async dispose() {
          const keys = await open();
          for (const { label } of await keys.listKeys()) await keys.deleteKey(label);
          await keys.close();
          await dispose();
        },
      };
    },
    signatureAlgorithms,
  );
});
