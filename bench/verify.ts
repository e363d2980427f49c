// run: yes
/** What verification costs over the bare signature checks that it cannot do without. */
import { createPublicKey, generateKeyPairSync, type KeyObject, sign, verify } from 'node:crypto';
import { createAttestation, createPop, type Signer } from 'attested';
import { generateSigner } from 'attested/keys';
import { createVerifier, jwks, type Verifier } from 'attested/verifier';
import { importJWK, jwtVerify } from 'jose';
import { comparePairs, report } from './support/pairs.ts';

const audience = 'https://as.example';
const now = Math.floor(Date.now() / 1000);
const attester = await generateSigner('ES256', 'attester-1');

interface Sent {
  instance: Signer;
  headers: { 'OAuth-Client-Attestation': string; 'OAuth-Client-Attestation-PoP': string };
}

function newVerifier(): Verifier {
  return createVerifier({ role: 'as', audience, trust: jwks({ keys: [attester.publicJwk], clients: ['agent'] }) });
}

async function attest(instance: Signer): Promise<string> {
  return createAttestation({ sub: 'agent', iat: now, exp: now + 3600, cnf: { jwk: instance.publicJwk } }, attester);
}

async function send(instance: Signer, attestation: string, challenge: string): Promise<Sent> {
  // as a server gets it: one flat string, not the pieces that it was put together from
  const pop = Buffer.from(await createPop({ audience, challenge }, instance), 'latin1').toString('latin1');
  return { instance, headers: { 'OAuth-Client-Attestation': attestation, 'OAuth-Client-Attestation-PoP': pop } };
}

/** Bare work: the same bytes, the same keys, nothing but OpenSSL. */
const bareKeys = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const barePublic: KeyObject = createPublicKey(bareKeys.privateKey);
const bareData = Buffer.alloc(380, 7);
const bareSignature = sign('sha256', bareData, bareKeys.privateKey);
const bareJwk = barePublic.export({ format: 'jwk' });
const bareVerify = () => verify('sha256', bareData, barePublic, bareSignature);

const verifier = newVerifier();
const challenge = (await verifier.freshHeaders())['OAuth-Client-Attestation-Challenge'] as string;
const instance = await generateSigner('ES256');
const known = await attest(instance);
let batch: Sent[] = [];

const warm = await comparePairs([
  {
    name: 'bare ES256 verification',
    run: (n) => {
      for (let i = 0; i < n; i++) bareVerify();
    },
  },
  {
    name: 'a request with a known attestation',
    prepare: async (n) => {
      batch = await Promise.all(Array.from({ length: n }, () => send(instance, known, challenge)));
    },
    run: async () => {
      for (const { headers } of batch) await verifier.verify({ headers });
    },
  },
]);

const cold = await comparePairs([
  {
    name: 'two bare verifications and one key import',
    run: (n) => {
      for (let i = 0; i < n; i++) {
        bareVerify();
        const key = createPublicKey({ key: bareJwk, format: 'jwk' });
        verify('sha256', bareData, key, bareSignature);
      }
    },
  },
  {
    name: 'a request with a new attestation',
    prepare: async (n) => {
      const instances = await Promise.all(Array.from({ length: n }, () => generateSigner('ES256')));
      batch = await Promise.all(instances.map(async (one) => send(one, await attest(one), challenge)));
    },
    run: async () => {
      for (const { headers } of batch) await verifier.verify({ headers });
    },
  },
]);

const jose = await comparePairs([
  {
    name: 'two jose.jwtVerify with key import, in sequence',
    prepare: async (n) => {
      batch = await Promise.all(Array.from({ length: n }, () => send(instance, known, challenge)));
    },
    run: async () => {
      for (const { headers } of batch) {
        const { payload } = await jwtVerify(
          headers['OAuth-Client-Attestation'],
          await importJWK(attester.publicJwk, 'ES256'),
        );
        const { jwk } = payload.cnf as { jwk: Signer['publicJwk'] };
        await jwtVerify(headers['OAuth-Client-Attestation-PoP'], await importJWK(jwk, 'ES256'), { audience });
      }
    },
  },
  {
    name: 'a request with a known attestation',
    prepare: async (n) => {
      batch = await Promise.all(Array.from({ length: n }, () => send(instance, known, challenge)));
    },
    run: async () => {
      for (const { headers } of batch) await verifier.verify({ headers });
    },
  },
]);

const CROWD = 2000;
const crowd = newVerifier();
const crowdChallenge = (await crowd.freshHeaders())['OAuth-Client-Attestation-Challenge'] as string;
const members = await Promise.all(
  Array.from({ length: CROWD }, async () => {
    const one = await generateSigner('ES256');
    return { one, attestation: await attest(one) };
  }),
);
let turn = 0;
const many = await comparePairs([
  {
    name: 'bare ES256 verification',
    run: (n) => {
      for (let i = 0; i < n; i++) bareVerify();
    },
  },
  {
    name: `known attestations of ${CROWD} instances in turn`,
    prepare: async (n) => {
      batch = await Promise.all(
        Array.from({ length: n }, () => {
          turn += 7;
          const { one, attestation } = members[turn % CROWD] as (typeof members)[number];
          return send(one, attestation, crowdChallenge);
        }),
      );
    },
    run: async () => {
      for (const { headers } of batch) await crowd.verify({ headers });
    },
  },
]);

const met = [
  report('Warm: attestation seen before, all checks and replay on', warm, {
    'a request with a known attestation': 0.85,
  }),
  report('Cold: attestation not seen before', cold, { 'a request with a new attestation': 0.8 }),
  report('Against jose, one request after another', jose, { 'a request with a known attestation': 3 }),
  report('Many instances', many),
];
process.exitCode = met.every(Boolean) ? 0 : 1;
