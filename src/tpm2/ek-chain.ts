/** From an EK certificate up to a trusted one (RFC 5280 §6.1). The way is searched, as certificates come in any order. */
import type { X509Certificate } from 'node:crypto';
import {
  id_ce_basicConstraints,
  id_ce_certificatePolicies,
  id_ce_extKeyUsage,
  id_ce_keyUsage,
  id_ce_subjectAltName,
} from '@peculiar/asn1-x509';
import { readPublicJwk } from '../core/jwk.ts';
import type { AttestedError } from '../errors.ts';
import {
  authorityFault,
  certificateJwk,
  isIssuedBy,
  type ReadCertificate,
  readCertificate,
} from '../platform/certificates.ts';
import { refused } from './refusal.ts';

/** Certificates from the leaf to the anchor. */
const MAX_CHAIN = 6;
/** Whoever brings many intermediates that could all be each other's issuer must not keep this process busy. */
const MAX_SIGNATURES = 64;

export const EK_PURPOSE = '2.23.133.8.1';
const ANY_PURPOSE = '2.5.29.37.0';

/**
 * Critical extensions that may be there. Of names and policies nothing depends on: no policy is asked for, and names of
 * the TPM are read from the leaf. Constraints on names or policies are not among them: who makes them critical is refused.
 */
const UNDERSTOOD = new Set<string>([
  id_ce_basicConstraints,
  id_ce_keyUsage,
  id_ce_extKeyUsage,
  id_ce_subjectAltName,
  id_ce_certificatePolicies,
]);

/**
 * Leaf to anchor, anchor included: the shortest way on which every rule holds.
 *
 * Both lists may be long, as bundles of all makers are: OpenSSL looks at the names in each, and what fits is read whole.
 *
 * @param now milliseconds since the epoch
 * @throws AttestedError `tpm_refused` with the first rule that broke on a way to an anchor, or when there is no way
 */
export function chainToRoot(
  leaf: ReadCertificate,
  intermediates: readonly X509Certificate[],
  roots: readonly X509Certificate[],
  now: number,
): ReadCertificate[] {
  const fault = certificateFault(leaf, now) ?? (leaf.isCa ? 'is that of a certificate authority' : undefined);
  if (fault !== undefined) throw refusedChain(fault);
  let firstFault: string | undefined;
  let signatures = 0;
  const known = new Map<X509Certificate, ReadCertificate | undefined>();

  function readOnce(x509: X509Certificate): ReadCertificate | undefined {
    if (!known.has(x509)) known.set(x509, readCertificate(x509.raw));
    return known.get(x509);
  }

  /** The candidates that may stand on top of a chain, and did issue what is below them. */
  function issuersOf(chain: readonly ReadCertificate[], candidates: readonly X509Certificate[]): ReadCertificate[] {
    const below = topOf(chain);
    return candidates
      .filter((candidate) => below.x509.checkIssued(candidate))
      .flatMap((candidate) => readOnce(candidate) ?? [])
      .filter((issuer) => !chain.includes(issuer) && mayFollow(chain, issuer));
  }

  function mayFollow(chain: readonly ReadCertificate[], issuer: ReadCertificate): boolean {
    const below = topOf(chain);
    // before its key is used for anything: intermediates come from the device
    const fault =
      certificateFault(issuer, now) ??
      authorityFault(issuer, chain.length - 1) ??
      purposeFault(issuer) ??
      keyFault(issuer) ??
      (below.stronglySigned ? undefined : 'has a signature by a weak algorithm');
    if (fault === undefined && ++signatures <= MAX_SIGNATURES) return isIssuedBy(below, issuer);
    firstFault ??= fault;
    return false;
  }

  let level: ReadCertificate[][] = [[leaf]];
  while (level.length > 0) {
    for (const chain of level) {
      const [anchor] = issuersOf(chain, roots);
      if (anchor !== undefined) return [...chain, anchor];
    }
    level = level
      .filter((chain) => chain.length + 1 < MAX_CHAIN)
      .flatMap((chain) => issuersOf(chain, intermediates).map((intermediate) => [...chain, intermediate]));
  }
  throw refusedChain(firstFault ?? 'does not lead to a trusted root');
}

function topOf(chain: readonly ReadCertificate[]): ReadCertificate {
  return chain.at(-1) as ReadCertificate;
}

/** What holds for every certificate. */
function certificateFault({ x509, critical }: ReadCertificate, now: number): string | undefined {
  const valid = now >= x509.validFromDate.getTime() && now <= x509.validToDate.getTime();
  if (!valid) return 'has a certificate outside its validity';
  return critical.every((id) => UNDERSTOOD.has(id)) ? undefined : 'has a critical extension that is not understood';
}

/** An authority for something else, under the same root, must not make endorsement keys. */
function purposeFault({ purposes }: ReadCertificate): string | undefined {
  const good = purposes?.some((purpose) => purpose === EK_PURPOSE || purpose === ANY_PURPOSE) ?? true;
  return good ? undefined : 'has an issuer for other purposes than endorsement keys';
}

function keyFault(issuer: ReadCertificate): string | undefined {
  try {
    readPublicJwk(certificateJwk(issuer), 'tpm_refused');
    return undefined;
  } catch {
    return 'has an issuer with a weak or unsupported key';
  }
}

function refusedChain(why: string): AttestedError {
  return refused(2, `the EK certificate ${why}`);
}
