/** The keys of one directory in one TPM: how each is made, read and used. */
import { createSecretKey, hash, type KeyObject, randomBytes } from 'node:crypto';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { algorithms, type SignatureAlgorithm } from '../../core/algorithms.ts';
import { AttestedError } from '../../errors.ts';
import { importPublicKey, verifySignature } from '../../platform/crypto.ts';
import type { PcrSelection } from '../../tpm2/device.ts';
import { jwsSignature, parseSignature } from '../../tpm2/signature.ts';
import { type InstanceKeyAlgorithm, instanceKeyTemplate, sealTemplate } from '../../tpm2/templates.ts';
import { corrupt, fileWork } from '../files/faults.ts';
import { readPrivateFile } from '../files/guarded.ts';
import { keyFileName } from '../files/key-files.ts';
import { type HeldKey, type PublicPart, samePublicPart } from '../kept.ts';
import { isSecretFileName } from '../secrets.ts';
import { assertAvailable } from './algorithms.ts';
import { blobOnce, writeOnce } from './blob-files.ts';
import { type Blob, encodeKeyBlob, parseKeyBlob } from './blobs.ts';
import type { Command } from './commands.ts';
import { banksOf } from './pcrs.ts';
import type { KeyReference } from './protocol.ts';
import { authValueFor, type KeyUse, referenceTo } from './references.ts';

const SECRETS_KEY_BYTES = 32;
const SECRETS_PURPOSE = 'key of the secrets'; // no label of a key: those are quoted below
const PROBE = 'attested';

export interface TpmKey extends HeldKey {
  key: KeyReference;
}

export interface TpmKeys {
  read(label: string, held: TpmKey | undefined): Promise<TpmKey | undefined>;
  make(label: string, alg: SignatureAlgorithm): Promise<void>;
  sign(held: TpmKey, data: Uint8Array): Promise<Uint8Array>;
  /** The key under which secrets beside the keys are encrypted: random, sealed by the TPM. */
  secretsKey(): Promise<KeyObject>;
}

export interface TpmKeysOptions {
  command: Command;
  directory: string;
  use: KeyUse;
  /** PCRs that new keys are bound to. */
  pcrs: PcrSelection | undefined;
  available: readonly InstanceKeyAlgorithm[];
  /** Name of the storage parent that the TPM has now. */
  parent: Uint8Array;
}

export function createTpmKeys({ command, directory, use, pcrs, available, parent }: TpmKeysOptions): TpmKeys {
  const parents = new Set([hexOf(parent)]);

  /** Told before the TPM refuses it, which it would do with the code that a damaged blob has. */
  async function assertOfThisTpm(blob: Blob): Promise<void> {
    const name = hexOf(blob.parent);
    if (parents.has(name)) return;
    await command('findParent', [blob.parent]);
    parents.add(name);
  }

  async function sign({ part: { alg }, key }: TpmKey, data: Uint8Array): Promise<Uint8Array> {
    const digest = hash(algorithms[alg].hash as string, data, 'buffer');
    return jwsSignature(parseSignature(await command('sign', [digest], [key])), alg);
  }

  async function templateOf(alg: InstanceKeyAlgorithm): Promise<Uint8Array> {
    if (pcrs === undefined) return instanceKeyTemplate(alg);
    return instanceKeyTemplate(alg, {
      authPolicy: await command('pcrPolicy', [banksOf(pcrs), use.keyAuth !== undefined]),
    });
  }

  const make = async (label: string, alg: SignatureAlgorithm): Promise<void> => {
    assertAvailable(alg, available);
    const authValue = use.keyAuth && authValueFor(use.keyAuth, purposeOf(label));
    const template = await templateOf(alg);
    const made = await command('create', [{ template, ...(authValue && { authValue }), salted: use.salted }]);
    const blob = { ...made, auth: authValue !== undefined, pcrs };
    const path = join(directory, keyFileName(label));
    const content = encodeKeyBlob(label, alg, blob);
    if (alg === 'PS256') {
      const { part } = parseKeyBlob(path, keyFileName(label), Buffer.from(content));
      await assertUsualSalt(
        part,
        await sign({ part, key: referenceTo(blob, purposeOf(label), use) }, Buffer.from(PROBE)),
      );
    }
    await writeOnce(directory, path, content);
  };

  return {
    make,
    sign,

    async read(label, held) {
      const path = join(directory, keyFileName(label));
      const content = await readPrivateFile(path);
      if (content === undefined) return undefined;
      const { part, ...blob } = parseKeyBlob(path, keyFileName(label), content);
      await assertOfThisTpm(blob);
      const key = referenceTo(blob, purposeOf(label), use);
      return held !== undefined && samePublicPart(held.part, part) && held.key.ref === key.ref ? held : { part, key };
    },

    async secretsKey() {
      const blob = await blobOnce(directory, 'secrets', async () => {
        await assertNoSecrets(directory);
        const data = randomBytes(SECRETS_KEY_BYTES);
        const authValue = use.keyAuth && authValueFor(use.keyAuth, SECRETS_PURPOSE);
        const request = { template: sealTemplate(), data, ...(authValue && { authValue }), salted: use.salted };
        return { ...(await command('create', [request])), auth: authValue !== undefined, pcrs: undefined };
      });
      await assertOfThisTpm(blob);
      const key = await command('unseal', [], [referenceTo(blob, SECRETS_PURPOSE, use)]);
      return createSecretKey(key);
    },
  };
}

/** A new key would make every secret that is there unreadable, and nobody would know why. */
async function assertNoSecrets(directory: string): Promise<void> {
  const names = await fileWork(`list ${directory}`, () => readdir(directory));
  if (names.some(isSecretFileName)) {
    throw corrupt(
      directory,
      'holds secrets, but their key (secrets.json) is missing: restore it, or delete the secrets',
    );
  }
}

const purposeOf = (label: string): string => JSON.stringify(label);

/** JWS wants a salt as long as the hash (RFC 7518 §3.5); TPMs of the first years fill what room there is, and nobody takes that. */
function assertUsualSalt({ alg, jwk }: PublicPart, signature: Uint8Array): void {
  if (!verifySignature(alg, importPublicKey(jwk), PROBE, signature)) {
    throw new AttestedError('invalid_argument', 'this TPM salts PS256 in a way that JWS does not allow; RS256 may do');
  }
}

function hexOf(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}
