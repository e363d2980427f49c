/** What a TPM proves about itself and the keys in it: the primitives of `tpm` evidence. */
import { readFile } from 'node:fs/promises';
import { AttestedError } from '../../errors.ts';
import type { EndorsementKey, PcrBankName, PcrValues, TpmDevice } from '../../tpm2/device.ts';
import { readNamedPcrs } from '../../tpm2/named-pcrs.ts';
import { akTemplate, ekTemplate } from '../../tpm2/templates.ts';
import { blobOnce } from './blob-files.ts';
import type { Command } from './commands.ts';
import { findEndorsementKey, policyOrBranches, sessionHash } from './endorsement.ts';
import { bankNameOf, banksOf } from './pcrs.ts';
import type { KeyReference } from './protocol.ts';
import { type KeyUse, referenceTo } from './references.ts';

const EVENT_LOG = '/sys/kernel/security/tpm0/binary_bios_measurements';

export interface DeviceOptions {
  command: Command;
  /** Private directory of the blobs. */
  directory: string;
  use: KeyUse;
  assertOpen: () => void;
  /** The key of a label; undefined when there is none. */
  keyOf: (label: string) => Promise<KeyReference | undefined>;
  /** Where the firmware's event log is; an argument for tests. */
  eventLog?: string;
}

export function createDevice(options: DeviceOptions): TpmDevice {
  const { command, directory, use, assertOpen, keyOf, eventLog = EVENT_LOG } = options;

  const endorsement = remembered(() => findEndorsementKey(command));
  const attestation = remembered(async () => {
    const blob = await blobOnce(directory, 'attestation', async () => {
      const made = await command('create', [{ template: akTemplate(), salted: use.salted }]);
      return { ...made, auth: false, pcrs: undefined };
    });
    // it signs only what the TPM itself says, so it needs no auth value
    return { area: blob.area.bytes, reference: referenceTo(blob, 'attestation key', use) };
  });

  return {
    async endorsementKey() {
      assertOpen();
      return copyOf((await endorsement()).key);
    },

    async attestationKey() {
      assertOpen();
      return Uint8Array.from((await attestation()).area);
    },

    async certify(label, extraData) {
      assertOpen();
      const ak = await attestation();
      const key = await keyOf(label);
      if (key === undefined) throw new AttestedError('key_not_found', 'there is no key of this label');
      const certified = await command('certify', [extraData], [key, ak.reference]);
      return { ...certified, publicArea: key.public.slice(2) };
    },

    async quote(selection, extraData) {
      assertOpen();
      const wanted = readNamedPcrs(selection);
      if (wanted === undefined)
        throw new AttestedError('invalid_argument', 'no PCR selection, such as { sha256: [7] }');
      const { values, ...quote } = await command(
        'quote',
        [extraData, banksOf(wanted)],
        [(await attestation()).reference],
      );
      const pcrs: PcrValues = {};
      for (const { hash, pcrs: read } of values) pcrs[bankNameOf(hash) as PcrBankName] = Object.fromEntries(read);
      for (const [bank, numbers] of Object.entries(wanted)) {
        if (!numbers.every((pcr) => pcrs[bank as PcrBankName]?.[pcr] !== undefined)) {
          throw new AttestedError('invalid_argument', `the TPM has no such PCRs in its ${bank} bank`);
        }
      }
      return { ...quote, pcrs };
    },

    async eventLog() {
      assertOpen();
      try {
        return new Uint8Array(await readFile(eventLog));
      } catch {
        return undefined; // no TPM of this machine's own, or not ours to read
      }
    },

    async activate(credentialBlob, encryptedSecret) {
      assertOpen();
      const { kind } = await endorsement();
      const request = { template: ekTemplate(kind), hash: sessionHash(kind), credentialBlob, secret: encryptedSecret };
      return command('activate', [{ ...request, ...policyOrBranches(kind) }], [(await attestation()).reference]);
    },
  };
}

function copyOf({ publicArea, certificate, chain }: EndorsementKey): EndorsementKey {
  return {
    publicArea: Uint8Array.from(publicArea),
    certificate: certificate && Uint8Array.from(certificate),
    chain: chain.map((each) => Uint8Array.from(each)),
  };
}

/** Asked once; asked again when it failed. */
function remembered<T>(ask: () => Promise<T>): () => Promise<T> {
  let answer: Promise<T> | undefined;
  return () => {
    answer ??= ask().catch((error: unknown) => {
      answer = undefined;
      throw error;
    });
    return answer;
  };
}
