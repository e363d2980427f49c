import { describe, expect, test } from 'vitest';
import {
  type AttributeName,
  attributeBits,
  type CredentialInput,
  ekTemplate,
  encodePublic,
  instanceKeyTemplate,
  makeCredential,
  type PublicArea,
  parsePublic,
  srkTemplate,
} from '../../src/tpm2/index.ts';
import { concat, sized, u16, u32 } from '../../src/tpm2/wire.ts';
import { expectRefusal } from '../support/errors.ts';
import { keyFromTemplate, openCredential, type SoftwareKey, softwareAk, softwareEk } from './forge.ts';

const kinds = ['RSA-2048', 'P-256', 'P-384'] as const;
const { name } = softwareAk().parsed;
const ek = softwareEk();
const secret = new Uint8Array(32).fill(0x5e);
const input = (changes: Partial<CredentialInput> = {}): CredentialInput => ({
  ek: ek.publicArea,
  name,
  secret,
  ...changes,
});
const forEk = (key: SoftwareKey) => input({ ek: key.publicArea });

describe.each(kinds)('for an endorsement key %s', (kind) => {
  const key = softwareEk(kind);
  const longest = { 'RSA-2048': 32, 'P-256': 32, 'P-384': 48 }[kind];

  test('the holder opens it, for this Name alone', () => {
    const longestSecret = new Uint8Array(longest).fill(1);
    const credential = makeCredential({ ek: sized(key.publicArea), name, secret: longestSecret });
    expect(openCredential(key, name, credential)).toEqual(longestSecret);
    expect(openCredential(key, key.parsed.name, credential)).toBeUndefined();
  });

  test('the same secret is never encrypted to the same bytes', () => {
    const made = Array.from({ length: 20 }, () => makeCredential({ ek: key.publicArea, name, secret }));
    expect(new Set(made.map(({ credentialBlob }) => Buffer.from(credentialBlob).toString('hex'))).size).toBe(20);
    expect(new Set(made.map(({ encryptedSecret }) => Buffer.from(encryptedSecret).toString('hex'))).size).toBe(20);
  });

  test('the secret is no longer than a digest of the name algorithm', async () => {
    const tooLong = { ek: key.publicArea, name, secret: new Uint8Array(longest + 1) };
    await expectRefusal(() => makeCredential(tooLong), { code: 'tpm_malformed' });
  });
});

test('a storage root key will do as well: it is of the same kind', () => {
  const srk = keyFromTemplate(srkTemplate());
  expect(openCredential(srk, name, makeCredential(forEk(srk)))).toEqual(secret);
});

const must: Partial<Record<AttributeName, boolean>> = {
  fixedTPM: true,
  fixedParent: true,
  sensitiveDataOrigin: true,
  restricted: true,
  decrypt: true,
  sign: false,
};

describe('TPM attestation 2: each attribute of the endorsement key, flipped', () => {
  test.each(Object.keys(attributeBits) as AttributeName[])('%s', async (flag) => {
    const other = softwareEk('P-256', { attributes: ek.parsed.attributes.raw ^ attributeBits[flag] });
    if (must[flag] === undefined) expect(openCredential(other, name, makeCredential(forEk(other)))).toEqual(secret);
    else await expectRefusal(() => makeCredential(forEk(other)), { code: 'tpm_refused', rule: 'TPM attestation 2' });
  });
});

const rsaOf = (keyBits: number) => {
  const template = encodePublic({
    ...parsePublic(ekTemplate('RSA-2048')),
    parameters: { keyBits, exponent: 65537 },
    unique: new Uint8Array(0),
  } as PublicArea);
  return keyFromTemplate(template);
};

describe('what is no endorsement key', () => {
  test.each<[string, () => Uint8Array]>([
    ['a template', () => ekTemplate('P-256')],
    ['a signing key', () => keyFromTemplate(instanceKeyTemplate('ES256')).publicArea],
    ['a key without a cipher', () => softwareEk('P-256', { symmetric: null } as Partial<PublicArea>).publicArea],
    [
      'another cipher mode',
      () =>
        softwareEk('P-256', { symmetric: { name: 'aes', keyBits: 128, mode: 'ctr' } } as Partial<PublicArea>)
          .publicArea,
    ],
    ['a key named by SHA-1', () => softwareEk('P-256', { nameAlg: 'sha1', authPolicy: new Uint8Array(0) }).publicArea],
    [
      'a point that is not on the curve',
      () => softwareEk('P-256', { unique: { x: secret, y: secret } } as Partial<PublicArea>).publicArea,
    ],
    ['RSA-1024', () => rsaOf(1024).publicArea],
    [
      'P-521',
      () => {
        const area = { ...parsePublic(ekTemplate('P-256')), parameters: { curve: 'P-521', kdf: null } } as PublicArea;
        return keyFromTemplate(encodePublic(area)).publicArea;
      },
    ],
  ])('%s is refused', async (_, area) => {
    await expectRefusal(() => makeCredential(input({ ek: area() })), {
      code: 'tpm_refused',
      rule: 'TPM attestation 2',
    });
  });

  test('RSA-3072 is one', () => {
    const key = rsaOf(3072);
    expect(openCredential(key, name, makeCredential(forEk(key)))).toEqual(secret);
  });
});

describe('what is no Name or no secret', () => {
  test.each<[string, Partial<CredentialInput>]>([
    ['an empty Name', { name: new Uint8Array(0) }],
    ['a handle', { name: u32(0x81000001) }],
    ['a Name cut short', { name: name.slice(0, -1) }],
    ['a Name with more after it', { name: concat(name, u16(0)) }],
    ['a Name with its size', { name: sized(name) }],
    ['a Name by an unknown hash', { name: concat(u16(0x12), name.slice(2)) }],
    ['an empty secret', { secret: new Uint8Array(0) }],
    ['a secret that is a text', { secret: 'secret' as unknown as Uint8Array }],
    ['no Name', { name: undefined as unknown as Uint8Array }],
    ['no endorsement key', { ek: undefined as unknown as Uint8Array }],
  ])('%s is refused', async (_, changes) => {
    await expectRefusal(() => makeCredential(input(changes)), { code: 'tpm_malformed' });
  });
});
