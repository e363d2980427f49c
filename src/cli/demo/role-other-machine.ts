/** The process of another machine: the attacker's own, or one that a copy of the agent's directory was brought to. */
import { randomBytes } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { decodeJwt } from 'jose';
import { createAgent } from '../../agent/index.ts';
import { type KeyProvider, openKeys } from '../../keys/index.ts';
import { openFileKeys } from '../../keys/software/files.ts';
import type { Machine } from '../../keys/software/machine-secret.ts';
import { forgetKeychain } from './keychain.ts';
import { CLIENTS, type Ending, type KeyChoice, type KeyPlace, type OtherMachineRole, type World } from './protocol.ts';

export async function otherMachineRole(): Promise<OtherMachineRole & Ending> {
  let world: World;
  let home: string;
  let here: Pick<KeyChoice, 'tcti' | 'keychainService'>;
  let usedKeychain = false;

  async function openCopied(directory: string, kind: KeyPlace['kind']): Promise<KeyProvider> {
    if (kind === 'software') return openFileKeys(directory, {}, await otherMachine(home));
    usedKeychain = kind === 'keychain';
    const { keychainService, tcti = NO_TPM } = here;
    return openKeys('auto', { directory, keychainService, tpm: { tcti } });
  }

  return {
    async configure(given, own) {
      world = given;
      home = join(world.directory, 'other-machine');
      const keychainService = `${world.keys.keychainService}-elsewhere`;
      here = { keychainService, ...own };
      await mkdir(home, { recursive: true });
    },
    async useCopy(directory, kind) {
      const keys = await openCopied(directory, kind);
      try {
        let signed = 0;
        for (const { label } of await keys.listKeys()) {
          const signer = await keys.getKey(label);
          await signer?.sign(randomBytes(32));
          signed++;
        }
        return signed;
      } finally {
        await keys.close();
      }
    },
    async enrol(kind, enrolmentToken) {
      const { tcti = NO_TPM } = here;
      const keys = await openKeys(kind, { directory: join(home, kind), tpm: { tcti } });
      try {
        let issued = '';
        const agent = await createAgent({
          clientId: CLIENTS.dpop_combined,
          keys,
          enrolmentToken,
          attester: {
            url: world.attester,
            async fetch(input, init) {
              const response = await fetch(input, init);
              const { attestation } = (await response.clone().json()) as { attestation?: string };
              issued = attestation ?? issued;
              return response;
            },
          },
        });
        await agent.rotate(world.mcp);
        await agent.close();
        return String(decodeJwt(issued).key_storage);
      } finally {
        await keys.close();
      }
    },
    async end() {
      if (usedKeychain) await forgetKeychain(here.keychainService);
    },
  };
}

/** What a machine without a TPM has in its place. */
const NO_TPM = 'device:/dev/no-tpm-here';

/** Another machine id, and another secret where there is no machine id. */
async function otherMachine(home: string): Promise<Machine> {
  const [idFile, secretFile] = [join(home, 'machine-id'), join(home, 'machine-secret')] as const;
  await writeFile(idFile, randomBytes(16).toString('hex'), { mode: 0o600 });
  await writeFile(secretFile, randomBytes(32), { mode: 0o600 });
  return { idFiles: [idFile], secretFile };
}
