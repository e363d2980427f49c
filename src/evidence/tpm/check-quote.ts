/** Check 8: the machine's state, as far as the operator asks for it. */
import type { PcrBankName, PcrSelection, PcrValues } from '../../tpm2/device.ts';
import { parseEventLog } from '../../tpm2/event-log.ts';
import { eventLogMatches } from '../../tpm2/event-log-replay.ts';
import type { VerifiedAttest } from '../../tpm2/signed-attest.ts';
import { verifyQuote } from '../../tpm2/verify-quote.ts';
import { judged, refuse } from './refusal.ts';
import type { DemandedQuote, ProvedLog, ReadPins } from './trust.ts';
import type { QuotedPcrs } from './wire.ts';

/** @throws AttestedError `invalid_client_attestation` */
export async function checkQuote(
  quote: QuotedPcrs | undefined,
  ak: Uint8Array,
  extraData: Uint8Array,
  demanded: DemandedQuote,
  pins: ReadPins | undefined,
): Promise<VerifiedAttest> {
  if (quote === undefined) throw refuse('invalid_client_attestation', 8, 'there is no quote, and one is asked for');
  const { attest, signature, pcrs, eventLog } = quote;
  const verified = judged(8, () => verifyQuote({ attest, signature, ak, extraData, pcrs }));
  if (!isSelection(verified.pcrs, demanded.pcrs)) {
    throw refuse('invalid_client_attestation', 8, 'the quote is over other PCRs than those asked for');
  }
  if (!matchesPins(verified.pcrs, pins)) {
    throw refuse('invalid_client_attestation', 8, 'a PCR has another value than the policy of this client pins');
  }
  const log =
    demanded.eventLog && eventLog !== undefined ? judged(8, () => provedBy(eventLog, verified.pcrs)) : undefined;
  // the operator's judge sees only what the TPM signed
  if ((await demanded.check(verified.pcrs, log)) !== true) {
    throw refuse('invalid_client_attestation', 8, 'the state of the machine is not acceptable');
  }
  return verified;
}

/** What the log proves, bank by bank. */
function provedBy(eventLog: Uint8Array, pcrs: PcrValues): ProvedLog {
  const log = parseEventLog(eventLog);
  const banks = Object.entries(pcrs).map(([bank, values]) => [bank, eventLogMatches(log, bank as PcrBankName, values)]);
  return Object.fromEntries(banks);
}

/** Are these exactly the PCRs of the selection? */
function isSelection(pcrs: PcrValues, selection: PcrSelection): boolean {
  const names = (banks: object, numbersOf: (bank: PcrBankName) => Iterable<unknown>) =>
    Object.keys(banks)
      .map((bank) => `${bank}:${[...numbersOf(bank as PcrBankName)].map(Number).sort((a, b) => a - b)}`)
      .sort()
      .join();
  return names(pcrs, (bank) => Object.keys(pcrs[bank] ?? {})) === names(selection, (bank) => selection[bank] ?? []);
}

function matchesPins(pcrs: PcrValues, pins: ReadPins = {}): boolean {
  return Object.entries(pins).every(([bank, values]) =>
    Object.entries(values).every(([pcr, accepted]) => {
      const value = pcrs[bank as PcrBankName]?.[Number(pcr)];
      return value !== undefined && accepted.includes(Buffer.from(value).toString('hex'));
    }),
  );
}
