/** Trust in certificate chains up to configured anchors (IMPL-5). The system's own store plays no part. */
import { id_ce_basicConstraints, id_ce_extKeyUsage, id_ce_keyUsage, KeyUsageFlags } from '@peculiar/asn1-x509';
import { keyFits } from '../../core/algorithms.ts';
import { type PublicJwk, readPublicJwk } from '../../core/jwk.ts';
import type { JoseHeader } from '../../core/jwt.ts';
import { AttestedError } from '../../errors.ts';
import {
  allows,
  authorityFault,
  certificateJwk,
  isIssuedBy,
  type ReadCertificate,
  readCertificate,
} from '../../platform/certificates.ts';
import { clientSet, type TrustedKey, type TrustOptions, type TrustSource } from './source.ts';

export interface X5cOptions extends TrustOptions {
  /** Certificates that end a chain: PEM or DER. */
  anchors: readonly (string | Uint8Array)[];
  /** Origins from which status lists may be fetched. */
  statusOrigins?: readonly string[];
  /** Object identifiers of extended key usages that make a certificate good for attestations. Default: signing JWTs (RFC 9509). */
  purposes?: readonly string[];
}

const MAX_CHAIN = 5;
const MAX_REMEMBERED = 256;
/** Critical extensions whose meaning is applied here; any other makes a certificate unusable (RFC 5280 §4.2). */
const UNDERSTOOD = new Set<string>([id_ce_basicConstraints, id_ce_keyUsage, id_ce_extKeyUsage]);

const SIGNS_JWTS = '1.3.6.1.5.5.7.3.37';
const ANY_PURPOSE = '2.5.29.37.0';

/** Trusts attestations whose `x5c` chain leads to one of the anchors. @throws AttestedError `invalid_argument` */
export function x5c(options: X5cOptions): TrustSource {
  const { anchors, clients, attester, statusOrigins = [], purposes = [SIGNS_JWTS] } = options;
  if (!Array.isArray(anchors))
    throw new AttestedError('invalid_argument', 'x5c takes a list of anchors', { rule: 'IMPL-5' });
  const roots = anchors.map((anchor) => {
    const root = readCertificate(anchor);
    if (root === undefined)
      throw new AttestedError('invalid_argument', 'an x5c anchor is not a certificate', { rule: 'IMPL-5' });
    return root;
  });
  const entitled = clientSet(clients);
  // a chain's signatures and structure never change, so one that held is remembered; its dates are judged every time
  const remembered = new Map<string, ReadCertificate[]>();

  function chainOf(header: JoseHeader): ReadCertificate[] {
    const texts = header.x5c;
    if (!Array.isArray(texts) || texts.length === 0 || texts.length > MAX_CHAIN || !texts.every(isBase64)) {
      throw refused(`must be a list of one to ${MAX_CHAIN} certificates in base64`);
    }
    const id = texts.join(' ');
    const known = remembered.get(id);
    if (known !== undefined) return known;
    const chain = verifiedChain(texts, roots, [...purposes, ANY_PURPOSE]);
    if (remembered.size >= MAX_REMEMBERED) remembered.delete(remembered.keys().next().value as string);
    remembered.set(id, chain);
    return chain;
  }

  return {
    find(header, now) {
      if (header.x5c === undefined) return [];
      const chain = chainOf(header);
      for (const { x509 } of chain) {
        if (now < x509.validFromDate.getTime() || now > x509.validToDate.getTime()) {
          throw refused('has a certificate outside its validity');
        }
      }
      const leaf = chain[0] as ReadCertificate;
      if (!keyFits(header.alg, publicJwkOf(leaf))) throw refused('has a leaf whose key does not fit the algorithm');
      const trusted: TrustedKey = {
        key: leaf.x509.publicKey,
        attester: attester ?? leaf.x509.subject,
        clients: entitled,
        validUntil: Math.min(...chain.map(({ x509 }) => x509.validToDate.getTime())),
        statusOrigins,
      };
      return [trusted];
    },
  };
}

/** Leaf to anchor, anchor included. @throws AttestedError `invalid_client_attestation` */
function verifiedChain(
  texts: readonly string[],
  roots: readonly ReadCertificate[],
  accepted: readonly string[],
): ReadCertificate[] {
  const chain = texts.map((text) => {
    const certificate = readCertificate(Buffer.from(text, 'base64'));
    if (certificate === undefined) throw refused('holds something that is not a certificate');
    return certificate;
  });
  const last = chain.at(-1) as ReadCertificate;
  const sameAsLast = ({ x509 }: ReadCertificate) => x509.raw.equals(last.x509.raw);
  const anchor = roots.find(sameAsLast) ?? roots.find((root) => isIssuedBy(last, root));
  if (anchor === undefined) throw refused('does not lead to a configured anchor');
  if (!sameAsLast(anchor)) chain.push(anchor);

  const [leaf, ...authorities] = chain as [ReadCertificate, ...ReadCertificate[]];
  if (authorities.length === 0) throw refused('must have a leaf below the anchor');
  if (leaf.isCa || !allows(leaf, KeyUsageFlags.digitalSignature)) throw refused('has a leaf that is not for signing');
  for (const [i, authority] of authorities.entries()) {
    const fault = authorityFault(authority, i);
    if (fault !== undefined) throw refused(fault);
    const issued = chain[i] as ReadCertificate;
    if (!isIssuedBy(issued, authority)) throw refused('has a certificate that the next one did not issue');
    if (!issued.stronglySigned) throw refused('has a certificate with a weak signature algorithm');
    publicJwkOf(authority); // as sound a key as any that signs attestations
  }
  // or else every TLS server with a certificate of the same authority would be an attester (RFC 5280 §4.2.1.12)
  const isFor = ({ purposes }: ReadCertificate) => purposes?.some((purpose) => accepted.includes(purpose)) ?? true;
  if (!chain.every((certificate) => certificate === anchor || isFor(certificate)))
    throw refused('has a certificate for other purposes than attestation');
  if (chain.some(({ critical }) => critical.some((id) => !UNDERSTOOD.has(id))))
    throw refused('has a critical extension that is not understood');
  return chain;
}

function publicJwkOf(certificate: ReadCertificate): PublicJwk {
  const jwk = certificateJwk(certificate);
  if (jwk === undefined) throw refused('has a certificate with a key of an unsupported type');
  return readPublicJwk(jwk);
}

/** Standard base64 of RFC 7515 §4.1.6: not base64url, no white space. */
function isBase64(text: unknown): text is string {
  return typeof text === 'string' && text.length % 4 === 0 && /^[A-Za-z0-9+/]+={0,2}$/.test(text);
}

function refused(why: string): AttestedError {
  return new AttestedError('invalid_client_attestation', `the attester's certificate chain (x5c) ${why}`, {
    rule: 'IMPL-5',
  });
}
