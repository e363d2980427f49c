import { generateKeyPairSync } from 'node:crypto';
import { rootCertificates } from 'node:tls';
import { describe, expect, it } from 'vitest';
import { signerOf } from '../../../src/platform/crypto.ts';
import { jku, jwks, x5c } from '../../../src/verifier/index.ts';
import { CA_USAGE, goodChain, type Issued, issueCertificate, SIGN_USAGE } from '../../support/certificates.ts';
import { expectRefusal } from '../../support/errors.ts';
import { newSigner } from '../../support/tokens.ts';
import { CLIENT_ID, createWorld, expectRefused } from '../../support/world.ts';

const { root, authority, leaf } = goodChain();
const foreign = goodChain();
const [SERVER_AUTH, CLIENT_AUTH, CODE_SIGNING] = ['1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2', '1.3.6.1.5.5.7.3.3'];
const [ANY_PURPOSE, SIGNS_JWTS] = ['2.5.29.37.0', '1.3.6.1.5.5.7.3.37'];

/** A verifier that trusts the root, and what it makes of an attestation signed by `signer` under the header `x5c`. */
async function send(chain: unknown, signer: Issued = leaf, options: { anchors?: string[]; startAt?: number } = {}) {
  const { anchors = [root.pem], ...rest } = options;
  const world = createWorld({ trust: x5c({ anchors }), ...rest });
  const attestation = await world.attestation({
    header: { kid: undefined, x5c: chain as never },
    signer: signerOf(signer.privateKey, 'ES256'),
  });
  return { world, sent: await world.sent({ attestation }) };
}
const texts = (...chain: Issued[]) => chain.map(({ text }) => text);

describe('chains that hold', () => {
  it.each([
    { name: 'leaf and authority', chain: texts(leaf, authority), anchors: [root.pem] },
    { name: 'leaf, authority and the root itself', chain: texts(leaf, authority, root), anchors: [root.pem] },
    { name: 'the leaf alone, below a trusted authority', chain: texts(leaf), anchors: [authority.pem] },
    { name: 'with an anchor among others', chain: texts(leaf, authority), anchors: [foreign.root.pem, root.pem] },
  ])('IMPL-5: $name', async ({ chain, anchors }) => {
    const { world, sent } = await send(chain, leaf, { anchors });
    await expect(world.verify(sent)).resolves.toMatchObject({ clientId: CLIENT_ID, attester: 'CN=attester' });
  });

  it.each([
    { name: 'for signing JWTs (RFC 9509)', purposes: [SERVER_AUTH, SIGNS_JWTS], options: {} },
    { name: 'for everything', purposes: [ANY_PURPOSE], options: {} },
    { name: 'for what the operator named', purposes: [CODE_SIGNING], options: { purposes: [CODE_SIGNING] } },
  ])('IMPL-5: a leaf $name', async ({ purposes, options }) => {
    const made = issueCertificate({ name: 'attester', issuer: authority, ca: false, usage: SIGN_USAGE, purposes });
    const world = createWorld({ trust: x5c({ anchors: [root.pem], ...options }) });
    const header = { kid: undefined, x5c: texts(made, authority) };
    const attestation = await world.attestation({ header, signer: signerOf(made.privateKey, 'ES256') });
    await expect(world.verify(await world.sent({ attestation }))).resolves.toMatchObject({ clientId: CLIENT_ID });
  });

  it('IMPL-5: anchors may be DER, and a chain seen before is judged again by its dates', async () => {
    const short = issueCertificate({
      name: 'short-lived',
      issuer: authority,
      ca: false,
      usage: SIGN_USAGE,
      notAfter: new Date('2026-11-22T12:30:00Z'),
    });
    const trust = x5c({ anchors: [new Uint8Array(root.der)], attester: 'ours' });
    const world = createWorld({ trust });
    const header = { kid: undefined, x5c: texts(short, authority) };
    const attestation = await world.attestation({ header, signer: signerOf(short.privateKey, 'ES256') });
    await expect(world.verify(await world.sent({ attestation }))).resolves.toMatchObject({ attester: 'ours' });
    world.clock.now += 31 * 60_000;
    await expectRefused(world, await world.sent({ attestation }), {
      code: 'invalid_client_attestation',
      rule: 'IMPL-5',
    });
  });
});

