import { X509Certificate } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  akTemplate,
  attributesOf,
  ekCertificateIndexes,
  ekTemplate,
  encodePublic,
  type InstanceKeyAlgorithm,
  instanceKeyTemplate,
  isStandardSrk,
  parsePublic,
  sealTemplate,
  srkTemplate,
} from '../../src/tpm2/index.ts';
import { sized } from '../../src/tpm2/wire.ts';
import { expectRefusal } from '../support/errors.ts';
import { type Swtpm, skipTpm, startSwtpm } from '../support/swtpm.ts';
import { createPrimary, fileOf, readPublic } from './raw.ts';

const policy = new Uint8Array(32).fill(7);

describe('as data', () => {
  test.each([
    ['srk ecc', srkTemplate('ecc'), 0x00030472],
    ['srk rsa', srkTemplate('rsa'), 0x00030472],
    ['ES256', instanceKeyTemplate('ES256'), 0x00040472],
    ['ES384', instanceKeyTemplate('ES384'), 0x00040472],
    ['PS256', instanceKeyTemplate('PS256'), 0x00040472],
    ['RS256', instanceKeyTemplate('RS256'), 0x00040472],
    ['ES256 with a policy', instanceKeyTemplate('ES256', { authPolicy: policy }), 0x00040432],
    ['ak', akTemplate(), 0x00050472],
    ['sealed data', sealTemplate(), 0x00000452],
    ['sealed data with a policy', sealTemplate({ authPolicy: policy }), 0x00000412],
    ['ek rsa', ekTemplate('RSA-2048'), 0x000300b2],
    ['ek P-256', ekTemplate('P-256'), 0x000300b2],
    ['ek P-384', ekTemplate('P-384'), 0x000300f2],
  ])('%s has its attributes, is no key yet, and is written as it was read', (_, template, attributes) => {
    const area = parsePublic(template);
    expect(area.attributes.raw).toBe(attributes);
    expect(area.publicJwk).toBeUndefined();
    expect(encodePublic(area)).toEqual(template);
  });

  test('a policy takes the place of the auth value', () => {
    expect(parsePublic(instanceKeyTemplate('ES256', { authPolicy: policy }))).toMatchObject({
      authPolicy: policy,
      attributes: { userWithAuth: false, noDA: true, fixedTPM: true },
    });
  });

  test('a policy that is no SHA-256 digest, and an algorithm that is none, are refused', async () => {
    await expectRefusal(() => akTemplate({ authPolicy: new Uint8Array(20) }), { code: 'invalid_argument' });
    await expectRefusal(() => instanceKeyTemplate('toString' as InstanceKeyAlgorithm), { code: 'invalid_argument' });
  });
});

describe.skipIf(skipTpm)('in a TPM', () => {
  let tpm: Swtpm;
  beforeAll(async () => {
    tpm = await startSwtpm();
  }, 60_000);
  afterAll(async () => tpm?.stop());

  /** A key as the TPM makes it from a template of ours, and what tpm2-tools says of it. */
  async function created(hierarchy: 'owner' | 'endorsement', template: Uint8Array) {
    const handle = await createPrimary(tpm, hierarchy, template);
    const { file, name } = await readPublic(tpm, handle);
    await tpm.tools('tpm2_flushcontext', handle);
    return { area: parsePublic(file), file, name };
  }

  test.each([
    ['srk ecc', () => srkTemplate('ecc')],
    ['srk rsa', () => srkTemplate('rsa')],
    ['ES256', () => instanceKeyTemplate('ES256')],
    ['ES384', () => instanceKeyTemplate('ES384')],
    ['PS256', () => instanceKeyTemplate('PS256')],
    ['RS256', () => instanceKeyTemplate('RS256')],
    ['ES256 with a policy', () => instanceKeyTemplate('ES256', { authPolicy: policy })],
    ['ak', () => akTemplate()],
    ['ak with a policy', () => akTemplate({ authPolicy: policy })],
  ])(
    '%s: the TPM makes it as asked, and its Name is the one computed here',
    async (_, template) => {
      const { area, name, file } = await created('owner', template());
      expect(area.name).toEqual(name);
      expect(area.publicJwk).toBeDefined();
      expect(sized(area.bytes)).toEqual(file);
      expect(sized(encodePublic(area))).toEqual(file);
      const { unique } = parsePublic(template());
      expect(encodePublic({ ...area, unique } as typeof area)).toEqual(template());
    },
    30_000,
  );

  test.each(['RSA-2048', 'P-256', 'P-384'] as const)(
    'endorsement key %s is the one its certificate is for',
    async (kind) => {
      const { area } = await created('endorsement', ekTemplate(kind));
      const index = `0x${ekCertificateIndexes[kind].toString(16)}`;
      await tpm.tools('tpm2_nvread', '-C', 'o', '-o', 'ek.cer', index);
      const certified = new X509Certificate(fileOf(tpm, 'ek.cer')).publicKey;
      expect(area.publicJwk).toEqual(certified.export({ format: 'jwk' }));
    },
    30_000,
  );

  test('sealed data', async () => {
    await tpm.tools('tpm2_createprimary', '-C', 'o', '-c', 'srk.ctx');
    writeFileSync(join(tpm.directory, 'secret'), 'secret');
    const attributes = 'fixedtpm|fixedparent|noda|userwithauth';
    await tpm.tools(
      'tpm2_create',
      '-C',
      'srk.ctx',
      '-i',
      'secret',
      '-a',
      attributes,
      '-u',
      'seal.pub',
      '-r',
      'seal.priv',
    );
    await tpm.tools('tpm2_flushcontext', '-t');
    const area = parsePublic(fileOf(tpm, 'seal.pub'));
    expect(encodePublic({ ...area, unique: new Uint8Array(0) } as typeof area)).toEqual(sealTemplate());
  }, 30_000);

  test('a storage root key is told from others by everything but its key', async () => {
    const ecc = (await created('owner', srkTemplate('ecc'))).area;
    const rsa = (await created('owner', srkTemplate('rsa'))).area;
    expect([ecc, rsa, ecc.bytes, sized(rsa.bytes)].map(isStandardSrk)).toEqual([true, true, true, true]);
    const others = [
      srkTemplate(), // no key
      (await created('owner', akTemplate())).area,
      (await created('endorsement', ekTemplate('P-256'))).area,
      {
        ...ecc,
        attributes: parsePublic(encodePublic({ ...ecc, attributes: ecc.attributes.raw & ~attributesOf('noDA') }))
          .attributes,
      },
      { ...ecc, symmetric: { name: 'aes', keyBits: 256, mode: 'cfb' } },
    ] as const;
    expect(others.map((area) => isStandardSrk(area as typeof ecc))).toEqual([false, false, false, false, false]);
  }, 30_000);
});
