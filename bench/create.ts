// run: yes
/** What creating a proof costs over the bare signature, with a software key. */
import { generateKeyPairSync, sign } from 'node:crypto';
import { createDpopProof, createPop } from 'attested';
import { generateSigner } from 'attested/keys';
import { SignJWT } from 'jose';
import { bestOf, type Candidate, comparePairs, report } from './support/pairs.ts';

const signer = await generateSigner('ES256');
const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const data = Buffer.alloc(300, 7);
const audience = 'https://as.example';
const challenge = 'AYjcyMzY3ZDhiNmJkNTZAYjcyMzY3ZDhiNmJkNTZ';

const candidates: Candidate[] = [
  {
    name: 'bare ES256 signature',
    run: (n) => {
      for (let i = 0; i < n; i++) sign('sha256', data, privateKey);
    },
  },
  {
    name: 'createPop',
    run: async (n) => {
      for (let i = 0; i < n; i++) await createPop({ audience, challenge }, signer);
    },
  },
  {
    name: 'createDpopProof',
    run: async (n) => {
      for (let i = 0; i < n; i++) await createDpopProof({ method: 'POST', url: 'https://as.example/token' }, signer);
    },
  },
  {
    name: 'the same PoP with jose SignJWT',
    run: async (n) => {
      for (let i = 0; i < n; i++) {
        await new SignJWT({ challenge })
          .setProtectedHeader({ alg: 'ES256', typ: 'oauth-client-attestation-pop+jwt' })
          .setAudience(audience)
          .setIssuedAt()
          .setJti(crypto.randomUUID())
          .sign(privateKey);
      }
    },
  },
];
const met = await bestOf(async () => report('Creating proofs', await comparePairs(candidates), { createPop: 0.85 }));
process.exitCode = met ? 0 : 1;