describe('chains that are refused', () => {
  const below = (issuer: Issued, changes: object = {}) =>
    issueCertificate({ name: 'attester', issuer, ca: false, usage: SIGN_USAGE, ...changes });
  const ca = (name: string, issuer: Issued, changes: object = {}) =>
    issueCertificate({ name, issuer, ca: true, usage: CA_USAGE, ...changes });

  const selfSigned = issueCertificate({ name: 'attester', usage: SIGN_USAGE });
  const impostor = issueCertificate({ name: 'root', ca: true, usage: CA_USAGE });
  const notCa = below(root);
  const noConstraints = issueCertificate({ name: 'middle', issuer: root, usage: CA_USAGE });
  const noCertSign = ca('middle', root, { usage: SIGN_USAGE });
  const limited = ca('limited', root, { pathLength: 0 });
  const underLimited = ca('under', limited);
  const expired = ca('middle', root, { notAfter: new Date('2021-01-01T00:00:00Z') });
  const early = ca('middle', root, { notBefore: new Date('2040-01-01T00:00:00Z') });
  const weakKey = ca('middle', root, { keys: generateKeyPairSync('rsa', { modulusLength: 1024 }) });
  const sha1 = ca('middle', root, { hash: 'sha1' });
  const rsa = ca('rsa', root, { keys: generateKeyPairSync('rsa', { modulusLength: 2048 }) });
  const constrained = ca('middle', root, { critical: '2.5.29.30' });
  const deep: Issued[] = [];
  for (let i = 0; i < 5; i++) deep.unshift(ca(`level ${i}`, deep[0] ?? root));

  const under = (issuer: Issued, changes: object = {}): [Issued, ...Issued[]] => [below(issuer, changes), issuer];
  const rows: { name: string; chain: [Issued, ...Issued[]] }[] = [
    { name: 'without an anchor', chain: [foreign.leaf, foreign.authority, foreign.root] },
    { name: 'self-signed', chain: [selfSigned] },
    { name: 'of an impostor with the name of the root', chain: [below(impostor), impostor] },
    { name: 'below an impostor, without it', chain: [below(impostor)] },
    { name: 'without its authority', chain: [leaf] },
    { name: 'that is the anchor alone', chain: [root] },
    { name: 'whose leaf is an authority', chain: [ca('attester', authority), authority] },
    {
      name: 'whose leaf is an authority that may sign other things too',
      chain: [ca('attester', root, { usage: CA_USAGE | SIGN_USAGE })],
    },
    { name: 'whose leaf is not for signing', chain: under(authority, { usage: CA_USAGE }) },
    { name: 'whose leaf has expired', chain: under(authority, { notAfter: new Date('2021-01-01T00:00:00Z') }) },
    { name: 'whose leaf is not valid yet', chain: under(authority, { notBefore: new Date('2040-01-01T00:00:00Z') }) },
    { name: 'with an expired authority', chain: under(expired) },
    { name: 'with an authority that is not valid yet', chain: under(early) },
    { name: 'issued by a leaf', chain: under(notCa) },
    { name: 'issued by a certificate without basic constraints', chain: under(noConstraints) },
    { name: 'issued by an authority that may not sign certificates', chain: under(noCertSign) },
    { name: 'whose leaf is signed with SHA-1', chain: under(authority, { hash: 'sha1' }) },
    { name: 'whose leaf is signed with RSASSA-PSS and SHA-1', chain: under(rsa, { hash: 'sha1', pss: true }) },
    { name: 'with an authority that is signed with SHA-1', chain: under(sha1) },
    { name: 'longer than an authority allows', chain: [below(underLimited), underLimited, limited] },
    { name: 'with a critical extension that is not understood', chain: under(constrained) },
    {
      name: 'with a leaf that has a critical extension that is not understood',
      chain: under(authority, { critical: '1.2.3.4' }),
    },
    { name: 'whose leaf is for TLS servers', chain: under(authority, { purposes: [SERVER_AUTH, CLIENT_AUTH] }) },
    { name: 'below an authority for TLS servers only', chain: under(ca('tls', root, { purposes: [SERVER_AUTH] })) },
    { name: 'with more certificates than are looked at', chain: [below(deep[0] as Issued), ...deep] },
    { name: 'with a stranger in between', chain: [leaf, foreign.authority, authority] },
  ];
  it.each(rows)('IMPL-5: a chain $name', async ({ chain }) => {
    const { world, sent } = await send(texts(...chain), chain[0]);
    await expectRefused(world, sent, { code: 'invalid_client_attestation', rule: 'IMPL-5' });
  });

  it('IMPL-5, VER-4: a chain with a weak key in the middle', async () => {
    const chain = under(weakKey);
    const { world, sent } = await send(texts(...chain), chain[0]);
    await expectRefused(world, sent, { code: 'invalid_client_attestation', rule: 'VER-4' });
  });

  it('IMPL-5: a chain in the wrong order', async () => {
    const { world, sent } = await send(texts(authority, leaf), leaf);
    await expectRefused(world, sent, { code: 'invalid_client_attestation', rule: 'IMPL-5' });
  });

  it('IMPL-5: one that only the store of the system trusts', async () => {
    const system = String(rootCertificates[0]).replace(/-----[^-]+-----|\s/g, '');
    for (const chain of [[system], [leaf.text, system]]) {
      const { world, sent } = await send(chain, leaf, { anchors: [foreign.root.pem] });
      await expectRefused(world, sent, { code: 'invalid_client_attestation', rule: 'IMPL-5' });
    }
  });

  it('VER-3: a good chain with the signature of another key', async () => {
    const { world, sent } = await send(texts(leaf, authority), foreign.leaf);
    await expectRefused(world, sent, { code: 'invalid_client_attestation', rule: 'VER-3' });
  });

  it.each([
    ['an empty list', []],
    ['a string', leaf.text],
    ['null', null],
    ['an object', { 0: leaf.text }],
    ['numbers', [1, 2]],
    ['objects that cannot be turned into text', [{ toString: 1 }]],
    ['nested lists', [[leaf.text, authority.text]]],
    ['one text with two certificates', [`${leaf.text} ${authority.text}`]],
    ['base64url', [leaf.der.toString('base64url'), authority.der.toString('base64url')]],
    ['white space inside', [leaf.text.replace(/.{64}/g, '$&\n')]],
    ['PEM', [leaf.pem]],
    ['a truncated certificate', [leaf.text.slice(0, 200)]],
    ['base64 of something else', ['AAAA']],
  ])('IMPL-5: an x5c header that is %s', async (_, chain) => {
    const { world, sent } = await send(chain);
    await expectRefused(world, sent, { code: 'invalid_client_attestation', rule: 'IMPL-5' });
  });

  it('IMPL-5: a leaf with a key that JWK cannot express', async () => {
    const keys = generateKeyPairSync('rsa-pss', { modulusLength: 2048 });
    const odd = below(authority, { keys });
    const { world, sent } = await send(texts(odd, authority), leaf);
    await expectRefused(world, sent, { code: 'invalid_client_attestation', rule: 'IMPL-5' });
  });

  it('IMPL-5: a leaf whose key does not fit the algorithm', async () => {
    const keys = generateKeyPairSync('ec', { namedCurve: 'P-384' });
    const { world, sent } = await send(texts(below(authority, { keys }), authority), leaf);
    await expectRefused(world, sent, { code: 'invalid_client_attestation', rule: 'IMPL-5' });
  });

  it('VER-4: a leaf with a weak RSA key', async () => {
    const keys = generateKeyPairSync('rsa', { modulusLength: 1024 });
    const { world, sent } = await send(texts(below(authority, { keys }), authority), leaf);
    await expectRefused(world, sent, { code: 'invalid_client_attestation', rule: 'VER-4' });
  });

  it('IMPL-5: anchors that are no list, and allow-lists that are none, are refused when the source is made', async () => {
    for (const make of [() => x5c({ anchors: root.pem as never }), () => jku({ allow: {} as never })]) {
      await expectRefusal(make, { code: 'invalid_argument', rule: 'IMPL-5' });
    }
  });

  it('IMPL-5: an anchor that is no certificate is refused when the source is made', async () => {
    for (const anchor of ['', 'text', new Uint8Array(10)]) {
      await expectRefusal(() => x5c({ anchors: [anchor] }), { code: 'invalid_argument', rule: 'IMPL-5' });
    }
  });
});

