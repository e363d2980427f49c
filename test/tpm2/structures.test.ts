import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { decodeBase64url } from '../../src/core/bytes.ts';
import { hashes } from '../../src/tpm2/algorithms.ts';
import {
  type AttestType,
  type AttributeName,
  akTemplate,
  attributeBits,
  ekTemplate,
  encodePcrSelection,
  encodePublic,
  instanceKeyTemplate,
  isStandardSrk,
  jwsSignature,
  makeCredential,
  type PublicArea,
  parseAttest,
  parsePublic,
  parseSignature,
  sealTemplate,
  verifyCertify,
  verifyQuote,
} from '../../src/tpm2/index.ts';
import { readPcrSelection } from '../../src/tpm2/pcr-selection.ts';
import { concat, Reader, sized, u8, u16, u32, u64 } from '../../src/tpm2/wire.ts';
import { expectRefusal, refusalOf } from '../support/errors.ts';
import {
  attestBytes,
  forgeCertify,
  forgeQuote,
  softwareAk,
  softwareEk,
  softwareInstanceKey,
  somePcrs,
} from './forge.ts';

const bytes = (maxLength: number, minLength = 0) => fc.uint8Array({ minLength, maxLength });
const exactly = (length: number) => bytes(length, length);

const digestSizes = { sha1: 20, sha256: 32, sha384: 48, sha512: 64 } as const;
const nameAlg = fc.constantFrom('sha1', 'sha256', 'sha384', 'sha512');
const attributes = fc.subarray(Object.values(attributeBits)).map((bits) => bits.reduce((all, bit) => all | bit, 0));
const symmetric = fc.option(
  fc.record({
    name: fc.constant('aes' as const),
    keyBits: fc.constantFrom(128, 192, 256),
    mode: fc.constantFrom('null', 'ctr', 'ofb', 'cbc', 'cfb', 'ecb'),
  }),
);
const kdf = fc.option(
  fc.record({ name: fc.constantFrom('mgf1', 'kdf1_sp800_56a', 'kdf2', 'kdf1_sp800_108'), hash: nameAlg }),
);
const hashed = (...names: string[]) => fc.record({ name: fc.constantFrom(...names), hash: nameAlg });
const rsaScheme = fc.option(fc.oneof(hashed('rsassa', 'rsapss', 'oaep'), fc.constant({ name: 'rsaes' })));
const ecdaa = fc.record({ name: fc.constant('ecdaa'), hash: nameAlg, count: fc.nat(0xffff) });
const eccScheme = fc.option(fc.oneof(hashed('ecdsa', 'ecdh', 'sm2', 'ecschnorr', 'ecmqv'), ecdaa));
const xor = fc.record({ name: fc.constant('xor'), hash: nameAlg, kdf: fc.constantFrom('mgf1', 'kdf2') });
const keyedHashScheme = fc.option(fc.oneof(hashed('hmac'), xor));
const digestOf = (hash: keyof typeof digestSizes) =>
  fc.oneof(fc.constant(new Uint8Array(0)), exactly(digestSizes[hash]));

/** Any public area that may be written. */
const area = nameAlg.chain((hash) => {
  const common = { nameAlg: fc.constant(hash), attributes, authPolicy: digestOf(hash) };
  const sizes = { 'P-256': 32, 'P-384': 48, 'P-521': 66 } as const;
  return fc.oneof(
    fc.constantFrom(1024, 2048, 3072, 4096).chain((keyBits) =>
      fc.record({
        type: fc.constant('rsa'),
        ...common,
        symmetric,
        scheme: rsaScheme,
        parameters: fc
          .nat(0xffffffff)
          .map((wireExponent) => ({ keyBits, exponent: wireExponent || 65537, wireExponent })),
        unique: bytes(keyBits / 8),
      }),
    ),
    fc.constantFrom('P-256', 'P-384', 'P-521').chain((curve) =>
      fc.record({
        type: fc.constant('ecc'),
        ...common,
        symmetric,
        scheme: eccScheme,
        parameters: fc.record({ curve: fc.constant(curve), kdf }),
        unique: fc.record({ x: bytes(sizes[curve as 'P-256']), y: bytes(sizes[curve as 'P-256']) }),
      }),
    ),
    fc.record({
      type: fc.constant('keyedhash'),
      ...common,
      symmetric: fc.constant(null),
      scheme: keyedHashScheme,
      parameters: fc.constant({}),
      unique: digestOf(hash),
    }),
    fc.record({
      type: fc.constant('symcipher'),
      ...common,
      symmetric: symmetric.map((cipher) => cipher ?? { name: 'aes' as const, keyBits: 128, mode: 'null' as const }),
      scheme: fc.constant(null),
      parameters: fc.constant({}),
      unique: digestOf(hash),
    }),
  );
}) as unknown as fc.Arbitrary<PublicArea>;

