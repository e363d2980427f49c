/** The log in which firmware wrote what it measured (TCG PC Client Platform Firmware Profile §10). A claim until it replays. */
import { fromUtf8 } from '../core/bytes.ts';
import { hashes, hashesById } from './algorithms.ts';
import type { PcrBankName } from './device.ts';
import { EV_NO_ACTION, eventTypeName } from './event-types.ts';
import { ruleOf } from './refusal.ts';
import { malformed } from './wire.ts';

export interface TcgEvent {
  /** 0 to 23; 0xFFFFFFFF for some events that are not measured. */
  pcr: number;
  type: number;
  /** The type's name in the profile, or `unknown`. */
  typeName: string;
  /** What was extended, by bank. All zero where nothing was. */
  digests: Partial<Record<PcrBankName, Uint8Array>>;
  /** What the event says. Of many types the digest is of something else, such as the program that was started. */
  data: Uint8Array;
}

/** The first event of a crypto-agile log. */
export interface SpecId {
  platformClass: number;
  /** Of the profile: major, minor, errata. */
  version: readonly [number, number, number];
  /** Every algorithm of the log, also those that no bank here has; `bytes` is a digest's length. */
  algorithms: readonly { id: number; bytes: number; bank?: PcrBankName }[];
  vendorInfo: Uint8Array;
}

export interface EventLog {
  /** `sha1`: the older form, of TPM 1.2 and early firmware for TPM 2.0. */
  format: 'sha1' | 'crypto-agile';
  /** In a crypto-agile log. */
  specId?: SpecId;
  /** The banks that can be replayed. */
  algorithms: readonly PcrBankName[];
  /** In the order of the log; without the one that gave `specId`. */
  events: readonly TcgEvent[];
}

const MAX_BYTES = 4 * 1024 * 1024;
const MAX_EVENTS = 16_384;
const MAX_ALGORITHMS = 16;
const MAX_DIGEST_BYTES = 128;
const PCRS = 24;
const NO_PCR = 0xffffffff;
const SPEC_ID = 'Spec ID Event03\0';
const RULE = ruleOf(8);

/**
 * Reads an event log as the operating system gives it (Linux: `/sys/kernel/security/tpm0/binary_bios_measurements`), in the
 * older SHA-1 form or crypto-agile. Strict: nothing cut short or left over, in an event no digest of an algorithm that the
 * header does not name and none twice; at most 4 MiB and 16,384 events. A digest may be missing, as the operating systems
 * have it; the PCR does not replay then.
 *
 * A log proves nothing by itself: see `eventLogMatches`.
 *
 * @throws AttestedError `tpm_malformed`
 */
export function parseEventLog(bytes: Uint8Array): EventLog {
  const reader = new LogReader(bytes);
  const first = readSha1Event(reader);
  if (first.type !== EV_NO_ACTION || fromUtf8(first.data.subarray(0, SPEC_ID.length)) !== SPEC_ID) {
    return {
      format: 'sha1',
      algorithms: ['sha1'],
      events: [first, ...readEvents(reader, () => readSha1Event(reader))],
    };
  }
  const specId = readSpecId(new LogReader(first.data));
  const banks = specId.algorithms.flatMap(({ bank }) => bank ?? []);
  const events = readEvents(reader, () => readEvent(reader, specId));
  return { format: 'crypto-agile', specId, algorithms: banks, events };
}

function readEvents(reader: LogReader, read: () => TcgEvent): TcgEvent[] {
  const events: TcgEvent[] = [];
  while (!reader.ended) {
    if (events.length >= MAX_EVENTS) reader.fail('more events than any machine has');
    events.push(read());
  }
  return events;
}

/** TCG_PCR_EVENT. */
function readSha1Event(reader: LogReader): TcgEvent {
  const head = readHead(reader);
  return { ...head, digests: { sha1: reader.take(hashes.sha1.bytes) }, data: reader.take(reader.u32()) };
}

/** TCG_PCR_EVENT2. */
function readEvent(reader: LogReader, { algorithms }: SpecId): TcgEvent {
  const head = readHead(reader);
  const count = reader.u32();
  const seen = new Set<number>(); // none twice, so that no count runs past the header's algorithms
  const digests: TcgEvent['digests'] = {};
  for (let i = 0; i < count; i++) {
    const id = reader.u16();
    const algorithm = algorithms.find((one) => one.id === id);
    if (algorithm === undefined || seen.has(id)) return reader.fail('a digest of an algorithm that is not to be there');
    seen.add(id);
    const digest = reader.take(algorithm.bytes);
    if (algorithm.bank !== undefined) digests[algorithm.bank] = digest;
  }
  return { ...head, digests, data: reader.take(reader.u32()) };
}

function readHead(reader: LogReader): Pick<TcgEvent, 'pcr' | 'type' | 'typeName'> {
  const pcr = reader.u32();
  const type = reader.u32();
  if (pcr >= PCRS && !(pcr === NO_PCR && type === EV_NO_ACTION)) reader.fail('an event of a PCR that does not exist');
  return { pcr, type, typeName: eventTypeName(type) };
}

/** TCG_EfiSpecIDEvent. */
function readSpecId(reader: LogReader): SpecId {
  reader.take(SPEC_ID.length);
  const platformClass = reader.u32();
  const [minor, major, errata] = [reader.u8(), reader.u8(), reader.u8()];
  reader.u8(); // the size of a UINTN, on which nothing in the log depends
  const count = reader.u32();
  if (count === 0 || count > MAX_ALGORITHMS) reader.fail('no sane number of algorithms');
  const algorithms = Array.from({ length: count }, () => readAlgorithm(reader));
  if (new Set(algorithms.map(({ id }) => id)).size !== count) reader.fail('an algorithm twice');
  const vendorInfo = reader.take(reader.u8());
  if (!reader.ended) reader.fail('bytes left over in its header');
  return { platformClass, version: [major, minor, errata], algorithms, vendorInfo };
}

function readAlgorithm(reader: LogReader): SpecId['algorithms'][number] {
  const [id, bytes] = [reader.u16(), reader.u16()];
  const known = hashesById.get(id);
  if (bytes === 0 || bytes > MAX_DIGEST_BYTES || (known !== undefined && known.bytes !== bytes)) {
    reader.fail('an algorithm with a wrong length of digest');
  }
  return { id, bytes, ...(known !== undefined && { bank: known.name }) };
}

/** Little-endian, unlike everything else of the TPM. Works on a copy; what it gives out are views of that. */
class LogReader {
  readonly #view: DataView;
  #offset = 0;

  constructor(bytes: Uint8Array) {
    if (!(bytes instanceof Uint8Array)) throw malformed('event log', 'not given as bytes', RULE);
    if (bytes.length > MAX_BYTES) throw malformed('event log', 'longer than any machine has it', RULE);
    this.#view = new DataView(new Uint8Array(bytes).buffer);
  }

  get ended(): boolean {
    return this.#offset === this.#view.byteLength;
  }

  fail(why: string): never {
    throw malformed('event log', why, RULE);
  }

  u8(): number {
    return this.#view.getUint8(this.#advance(1));
  }

  u16(): number {
    return this.#view.getUint16(this.#advance(2), true);
  }

  u32(): number {
    return this.#view.getUint32(this.#advance(4), true);
  }

  take(length: number): Uint8Array {
    return new Uint8Array(this.#view.buffer, this.#advance(length), length);
  }

  #advance(length: number): number {
    const at = this.#offset;
    if (length > this.#view.byteLength - at) this.fail('cut short');
    this.#offset = at + length;
    return at;
  }
}
