/** What a TPM says of itself, for `attested doctor`. Only reads: properties, and certificates in NV that everybody may read. */
import { AttestedError } from '../../errors.ts';
import { TPM_CAP } from '../../native/tpm2-tss/capabilities.ts';
import { type EkCertificate, readEkCertificate } from '../../tpm2/ek-certificate.ts';
import { ekHash } from '../../tpm2/ek-hash.ts';
import { parsePublic } from '../../tpm2/public.ts';
import { type EkKind, ekCertificateIndexes } from '../../tpm2/templates.ts';
import { readVendor, type Vendor } from '../../tpm2/vendors.ts';
import { algorithmsOf } from './algorithms.ts';
import { type Command, createCommand, DEADLINE } from './commands.ts';
import { findEndorsementKey } from './endorsement.ts';
import { shareTpm } from './registry.ts';
import { addressOf, type Tcti } from './tcti.ts';

export interface TpmDescription {
  /** Such as `2.0`. */
  family: string;
  /** Of the specification, such as `1.59`. */
  revision: string;
  manufacturer: Vendor;
  /** The maker's own words, as far as they are printable ASCII. */
  vendorText: string;
  firmware: string;
  /** JWS algorithms that it makes keys for. */
  algorithms: readonly string[];
  /** The standard storage key stands at 0x81000001. */
  persistentStorageKey: boolean;
  /** Objects that can still be loaded now. */
  freeSlots: number;
  lockout: {
    /** Wrong auth values so far, and how many lead to the lock-out. */
    failures: number;
    limit: number;
    /** Seconds after which one failure is forgotten; 0: never. */
    recovery: number;
    locked: boolean;
  };
  passwords: { owner: boolean; endorsement: boolean };
  /** The one that evidence is made with. */
  endorsementKey: DescribedEndorsementKey | { unavailable: string };
  endorsementCertificates: readonly EndorsementCertificate[];
}

export interface DescribedEndorsementKey {
  kind: EkKind;
  /** What an attester's lists (`allowEk`, `inventory`) name this TPM by: SHA-256 of its SubjectPublicKeyInfo, base64url. */
  hash: string;
  /** Has it a certificate? */
  certified: boolean;
}

export interface EndorsementCertificate {
  kind: EkKind;
  /** NV index. */
  index: number;
  /** Absent where it cannot be read; `unreadable` says why. */
  certificate?: Pick<
    EkCertificate,
    'subject' | 'manufacturerName' | 'issuer' | 'issuerUrls' | 'notBefore' | 'notAfter'
  >;
  unreadable?: string;
}

const ALL = 256;
const SRK_HANDLE = 0x81000001;
/** TPM_PT (TPM 2.0 Part 2 §6.13): fixed properties from 0x100 on, variable ones from 0x200 on. */
const PROPERTY = {
  family: 0x100,
  revision: 0x102,
  manufacturer: 0x105,
  vendor: 0x106,
  firmware: 0x10b,
  permanent: 0x200,
  slotsFree: 0x207,
  lockoutCounter: 0x20e,
  lockoutLimit: 0x20f,
  lockoutInterval: 0x210,
} as const;
/** TPMA_PERMANENT. */
const PERMANENT = { ownerAuth: 1 << 0, endorsementAuth: 1 << 1, inLockout: 1 << 9 } as const;

/**
 * @param deadline milliseconds for each command
 * @throws AttestedError `key_store_unavailable`
 */
export async function describeTpm(tcti: Tcti, deadline: number = DEADLINE): Promise<TpmDescription> {
  const shared = shareTpm(addressOf(tcti));
  try {
    return await describe(createCommand(shared.request, deadline));
  } finally {
    await shared.release();
  }
}

