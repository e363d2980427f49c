/** The endorsement key: which one, its certificate, and the policy under which it is used (TCG EK Credential Profile). */
import { createHash, X509Certificate } from 'node:crypto';
import { type PublicJwk, sameKey } from '../../core/jwk.ts';
import { AttestedError } from '../../errors.ts';
import { hashes } from '../../tpm2/algorithms.ts';
import type { EndorsementKey } from '../../tpm2/device.ts';
import { readEkCertificate } from '../../tpm2/ek-certificate.ts';
import { parsePublic } from '../../tpm2/public.ts';
import { type EkKind, ekCertificateIndexes, ekTemplate } from '../../tpm2/templates.ts';
import type { Command } from './commands.ts';

/** What is fast to make comes first: an RSA primary can take a TPM half a minute. */
const kinds: readonly EkKind[] = ['P-256', 'P-384', 'RSA-2048'];
/** Where no certificate decides: what nearly every TPM has. */
const WITHOUT_CERTIFICATE: readonly EkKind[] = ['P-256', 'RSA-2048'];
const FIRST_OF_CHAIN = 0x01c00100;
/** More than the NV of any TPM has room for. */
const MOST_OF_CHAIN = 16;

export interface FoundKey {
  kind: EkKind;
  key: EndorsementKey;
}

/**
 * The endorsement key that has a certificate in NV, or one without, where no kind has.
 *
 * @throws AttestedError `key_store_unavailable` when there is a certificate, but none for a key that the standard templates make
 */
export async function findEndorsementKey(command: Command): Promise<FoundKey> {
  const strangers: string[] = [];
  for (const kind of kinds) {
    const index = ekCertificateIndexes[kind];
    const stored = await command('nvRead', [index]);
    const certificate = stored && derAt(stored, 0);
    if (certificate === undefined) continue;
    const publicArea = await command('endorsementKey', [ekTemplate(kind)]);
    if (isFor(certificate, publicArea)) {
      return { kind, key: { publicArea, certificate, chain: await readChain(command) } };
    }
    strangers.push(`0x${index.toString(16)}`);
  }
  if (strangers.length > 0) {
    throw new AttestedError(
      'key_store_unavailable',
      `the endorsement certificate in the TPM (NV ${strangers.join(', ')}) is for another key than the one that the TPM makes ` +
        'from the standard template: its endorsement seed was changed since, or its maker used a template of his own',
    );
  }
  return findUncertified(command);
}

async function findUncertified(command: Command): Promise<FoundKey> {
  let failure: unknown;
  for (const kind of WITHOUT_CERTIFICATE) {
    try {
      const publicArea = await command('endorsementKey', [ekTemplate(kind)]);
      return { kind, key: { publicArea, certificate: undefined, chain: [] } };
    } catch (error) {
      failure = error; // it may lack the algorithm
    }
  }
  throw failure;
}

/** Certificates one after the other, over as many indexes as they need. */
async function readChain(command: Command): Promise<Uint8Array[]> {
  const parts: Uint8Array[] = [];
  for (let index = FIRST_OF_CHAIN; index < FIRST_OF_CHAIN + MOST_OF_CHAIN; index++) {
    const part = await command('nvRead', [index]);
    if (part === undefined) break;
    parts.push(part);
  }
  const bytes = Buffer.concat(parts);
  const chain: Uint8Array[] = [];
  for (let offset = 0; ; ) {
    const certificate = derAt(bytes, offset);
    if (certificate === undefined) return chain;
    chain.push(certificate);
    offset += certificate.length;
  }
}

/** The DER SEQUENCE that begins here, without what NV is padded with; undefined when there is none. */
export function derAt(bytes: Uint8Array, offset: number): Uint8Array | undefined {
  if (bytes[offset] !== 0x30) return undefined;
  const first = bytes[offset + 1] ?? 0;
  const lengthBytes = first < 0x80 ? 0 : first & 0x7f;
  if (first === 0x80 || lengthBytes > 3 || offset + 2 + lengthBytes > bytes.length) return undefined;
  let length = lengthBytes === 0 ? first : 0;
  for (let i = 0; i < lengthBytes; i++) length = length * 256 + (bytes[offset + 2 + i] as number);
  const end = offset + 2 + lengthBytes + length;
  return end <= bytes.length ? Uint8Array.from(bytes.subarray(offset, end)) : undefined;
}

function isFor(certificate: Uint8Array, publicArea: Uint8Array): boolean {
  const { publicJwk } = parsePublic(publicArea);
  if (publicJwk === undefined) return false;
  const readers = [
    () => new X509Certificate(certificate).publicKey.export({ format: 'jwk' }) as PublicJwk,
    // reads also what OpenSSL does not: keys that their makers named for RSAES-OAEP
    () => readEkCertificate(certificate).publicKey,
  ];
  return readers.some((read) => {
    try {
      return sameKey(read(), publicJwk);
    } catch {
      return false;
    }
  });
}

const wide: readonly EkKind[] = ['P-384'];
const TPM_CC_POLICY_SECRET = 0x151;
const TPM_RH_ENDORSEMENT = 0x4000000b;
/** PolicyAuthorizeNV of index 0x01C07F02, SHA-384: PolicyC of the profile. */
const POLICY_C = 'd6032ce61f2fb3c240eb3cf6a33237ef2b6a16f4293c22b455e261cffd217ad5b4947c2d73e63005eed2dc2b3593d165';

/** TPM_ALG_ID of the hash that the policy session of this kind works with. */
export function sessionHash(kind: EkKind): number {
  return (wide.includes(kind) ? hashes.sha384 : hashes.sha256).id;
}

/** Keys of the high range are used under PolicyOR of PolicySecret and PolicyAuthorizeNV; those of the low range under PolicySecret. */
export function policyOrBranches(kind: EkKind): { policyOr?: Uint8Array[] } {
  return wide.includes(kind) ? { policyOr: [policySecretDigest(), Buffer.from(POLICY_C, 'hex')] } : {};
}

/** PolicyA with SHA-384: H(H(zeros ‖ command ‖ Name of the hierarchy) ‖ empty policyRef), TPM 2.0 Part 3 §23.4. */
function policySecretDigest(): Uint8Array {
  const named = Buffer.alloc(48 + 8);
  named.writeUInt32BE(TPM_CC_POLICY_SECRET, 48);
  named.writeUInt32BE(TPM_RH_ENDORSEMENT, 52);
  const first = createHash('sha384').update(named).digest();
  return createHash('sha384').update(first).digest();
}
