/** Event logs as firmware writes them, and as it should not: the TCG's structures in little-endian bytes. */
import { createHash } from 'node:crypto';

export const u8 = (value: number): Buffer => Buffer.of(value);
export const u16 = (value: number): Buffer => Buffer.from(Uint16Array.of(value).buffer);
export const u32 = (value: number): Buffer => Buffer.from(Uint32Array.of(value).buffer);

export const ALGORITHMS = { sha1: 0x0004, sha256: 0x000b, sha384: 0x000c, sha512: 0x000d } as const;
export type Bank = keyof typeof ALGORITHMS;

export interface MadeEvent {
  pcr: number;
  type: number;
  data: Uint8Array;
  /** What is measured, where it is not the data. */
  measured?: Uint8Array;
  /** Digests by bank; the others are computed. */
  digests?: Partial<Record<Bank, Uint8Array>>;
}

export const EV_NO_ACTION = 3;
export const EV_SEPARATOR = 4;
export const EV_S_CRTM_VERSION = 8;
export const EV_IPL = 13;
export const EV_EFI_BOOT_SERVICES_APPLICATION = 0x80000003;

export const hashOf = (bank: Bank, data: Uint8Array): Buffer => createHash(bank).update(data).digest();

export function digestOf(bank: Bank, { type, data, measured = data, digests = {} }: MadeEvent): Uint8Array {
  return digests[bank] ?? (type === EV_NO_ACTION ? hashOf(bank, data).fill(0) : hashOf(bank, measured));
}

/** TCG_PCR_EVENT. */
export function sha1Event(event: MadeEvent): Buffer {
  const { pcr, type, data } = event;
  return Buffer.concat([u32(pcr), u32(type), digestOf('sha1', event), u32(data.length), data]);
}

/** TCG_PCR_EVENT2. */
export function agileEvent(event: MadeEvent, banks: readonly Bank[]): Buffer {
  const digests = banks.flatMap((bank) => [u16(ALGORITHMS[bank]), digestOf(bank, event)]);
  const { pcr, type, data } = event;
  return Buffer.concat([u32(pcr), u32(type), u32(banks.length), ...digests, u32(data.length), data]);
}

export interface SpecIdFields {
  signature?: string;
  algorithms?: readonly (readonly [id: number, bytes: number])[];
  count?: number;
  vendorInfo?: Uint8Array;
  vendorInfoSize?: number;
  after?: Uint8Array;
}

/** TCG_EfiSpecIDEvent, version 2.00 errata 2. */
export function specId(fields: SpecIdFields = {}): Buffer {
  const { signature = 'Spec ID Event03\0', algorithms = [[ALGORITHMS.sha256, 32]] } = fields;
  const { count = algorithms.length, vendorInfo = new Uint8Array(), after = new Uint8Array() } = fields;
  return Buffer.concat([
    Buffer.from(signature),
    u32(0),
    Buffer.of(0, 2, 2, 2),
    u32(count),
    ...algorithms.flatMap(([id, bytes]) => [u16(id), u16(bytes)]),
    u8(fields.vendorInfoSize ?? vendorInfo.length),
    vendorInfo,
    after,
  ]);
}

/** The first event of a crypto-agile log. */
export function header(fields: SpecIdFields = {}): Buffer {
  return sha1Event({ pcr: 0, type: EV_NO_ACTION, data: specId(fields) });
}

export function agileLog(banks: readonly Bank[], events: readonly MadeEvent[]): Buffer {
  const algorithms = banks.map((bank) => [ALGORITHMS[bank], hashOf(bank, u8(0)).length] as const);
  return Buffer.concat([header({ algorithms }), ...events.map((event) => agileEvent(event, banks))]);
}

export const sha1Log = (events: readonly MadeEvent[]): Buffer => Buffer.concat(events.map(sha1Event));

export const startupLocality = (locality: number): MadeEvent => ({
  pcr: 0,
  type: EV_NO_ACTION,
  data: Buffer.concat([Buffer.from('StartupLocality\0'), u8(locality)]),
});

/** The start of a machine: firmware, separators, a boot loader and what it loads. */
export const boot: readonly MadeEvent[] = [
  { pcr: 0, type: EV_S_CRTM_VERSION, data: Buffer.from('1.2.3', 'utf16le') },
  { pcr: 7, type: 0x80000001, data: Buffer.from('SecureBoot: 1') },
  ...[0, 1, 2, 3, 4, 5, 6, 7].map((pcr) => ({ pcr, type: EV_SEPARATOR, data: Buffer.alloc(4) })),
  {
    pcr: 4,
    type: EV_EFI_BOOT_SERVICES_APPLICATION,
    data: Buffer.from('\\EFI\\BOOT'),
    measured: Buffer.from('a loader'),
  },
  { pcr: 8, type: EV_IPL, data: Buffer.from('grub_cmd: boot\0'), measured: Buffer.from('boot') },
  { pcr: 9, type: EV_IPL, data: Buffer.from('/vmlinuz\0'), measured: Buffer.from('a kernel') },
];