async function describe(command: Command): Promise<TpmDescription> {
  const fixed = await command('capability', [TPM_CAP.TPM_PROPERTIES, 0x100, ALL]);
  const variable = await command('capability', [TPM_CAP.TPM_PROPERTIES, 0x200, ALL]);
  const values = new Map([...fixed, ...variable].map((pair) => [pair.property, pair.value >>> 0]));
  const property = (id: number) => values.get(id) ?? 0;
  const algorithms = await command('capability', [TPM_CAP.ALGS, 0, ALL]);
  const curves = await command('capability', [TPM_CAP.ECC_CURVES, 0, ALL]);
  const [persistent] = await command('capability', [TPM_CAP.HANDLES, SRK_HANDLE, 1]);
  const permanent = property(PROPERTY.permanent);
  const id = property(PROPERTY.manufacturer).toString(16).padStart(8, '0');
  const [high, low] = [property(PROPERTY.firmware), property(PROPERTY.firmware + 1)];
  return {
    family: textOf(property(PROPERTY.family)),
    revision: (property(PROPERTY.revision) / 100).toFixed(2),
    manufacturer: readVendor(`id:${id}`) ?? { id: `id:${id.toUpperCase()}` },
    vendorText: [0, 1, 2, 3].map((i) => textOf(property(PROPERTY.vendor + i))).join(''),
    firmware: [high >>> 16, high & 0xffff, low >>> 16, low & 0xffff].join('.'),
    algorithms: algorithmsOf({
      algorithms: algorithms.map((pair) => pair.property),
      curves: curves.map(({ value }) => value),
    }),
    persistentStorageKey: persistent?.value === SRK_HANDLE,
    freeSlots: property(PROPERTY.slotsFree),
    lockout: {
      failures: property(PROPERTY.lockoutCounter),
      limit: property(PROPERTY.lockoutLimit),
      recovery: property(PROPERTY.lockoutInterval),
      locked: (permanent & PERMANENT.inLockout) !== 0,
    },
    passwords: {
      owner: (permanent & PERMANENT.ownerAuth) !== 0,
      endorsement: (permanent & PERMANENT.endorsementAuth) !== 0,
    },
    endorsementKey: await endorsementKey(command),
    endorsementCertificates: await endorsementCertificates(command),
  };
}

async function endorsementKey(command: Command): Promise<TpmDescription['endorsementKey']> {
  try {
    const { kind, key } = await findEndorsementKey(command);
    const { publicJwk } = parsePublic(key.publicArea);
    if (publicJwk === undefined) return { unavailable: 'the endorsement key is of a kind that is not known here' };
    return { kind, hash: ekHash(publicJwk), certified: key.certificate !== undefined };
  } catch (error) {
    if (!(error instanceof AttestedError)) throw error;
    return { unavailable: error.message };
  }
}

async function endorsementCertificates(command: Command): Promise<EndorsementCertificate[]> {
  const found: EndorsementCertificate[] = [];
  for (const [kind, index] of Object.entries(ekCertificateIndexes) as [EkKind, number][]) {
    const said = await readIndex(command, index);
    if (said !== undefined) found.push({ kind, index, ...said });
  }
  return found;
}

async function readIndex(
  command: Command,
  index: number,
): Promise<Pick<EndorsementCertificate, 'certificate' | 'unreadable'> | undefined> {
  const [present] = await command('capability', [TPM_CAP.HANDLES, index, 1]);
  if (present?.value !== index) return undefined;
  try {
    const stored = await command('nvRead', [index]);
    if (stored === undefined) return undefined;
    const { subject, manufacturerName, issuer, issuerUrls, notBefore, notAfter } = readEkCertificate(stored);
    const named = manufacturerName === undefined ? {} : { manufacturerName };
    return { certificate: { subject, ...named, issuer, issuerUrls, notBefore, notAfter } };
  } catch (error) {
    // one that is damaged, or that the owner's password keeps from us, is no reason to say nothing of the rest
    if (!(error instanceof AttestedError)) throw error;
    return { unreadable: error.message };
  }
}

/** Four characters in a number; what is not printable is left out. */
function textOf(value: number): string {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes.toString('latin1').replace(/[^\x20-\x7e]/g, '');
}