describe('public areas', () => {
  test('are read as they were written, with and without a size', () => {
    fc.assert(
      fc.property(area, (written) => {
        const encoded = encodePublic(written);
        const parsed = parsePublic(encoded);
        const { name, bytes: own, publicJwk: _, attributes: flags, ...fields } = parsed;
        expect({ ...fields, attributes: flags.raw }).toEqual(written);
        expect(own).toEqual(encoded);
        expect(name.length).toBe(2 + hashes[written.nameAlg].bytes);
        expect(encodePublic(parsed)).toEqual(encoded);
        expect(parsePublic(sized(encoded))).toEqual(parsed);
      }),
      { numRuns: 500 },
    );
  });

  test('a type that is also the right size is still a type', () => {
    const written = encodePublic({
      ...parsePublic(akTemplate()),
      unique: { x: new Uint8Array(8).fill(1), y: new Uint8Array(5).fill(1) },
    } as PublicArea);
    expect([written.length - 2, written[1]]).toEqual([0x23, 0x23]);
    expect(parsePublic(written).bytes).toEqual(written);
    expect(parsePublic(sized(written)).bytes).toEqual(written);
  });

  test('a coordinate that the TPM wrote without its leading zeros is padded in the JWK', () => {
    const x = new Uint8Array(31).fill(7);
    const { parsed } = softwareAk({ unique: { x, y: new Uint8Array(32).fill(9) } } as object);
    const jwk = parsed.publicJwk as { x: string };
    expect(decodeBase64url(jwk.x)).toEqual(concat(u8(0), x));
  });

  test('an RSA exponent of 0 is 65537', () => {
    const rsa = (wireExponent: number) =>
      parsePublic(
        encodePublic({
          ...template,
          parameters: { keyBits: 2048, exponent: 65537, wireExponent },
          unique: new Uint8Array(256).fill(0xc1),
        } as PublicArea),
      );
    const template = parsePublic(instanceKeyTemplate('RS256'));
    expect(rsa(0)).toMatchObject({ parameters: { exponent: 65537 }, publicJwk: { kty: 'RSA', e: 'AQAB' } });
    expect(rsa(65537)).toMatchObject({ parameters: { exponent: 65537 }, publicJwk: { e: 'AQAB' } });
    expect(rsa(3)).toMatchObject({ parameters: { exponent: 3 }, publicJwk: { e: 'Aw' } });
  });

  test('every flag is read by its own name', () => {
    for (const [flag, bit] of Object.entries(attributeBits)) {
      const { raw, ...flags } = softwareAk({ attributes: bit }).parsed.attributes;
      expect(raw).toBe(bit);
      expect(Object.keys(flags).filter((name) => flags[name as AttributeName])).toEqual([flag]);
    }
  });

  const good = akTemplate();
  /** A template's bytes with some of them replaced. */
  const patched = (at: number, replacement: Uint8Array, template = good) =>
    concat(template.slice(0, at), replacement, template.slice(at + replacement.length));

  test.each<[string, Uint8Array]>([
    ['nothing', new Uint8Array(0)],
    ['one byte', u8(0)],
    ['only a size', u16(0)],
    ['a size that does not match', concat(u16(good.length + 1), good)],
    ['a size within a size', sized(sized(good))],
    ['bytes after its end', concat(good, u8(0))],
    ['bytes after its end, within the size', sized(concat(good, u8(0)))],
    ['more than any TPM gives', new Uint8Array(100_000)],
    ['an unknown type', patched(0, u16(0x0022))],
    ['no name algorithm', patched(2, u16(0x0010))],
    ['a name algorithm that is not known', patched(2, u16(0x0012))],
    ['all attribute bits', patched(4, u32(0xffffffff))],
    ['a policy of one byte', concat(good.slice(0, 8), sized(u8(1)), good.slice(10))],
    ['a policy longer than its digest', concat(good.slice(0, 8), sized(new Uint8Array(33)), good.slice(10))],
    ['a cipher that is not known', patched(10, u16(0x0026))],
    ['a scheme of RSA', patched(12, u16(0x0014))],
    ['a scheme hash that is not known', patched(14, u16(0x0010))],
    ['an unknown curve', patched(16, u16(0x0010))],
    [
      'coordinates longer than the curve',
      concat(good.slice(0, 20), sized(new Uint8Array(33)), sized(new Uint8Array(32))),
    ],
    ['an RSA key of 2047 bits', patched(16, u16(2047), instanceKeyTemplate('RS256'))],
    ['an RSA key of 65528 bits', patched(16, u16(65528), instanceKeyTemplate('RS256'))],
    ['a modulus longer than the key', concat(instanceKeyTemplate('RS256').slice(0, 22), sized(new Uint8Array(257)))],
    ['a seal whose unique value is no digest', concat(sealTemplate().slice(0, -2), sized(new Uint8Array(31)))],
    ['an AES key of 64 bits', patched(12, u16(64), ekTemplate('P-384').slice(48))],
  ])('%s is refused', async (_, malformed) => {
    await expectRefusal(() => parsePublic(malformed), { code: 'tpm_malformed', rule: 'TPM attestation 1' });
  });

  test('the offsets of those rows are right', () => {
    expect(patched(0, u16(0x23))).toEqual(good);
    expect(patched(16, u16(0x0003))).toEqual(good);
    expect(patched(16, u16(2048), instanceKeyTemplate('RS256'))).toEqual(instanceKeyTemplate('RS256'));
    expect(concat(good.slice(0, 20), sized(new Uint8Array(0)), sized(new Uint8Array(0)))).toEqual(good);
    expect(concat(instanceKeyTemplate('RS256').slice(0, 22), sized(new Uint8Array(0)))).toEqual(
      instanceKeyTemplate('RS256'),
    );
  });

  test.each([undefined, null, 7, 'AAEC', [0, 1], {}, new ArrayBuffer(40)])('%s is no bytes', async (value) => {
    for (const parse of [parsePublic, parseAttest, parseSignature]) {
      await expectRefusal(() => parse(value as Uint8Array), { code: 'tpm_malformed' });
    }
  });
});

