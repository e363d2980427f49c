/** What an event log adds up to, and how far that is what the TPM has (TCG PC Client Platform Firmware Profile §10.4.5). */
import { equalInConstantTime } from '../platform/crypto.ts';
import { digest, hashes } from './algorithms.ts';
import type { PcrBankName } from './device.ts';
import type { EventLog, TcgEvent } from './event-log.ts';
import { EV_NO_ACTION } from './event-types.ts';
import { refused } from './refusal.ts';

/** An event whose PCR, digest and place among the events of its PCR are proved by a quote. */
export interface MeasuredEvent extends TcgEvent {
  /** `data` is what was measured: its hash is the digest. Otherwise `data` is the device's word, as `type` always is. */
  dataIsMeasured: boolean;
}

export interface EventLogMatch {
  /** PCRs whose events lead to exactly the quoted value; those without any event have their reset value. */
  matched: readonly number[];
  /** The others of those that were asked for. Of what happened in them the log proves nothing. */
  mismatched: readonly number[];
  /** The events of the matched PCRs, in the order of the log; without those that are never measured. */
  events: readonly MeasuredEvent[];
}

/**
 * The PCR values that a log leads to: PCR → value, for each PCR that has an event. Starts from zero, in PCR 0 from the
 * locality of the start-up where the log has that; leaves out EV_NO_ACTION. A PCR with an event that has no digest of this
 * bank is missing.
 *
 * The result is what the log claims. It says something about the machine only where a quote has the same value: see
 * {@link eventLogMatches}.
 *
 * @throws AttestedError `tpm_refused` when the log is not of this bank
 */
export function replayEventLog(log: EventLog, { bank }: { bank: PcrBankName }): Record<number, Uint8Array> {
  if (!log.algorithms.includes(bank)) {
    throw refused(8, 'the event log has no digests of this bank');
  }
  const values = new Map<number, Uint8Array>();
  const unknown = new Set<number>();
  for (const event of log.events) {
    if (event.type === EV_NO_ACTION) {
      const locality = startupLocality(event);
      if (locality !== undefined && !values.has(0)) values.set(0, lastByte(hashes[bank].bytes, locality));
      continue;
    }
    const measured = event.digests[bank];
    if (measured === undefined) unknown.add(event.pcr);
    else values.set(event.pcr, digest(bank, values.get(event.pcr) ?? new Uint8Array(hashes[bank].bytes), measured));
  }
  return Object.fromEntries([...values].filter(([pcr]) => !unknown.has(pcr)));
}

/**
 * Compares a log with PCR values, PCR by PCR, and gives the events that it proves. A PCR that matches has had exactly these
 * digests extended, in this order: nothing was added, left out or moved. It does not prove an event's type, and of its data
 * only what `dataIsMeasured` says: decide on digests that you know, or on data that is measured.
 *
 * @param pcrs of one bank: PCR → value, from a quote that was verified (`verifyQuote`), and from nowhere else
 */
export function eventLogMatches(
  log: EventLog,
  bank: PcrBankName,
  pcrs: Readonly<Record<number, Uint8Array>>,
): EventLogMatch {
  const replayed = log.algorithms.includes(bank) ? replayEventLog(log, { bank }) : undefined;
  const isMeasured = new Set(log.events.filter(({ type }) => type !== EV_NO_ACTION).map(({ pcr }) => pcr));
  const expectedOf = (pcr: number): Uint8Array | undefined => {
    if (replayed === undefined) return undefined;
    return replayed[pcr] ?? (isMeasured.has(pcr) ? undefined : resetValue(pcr, bank));
  };
  const asked = Object.keys(pcrs).map(Number);
  const matched = new Set(
    asked.filter((pcr) => {
      const expected = expectedOf(pcr);
      return expected !== undefined && equalInConstantTime(expected, pcrs[pcr] as Uint8Array);
    }),
  );
  const events = log.events
    .filter(({ pcr, type }) => matched.has(pcr) && type !== EV_NO_ACTION)
    .map((event) => ({ ...event, dataIsMeasured: isHashOf(event.digests[bank], bank, event.data) }));
  return { matched: [...matched], mismatched: asked.filter((pcr) => !matched.has(pcr)), events };
}

function isHashOf(measured: Uint8Array | undefined, bank: PcrBankName, data: Uint8Array): boolean {
  return measured !== undefined && equalInConstantTime(measured, digest(bank, data));
}

const STARTUP_LOCALITY = 'StartupLocality\0';

/** Who started the TPM, which PCR 0 begins with: 0, 3, or 4 after a hardware-measured start (§10.4.5.3). */
function startupLocality({ pcr, data }: TcgEvent): number | undefined {
  const begins = Buffer.from(data.subarray(0, STARTUP_LOCALITY.length)).toString('latin1') === STARTUP_LOCALITY;
  return pcr === 0 && begins ? data[STARTUP_LOCALITY.length] : undefined;
}

function lastByte(length: number, value: number): Uint8Array {
  const bytes = new Uint8Array(length);
  bytes[length - 1] = value;
  return bytes;
}

/** PCRs of the dynamic launch hold ones until there is a launch (TCG PC Client Platform TPM Profile §4.6.2). */
function resetValue(pcr: number, bank: PcrBankName): Uint8Array {
  return new Uint8Array(hashes[bank].bytes).fill(pcr >= 17 && pcr <= 22 ? 0xff : 0);
}
