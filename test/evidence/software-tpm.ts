/**
 * A TPM in memory that can be made to misbehave: it keeps to its part of the protocol in all that a test does not change, so
 * that the change is what is refused. Its maker is a certificate authority of the test.
 */
import { createPublicKey } from 'node:crypto';
import type { Signer } from '../../src/core/signer.ts';
import { AttestedError } from '../../src/errors.ts';
import { signerOf } from '../../src/platform/crypto.ts';
import {
  akTemplate,
  type EkKind,
  type EndorsementKey,
  ekTemplate,
  instanceKeyTemplate,
  type PcrSelection,
  type PcrValues,
  type PublicArea,
  type TpmDevice,
} from '../../src/tpm2/index.ts';
import { CA_USAGE, type Issued, issueCertificate } from '../support/certificates.ts';
import {
  type ForgedCertify,
  type ForgedQuote,
  forgeCertify,
  forgeQuote,
  keyAround,
  keyFromTemplate,
  openCredential,
  type SoftwareKey,
  selectionOf,
  softwareAk,
  softwareEk,
  softwareInstanceKey,
  somePcrs,
} from '../tpm2/forge.ts';

export const newMaker = (name = 'maker'): Issued => issueCertificate({ name, ca: true, usage: CA_USAGE });

export interface SoftwareTpm {
  ek: SoftwareKey;
  ak: SoftwareKey;
  certificate: Uint8Array | undefined;
  chain: Uint8Array[];
  enrolment: SoftwareKey;
  instance: SoftwareKey;
  /** The last clock that it gave; each statement moves it on by one. */
  clock: { clock: bigint; resetCount: number; restartCount: number; safe: boolean };
  pcrs: PcrValues;
  log: Uint8Array | undefined;
  /** Changes to what it signs, by statement. */
  forge: Partial<Record<'enrolment' | 'instance', Partial<ForgedCertify>>> & { quote?: Partial<ForgedQuote> };
  device: TpmDevice;
  signers(): { enrolmentSigner: Signer; instanceSigner: Signer };
}

export interface TpmOptions {
  /** Absent: it has no EK certificate. */
  maker?: Issued | undefined;
  kind?: EkKind;
}

export function softwareTpm({ maker, kind = 'P-256' }: TpmOptions = {}): SoftwareTpm {
  const ek = softwareEk(kind);
  const tpm: SoftwareTpm = {
    ek,
    ak: softwareAk(),
    certificate: maker && ekCertificate(maker, ek),
    chain: [],
    enrolment: softwareInstanceKey(),
    instance: softwareInstanceKey(),
    clock: { clock: 1_000_000n, resetCount: 5, restartCount: 2, safe: true },
    pcrs: somePcrs('sha256', 0, 1, 2, 3, 4, 5, 6, 7),
    log: undefined,
    forge: {},
    device: undefined as unknown as TpmDevice,
    signers: () => ({
      enrolmentSigner: signerOf(tpm.enrolment.privateKey, 'ES256'),
      instanceSigner: signerOf(tpm.instance.privateKey, 'ES256'),
    }),
  };
  tpm.device = deviceOf(tpm);
  return tpm;
}

/** tcg-kp-EKCertificate. */
const EK_PURPOSE = '2.23.133.8.1';

export function ekCertificate(maker: Issued, ek: SoftwareKey, changes: object = {}): Uint8Array {
  const keys = { privateKey: ek.privateKey, publicKey: createPublicKey(ek.privateKey) };
  return new Uint8Array(
    issueCertificate({ name: 'ek', issuer: maker, ca: false, keys, purposes: [EK_PURPOSE], ...changes }).der,
  );
}

function deviceOf(tpm: SoftwareTpm): TpmDevice {
  const tick = () => {
    tpm.clock.clock += 1n;
    return { ak: tpm.ak, clockInfo: { ...tpm.clock } };
  };
  return {
    endorsementKey: async (): Promise<EndorsementKey> => ({
      publicArea: tpm.ek.publicArea,
      certificate: tpm.certificate,
      chain: tpm.chain,
    }),
    attestationKey: async () => tpm.ak.publicArea,
    certify: async (label, extraData) => {
      const name = label as 'enrolment' | 'instance';
      const subject = tpm[name];
      const statement = forgeCertify({ ...tick(), subject, extraData, ...tpm.forge[name] });
      return { ...statement, publicArea: subject.publicArea };
    },
    quote: async (selection: PcrSelection, extraData) => {
      const pcrs = selected(tpm.pcrs, selection);
      const quote = forgeQuote({ ...tick(), pcrs, extraData, ...tpm.forge.quote });
      return { ...quote, pcrs };
    },
    eventLog: async () => tpm.log,
    activate: async (credentialBlob, encryptedSecret) => {
      const secret = openCredential(tpm.ek, tpm.ak.parsed.name, { credentialBlob, encryptedSecret });
      if (secret === undefined) throw new AttestedError('key_store_unavailable', 'not for this TPM');
      return secret;
    },
  };
}

function selected(pcrs: PcrValues, selection: PcrSelection): PcrValues {
  const values: PcrValues = {};
  for (const { bank } of selectionOf(pcrs)) {
    const numbers = selection[bank] ?? [];
    if (numbers.length > 0) {
      values[bank] = Object.fromEntries(numbers.map((pcr) => [pcr, pcrs[bank]?.[pcr] ?? new Uint8Array(32)]));
    }
  }
  return values;
}

type Part = 'ek' | 'ak' | 'enrolment' | 'instance';
const templates: Record<Part, () => Uint8Array> = {
  ek: () => ekTemplate('P-256'),
  ak: () => akTemplate(),
  enrolment: () => instanceKeyTemplate('ES256'),
  instance: () => instanceKeyTemplate('ES256'),
};

/** The same key under another public area. */
export function redress(tpm: SoftwareTpm, part: Part, changes: Partial<PublicArea>): void {
  tpm[part] = keyAround(tpm[part].privateKey, templates[part](), changes);
}

/** Another key under the same public area. */
export function replace(tpm: SoftwareTpm, part: Part, changes: Partial<PublicArea> = {}): void {
  tpm[part] = keyFromTemplate(templates[part](), changes);
}

/** Flips attributes of a key's public area. */
export function flip(tpm: SoftwareTpm, part: Part, ...bits: number[]): void {
  const raw = bits.reduce((attributes, bit) => attributes ^ bit, tpm[part].parsed.attributes.raw);
  redress(tpm, part, { attributes: raw } as Partial<PublicArea>);
}

/** The same TPM with the same keys, to be changed on its own. */
export function copyOf(tpm: SoftwareTpm): SoftwareTpm {
  const copy = softwareTpm();
  const { device, signers } = copy;
  return Object.assign(copy, { ...tpm, clock: { ...tpm.clock }, forge: { ...tpm.forge }, device, signers });
}