describe('attest structures', () => {
  const clock = concat(u64(5n), u32(6), u32(7), u8(1));
  const read = { clock: 5n, resetCount: 6, restartCount: 7, safe: true };
  const name = concat(u16(0x0b), new Uint8Array(32).fill(1));
  const value = new Uint8Array(32).fill(2);
  test.each<[AttestType, Uint8Array, object]>([
    ['certify', concat(sized(name), sized(name)), { name, qualifiedName: name }],
    [
      'quote',
      concat(u32(1), u16(0x0b), Uint8Array.of(3, 1, 0, 128), sized(value)),
      { pcrSelect: [{ bank: 'sha256', pcrs: [0, 23] }], pcrDigest: value },
    ],
    ['creation', concat(sized(name), sized(value)), { objectName: name, creationHash: value }],
    ['time', concat(u64(9n), clock, u64(3n)), { time: 9n, clockInfo: read, firmwareVersion: 3n }],
    ['nv', concat(sized(name), u16(4), sized(value)), { indexName: name, offset: 4, nvContents: value }],
    ['nvDigest', concat(sized(name), sized(value)), { indexName: name, nvDigest: value }],
    [
      'commandAudit',
      concat(u64(8n), u16(0x0b), sized(value), sized(value)),
      { auditCounter: 8n, digestAlg: 0x0b, auditDigest: value, commandDigest: value },
    ],
    ['sessionAudit', concat(u8(0), sized(value)), { exclusiveSession: false, sessionDigest: value }],
  ])('%s', async (type, attested, expected) => {
    const structure = attestBytes(
      { type, extraData: value, clockInfo: read, firmwareVersion: 2n ** 64n - 1n },
      attested,
    );
    expect(parseAttest(structure)).toMatchObject({
      type,
      extraData: value,
      clockInfo: read,
      firmwareVersion: 2n ** 64n - 1n,
      attested: expected,
    });
    expect(parseAttest(sized(structure))).toEqual(parseAttest(structure));
    for (let length = 0; length < structure.length; length++) {
      await expectRefusal(() => parseAttest(structure.slice(0, length)), { code: 'tpm_malformed' });
    }
    await expectRefusal(() => parseAttest(concat(structure, u8(0))), {
      code: 'tpm_malformed',
      rule: 'TPM attestation 1',
    });
  });

  test('a truth value is 0 or 1', async () => {
    const structure = attestBytes({ type: 'sessionAudit' }, concat(u8(2), sized(value)));
    await expectRefusal(() => parseAttest(structure), { code: 'tpm_malformed' });
  });

  test.each([
    ['qualifiedSigner', { qualifiedSigner: new Uint8Array(67) }],
    ['extraData', { extraData: new Uint8Array(67) }],
  ])('a %s longer than TPMs make it', async (_, fields) => {
    const structure = attestBytes({ type: 'creation', ...fields }, concat(sized(name), sized(value)));
    await expectRefusal(() => parseAttest(structure), { code: 'tpm_malformed', rule: 'TPM attestation 1' });
  });
});

