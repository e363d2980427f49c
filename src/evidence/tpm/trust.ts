/** Whom an attester believes `tpm` evidence from: the operator's list, read once and strictly. */
import { AttestedError } from '../../errors.ts';
import { readCertificate } from '../../platform/certificates.ts';
import type { PcrBankName, PcrSelection, PcrValues } from '../../tpm2/device.ts';
import { type EkAnchors, readEkAnchors } from '../../tpm2/ek-certificate.ts';
import type { EventLogMatch } from '../../tpm2/event-log-replay.ts';
import { readNamedPcrs } from '../../tpm2/named-pcrs.ts';
import type { ClockAfterReset } from './clock.ts';

export interface TpmTrustOptions {
  /**
   * Roots of TPM makers, each DER or PEM (which may hold several), such as `readCertificateFiles` reads them: EK certificates
   * must lead to one. There is no default.
   */
  roots?: readonly (Uint8Array | string)[];
  /** Further certificates that may be needed on the way, besides those that a TPM brings. Nothing is ever fetched. */
  intermediates?: readonly (Uint8Array | string)[];
  /**
   * Endorsement keys that are believed without a certificate: SHA-256 of the SubjectPublicKeyInfo, hexadecimal or
   * base64url, as `attested doctor` prints it on the machine.
   */
  allowEk?: readonly string[];
  /** Where it is set, only these endorsement keys, certified or allowed as they may be: hashes as above, or a look-up. */
  inventory?: readonly string[] | ((ekHash: string, clientId: string) => boolean | Promise<boolean>);
  /**
   * Digests of authorization policies that instance keys may have, hexadecimal, such as that of PolicyPCR for the expected
   * boot state. A key without a policy is always accepted.
   */
  authPolicies?: readonly string[];
  quote?: {
    /** Every request must quote exactly these, by bank. */
    pcrs: PcrSelection;
    /** Should agents send the firmware's event log? Default: where there is a `check`. */
    eventLog?: boolean;
    /**
     * Judges the machine's state; anything but `true` refuses it. At enrolment it is asked before the TPM has shown that the AK is
     * in it, so anybody can have it asked about made-up values: it judges, and learns nothing.
     *
     * @param values of the demanded PCRs, as the TPM signed them
     * @param log what the event log proves about them; undefined where the device shows none. Only events of PCRs that the
     *   log explains in full are in it, in their order. An event's type is the device's word, and so is its data, except
     *   where `dataIsMeasured`: decide on digests that you know.
     */
    check?: (values: PcrValues, log: ProvedLog | undefined) => boolean | Promise<boolean>;
  };
  /** Largest event log in bytes, to 1 MiB. Default 256 KiB. */
  maxEventLog?: number;
  /**
   * How far a reset may put a TPM's clock back. `bounded` (default): as TPM 2.0 has it, by a loss of power and at most 70
   * minutes. `any`: for virtual TPMs on libtpms (swtpm, QEMU), which lose what they have counted since they were started. A
   * state that was put back is then found by its reset count alone.
   */
  clockAfterReset?: ClockAfterReset;
}

/** By bank: which PCRs the log explains, which it does not, and the events of the former. */
export type ProvedLog = Partial<Record<PcrBankName, EventLogMatch>>;

/** Bank → PCR → the values that are accepted, hexadecimal. */
export type PcrPins = Readonly<Partial<Record<PcrBankName, Readonly<Record<number, string | readonly string[]>>>>>;

/** {@link PcrPins} as they are compared: lower case. */
export type ReadPins = Readonly<Partial<Record<PcrBankName, Readonly<Record<number, readonly string[]>>>>>;

export interface TpmTrust {
  /** The makers' certificates, read once: what a request costs does not grow with the operator's bundles. */
  anchors: EkAnchors;
  allowEk: ReadonlySet<string>;
  isInventoried: (ekHash: string, clientId: string) => boolean | Promise<boolean>;
  /** In hexadecimal, lower case; the empty one included. */
  authPolicies: ReadonlySet<string>;
  quote: DemandedQuote | undefined;
  maxEventLog: number;
  clockAfterReset: ClockAfterReset;
}

export interface DemandedQuote {
  /** Sorted, without repetition, no bank empty. */
  pcrs: PcrSelection;
  eventLog: boolean;
  check: NonNullable<NonNullable<TpmTrustOptions['quote']>['check']>;
}

const MEMBERS: readonly string[] = [
  'roots',
  'intermediates',
  'allowEk',
  'inventory',
  'authPolicies',
  'quote',
  'maxEventLog',
  'clockAfterReset',
] satisfies (keyof TpmTrustOptions)[];

/** With those that a TPM brings, as many as `verifyEkCertificate` looks at. */
const MOST_INTERMEDIATES = 1000;