describe('beside other trust', () => {
  it('IMPL-5: attestations without x5c are left to the other sources', async () => {
    const attester = newSigner('ES256', 'k');
    const trust = [x5c({ anchors: [root.pem] }), jwks({ keys: [attester.publicJwk] })];
    const world = createWorld({ attester, trust });
    await expect(world.verify(await world.sent())).resolves.toMatchObject({ attester: attester.thumbprint });
  });

  it('IMPL-5: a chain that this source refuses does not keep out what another source vouches for', async () => {
    const attester = newSigner('ES256', 'k');
    const sources = [x5c({ anchors: [root.pem] }), jwks({ keys: [attester.publicJwk] })];
    for (const trust of [sources, sources.toReversed()]) {
      const world = createWorld({ attester, trust });
      const header = { x5c: texts(foreign.leaf, foreign.authority) };
      const attestation = await world.attestation({ header });
      await expect(world.verify(await world.sent({ attestation }))).resolves.toMatchObject({
        attester: attester.thumbprint,
      });
      const forged = await world.attestation({ header, signer: signerOf(foreign.leaf.privateKey, 'ES256') });
      await expectRefused(world, await world.sent({ attestation: forged }), {
        code: 'invalid_client_attestation',
        rule: 'IMPL-5',
      });
    }
  });

  it('VER-3: the clients of a source hold for its chains', async () => {
    const world = createWorld({ trust: x5c({ anchors: [root.pem], clients: ['https://other.example'] }) });
    const header = { kid: undefined, x5c: texts(leaf, authority) };
    const attestation = await world.attestation({ header, signer: signerOf(leaf.privateKey, 'ES256') });
    await expectRefused(world, await world.sent({ attestation }), {
      code: 'invalid_client_attestation',
      rule: 'VER-3',
    });
  });
});