describe('PCR selections', () => {
  test('are read as they were written', () => {
    const banks = fc.uniqueArray(nameAlg, { maxLength: 4 });
    const numbers = fc.uniqueArray(fc.nat(31)).map((list) => list.sort((a, b) => a - b));
    const selection = banks.chain((list) =>
      fc.tuple(...list.map((bank) => fc.record({ bank: fc.constant(bank), pcrs: numbers }))),
    );
    fc.assert(
      fc.property(selection, (written) => {
        const reader = new Reader(encodePcrSelection(written), 'a selection');
        expect(readPcrSelection(reader)).toEqual(written);
        reader.end();
      }),
    );
  });

  test.each([-1, 32, 0.5, Number.NaN])('PCR %d is none', async (pcr) => {
    await expectRefusal(() => encodePcrSelection([{ bank: 'sha256', pcrs: [pcr] }]), { code: 'invalid_argument' });
  });
});

describe('signatures', () => {
  test('short numbers of an ECDSA signature are padded to the curve', () => {
    const short = parseSignature(concat(u16(0x18), u16(0x0b), sized(u8(1)), sized(Uint8Array.of(2, 3))));
    const jws = jwsSignature(short, 'ES256');
    expect(jws.length).toBe(64);
    expect([jws[31], jws[62], jws[63]]).toEqual([1, 2, 3]);
  });

  test.each([
    ['ES256', 0x18, 0x0c],
    ['ES384', 0x18, 0x0b],
    ['RS256', 0x16, 0x0b],
    ['PS256', 0x14, 0x0b],
    ['PS256', 0x16, 0x04],
  ] as const)('a signature is not made one of %s', async (alg, scheme, hash) => {
    const tail = scheme === 0x18 ? concat(sized(u8(1)), sized(u8(1))) : sized(new Uint8Array(256));
    const signature = parseSignature(concat(u16(scheme), u16(hash), tail));
    await expectRefusal(() => jwsSignature(signature, alg), { code: 'tpm_malformed' });
  });

  test('one that is too long for the curve is refused', async () => {
    const long = parseSignature(concat(u16(0x18), u16(0x0b), sized(new Uint8Array(33)), sized(u8(1))));
    await expectRefusal(() => jwsSignature(long, 'ES256'), { code: 'tpm_malformed' });
    await expectRefusal(() => jwsSignature(long, 'EdDSA'), { code: 'invalid_argument' });
  });
});