/** @throws AttestedError `invalid_argument` */
export function readTpmTrust(options: TpmTrustOptions): TpmTrust {
  if (typeof options !== 'object' || options === null) throw invalid('it is an object');
  // an inventory that is misspelt must not be no inventory
  if (!Object.keys(options).every((name) => MEMBERS.includes(name))) {
    throw invalid(`it has the members ${MEMBERS.join(', ')}, and no others`);
  }
  const { roots = [], intermediates = [], allowEk = [], inventory, authPolicies = [], quote } = options;
  const { maxEventLog = 256 * 1024, clockAfterReset = 'bounded' } = options;
  if (roots.length + allowEk.length === 0) throw invalid('it needs roots, or allowEk: no TPM is believed by default');
  if (!Number.isSafeInteger(maxEventLog) || maxEventLog < 1 || maxEventLog > 1024 * 1024) {
    throw invalid('maxEventLog is 1 to 1048576 bytes');
  }
  if (clockAfterReset !== 'bounded' && clockAfterReset !== 'any') throw invalid('clockAfterReset is bounded or any');
  const between = intermediates.flatMap(certificates);
  if (between.length > MOST_INTERMEDIATES) throw invalid(`at most ${MOST_INTERMEDIATES} intermediates`);
  return {
    anchors: readEkAnchors(roots.flatMap(certificates), between),
    allowEk: hashes(allowEk, 'allowEk'),
    isInventoried: inventoryOf(inventory),
    authPolicies: new Set(['', ...authPolicies.map(policyDigest)]),
    quote: quote && readQuote(quote),
    maxEventLog,
    clockAfterReset,
  };
}

function inventoryOf(inventory: TpmTrustOptions['inventory']): TpmTrust['isInventoried'] {
  if (inventory === undefined) return () => true;
  if (typeof inventory === 'function') return inventory;
  const listed = hashes(inventory, 'inventory');
  return (hash) => listed.has(hash);
}

function hashes(list: readonly string[], what: string): ReadonlySet<string> {
  if (!Array.isArray(list)) throw invalid(`${what} is a list`);
  return new Set(
    list.map((text) => {
      const hash = readEkHash(text);
      if (hash === undefined)
        throw invalid(`${what} has SHA-256 hashes of endorsement keys, in hexadecimal or base64url`);
      return hash;
    }),
  );
}

function policyDigest(text: string): string {
  if (typeof text !== 'string' || !/^([0-9a-f]{64}|[0-9a-f]{96}|[0-9a-f]{128})$/i.test(text)) {
    throw invalid('authPolicies has digests in hexadecimal');
  }
  return text.toLowerCase();
}

/** 64 hexadecimal digits or base64url, as operators write it down; undefined for anything else. */
function readEkHash(text: unknown): string | undefined {
  if (typeof text !== 'string') return undefined;
  if (/^[0-9a-f]{64}$/i.test(text)) return Buffer.from(text, 'hex').toString('base64url');
  return /^[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$/.test(text) ? text : undefined;
}

const PEM_BLOCK = /-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----/g;

/** DER of every certificate given, each read once: a wrong file, or a block that is cut, is found now and not at a device. */
function certificates(given: Uint8Array | string): Uint8Array[] {
  const all = typeof given === 'string' ? blocksOf(given) : [given];
  if (all.length === 0 || !all.every((der) => der instanceof Uint8Array && readCertificate(der) !== undefined)) {
    throw invalid('a certificate is DER, or PEM with CERTIFICATE blocks');
  }
  return all;
}

function blocksOf(pem: string): Uint8Array[] {
  const blocks = [...pem.matchAll(PEM_BLOCK)].map(([, base64]) => fromBase64(base64 ?? ''));
  if (blocks.length !== pem.split('-----BEGIN').length - 1) throw invalid('PEM has CERTIFICATE blocks, and no others');
  return blocks;
}

function fromBase64(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text, 'base64'));
}

function readQuote({ pcrs, eventLog, check, ...others }: NonNullable<TpmTrustOptions['quote']>): DemandedQuote {
  if (Object.keys(others).length > 0) throw invalid('quote has the members pcrs, eventLog and check, and no others');
  const selection = readNamedPcrs(pcrs);
  if (selection === undefined) throw invalid('quote.pcrs lists PCRs from 0 to 23 by bank, such as { sha256: [0, 7] }');
  if (selection.sha1 !== undefined) throw invalid('quote.pcrs has no bank sha1: two states with one value can be made');
  return { pcrs: selection, eventLog: eventLog ?? check !== undefined, check: check ?? (() => true) };
}

const HEX_DIGITS: Readonly<Partial<Record<PcrBankName, number>>> = { sha256: 64, sha384: 96, sha512: 128 };

/**
 * Reads a client's pins and compares them with what is quoted: a pin on a PCR that no quote covers would be none.
 * @throws AttestedError `invalid_argument`
 */
export function readPcrPins(pins: PcrPins, quoted: PcrSelection | undefined): ReadPins {
  const read: Partial<Record<PcrBankName, Record<number, readonly string[]>>> = {};
  for (const [bank, values] of Object.entries(pins)) {
    const name = bank as PcrBankName;
    for (const [number, value] of Object.entries(values ?? {})) {
      if (!quoted?.[name]?.includes(Number(number)) || String(Number(number)) !== number) {
        throw invalid('pcrs pins a PCR that is not among createAttester({ tpm: { quote: { pcrs } } })');
      }
      const accepted = typeof value === 'string' ? [value] : value;
      const isValue = (text: unknown) =>
        typeof text === 'string' && text.length === HEX_DIGITS[name] && /^[0-9a-f]+$/i.test(text);
      if (!Array.isArray(accepted) || accepted.length === 0 || !accepted.every(isValue)) {
        throw invalid('pcrs has values in hexadecimal, as long as their bank has them');
      }
      read[name] = { ...read[name], [number]: accepted.map((text: string) => text.toLowerCase()) };
    }
  }
  return read;
}

function invalid(why: string): AttestedError {
  return new AttestedError('invalid_argument', `attester tpm: ${why}`);
}