/** Whatever is called, an answer or an AttestedError of ours. */
async function neverOtherwise(attempt: () => unknown): Promise<void> {
  try {
    attempt();
  } catch {
    const { code } = await refusalOf(attempt);
    expect(['tpm_malformed', 'tpm_refused']).toContain(code);
  }
}

describe('bytes from anywhere give an answer or a refusal, never another exception', () => {
  const ak = softwareAk();
  const ek = softwareEk('RSA-2048');
  const subject = softwareInstanceKey();
  const extraData = new Uint8Array(32).fill(1);
  const pcrs = somePcrs('sha256', 0, 1);
  const certify = {
    ...forgeCertify({ ak, subject, extraData }),
    ak: ak.publicArea,
    subject: subject.publicArea,
    extraData,
  };
  const quote = { ...forgeQuote({ ak, pcrs, extraData }), ak: ak.publicArea, pcrs, extraData };
  const credential = { ek: ek.publicArea, name: ak.parsed.name, secret: extraData };

  const anyBytes = fc.oneof(
    bytes(200),
    bytes(120).map((rest) => concat(u16(0x0023), u16(0x0b), rest)),
    bytes(120).map(sized),
  );
  /** Good bytes with some bytes changed, then cut or lengthened. */
  const mutated = (good: Uint8Array) =>
    fc
      .tuple(
        fc.array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { maxLength: 4 }),
        fc.integer({ min: -4, max: 4 }),
      )
      .map(([changes, more]) => {
        const copy = new Uint8Array(good.length + Math.max(more, 0));
        copy.set(good);
        for (const [at, byte] of changes) copy[at] = byte;
        return more < 0 ? copy.slice(0, more) : copy;
      });

  test('random', async () => {
    await fc.assert(
      fc.asyncProperty(anyBytes, async (any) => {
        for (const attempt of [
          () => parsePublic(any),
          () => parseAttest(any),
          () => parseSignature(any),
          () => isStandardSrk(any),
          ...(['attest', 'signature', 'ak', 'subject', 'extraData'] as const).map(
            (part) => () => verifyCertify({ ...certify, [part]: any }),
          ),
          ...(['attest', 'signature', 'ak'] as const).map((part) => () => verifyQuote({ ...quote, [part]: any })),
          ...(['ek', 'name'] as const).map((part) => () => makeCredential({ ...credential, [part]: any })),
        ]) {
          await neverOtherwise(attempt);
        }
      }),
      { numRuns: 300 },
    );
  });

  test.each([
    ...(['attest', 'signature', 'ak', 'subject'] as const).map((part) => ({
      name: `certify.${part}`,
      good: certify[part],
      call: (changed: Uint8Array) => verifyCertify({ ...certify, [part]: changed }),
    })),
    ...(['attest', 'signature', 'ak'] as const).map((part) => ({
      name: `quote.${part}`,
      good: quote[part],
      call: (changed: Uint8Array) => verifyQuote({ ...quote, [part]: changed }),
    })),
    { name: 'ek', good: credential.ek, call: (changed: Uint8Array) => makeCredential({ ...credential, ek: changed }) },
    {
      name: 'name',
      good: credential.name,
      call: (changed: Uint8Array) => makeCredential({ ...credential, name: changed }),
    },
  ])('$name, changed', async ({ good, call }) => {
    await fc.assert(
      fc.asyncProperty(mutated(good), async (changed) => {
        await neverOtherwise(() => call(changed));
      }),
      { numRuns: 300 },
    );
  });

  test.each(['attest', 'signature', 'subject'] as const)(
    'a certify whose %s was changed is never accepted',
    async (part) => {
      await fc.assert(
        fc.asyncProperty(mutated(certify[part]), async (changed) => {
          fc.pre(Buffer.compare(changed, certify[part]) !== 0);
          await refusalOf(() => verifyCertify({ ...certify, [part]: changed }));
        }),
        { numRuns: 300 },
      );
    },
  );
});
