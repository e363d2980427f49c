import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { eventLogMatches, parseEventLog, replayEventLog, verifyQuote } from 'attested/tpm2';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { AttestedError } from '../../src/errors.ts';
import { expectRefusal } from '../support/errors.ts';
import {
  ALGORITHMS,
  agileEvent,
  agileLog,
  type Bank,
  boot,
  digestOf,
  EV_IPL,
  EV_NO_ACTION,
  EV_SEPARATOR,
  hashOf,
  header,
  type MadeEvent,
  sha1Event,
  sha1Log,
  startupLocality,
  u32,
} from '../support/event-logs.ts';
import { type Swtpm, skipTpm, startSwtpm } from '../support/swtpm.ts';

const bytes = (data: Uint8Array) => new Uint8Array(data);
const BANKS: readonly Bank[] = ['sha1', 'sha256', 'sha384', 'sha512'];

/** What a TPM would have: extended by hand, apart from the code under test. */
function extended(
  bank: Bank,
  events: readonly MadeEvent[],
  start: Record<number, number> = {},
): Record<number, Uint8Array> {
  const zero = hashOf(bank, Buffer.alloc(0)).fill(0);
  const values: Record<number, Buffer> = {};
  for (const event of events.filter(({ type }) => type !== EV_NO_ACTION)) {
    const first = Buffer.concat([zero.subarray(1), Buffer.of(start[event.pcr] ?? 0)]);
    values[event.pcr] = hashOf(bank, Buffer.concat([values[event.pcr] ?? first, digestOf(bank, event)]));
  }
  return Object.fromEntries(Object.entries(values).map(([pcr, value]) => [pcr, bytes(value)]));
}

describe('parseEventLog', () => {
  it('reads the older form', () => {
    const log = parseEventLog(sha1Log(boot));
    expect(log).toEqual({
      format: 'sha1',
      algorithms: ['sha1'],
      events: boot.map((event) => ({
        pcr: event.pcr,
        type: event.type,
        typeName: expect.stringMatching(/^EV_/),
        digests: { sha1: bytes(digestOf('sha1', event)) },
        data: bytes(event.data),
      })),
    });
    expect(log.events[0]?.typeName).toBe('EV_S_CRTM_VERSION');
  });

  it('reads the crypto-agile form, with its header', () => {
    const log = parseEventLog(agileLog(BANKS, boot));
    expect(log.specId).toEqual({
      platformClass: 0,
      version: [2, 0, 2],
      algorithms: BANKS.map((bank) => ({ id: ALGORITHMS[bank], bytes: hashOf(bank, Buffer.alloc(0)).length, bank })),
      vendorInfo: new Uint8Array(),
    });
    expect(log).toMatchObject({ format: 'crypto-agile', algorithms: BANKS });
    expect(log.events).toHaveLength(boot.length);
    for (const [i, event] of boot.entries()) {
      for (const bank of BANKS) expect(log.events[i]?.digests[bank]).toEqual(bytes(digestOf(bank, event)));
    }
  });

  it('takes a log of Spec ID Event00 for the older form', () => {
    const log = parseEventLog(Buffer.concat([header({ signature: 'Spec ID Event00\0' }), sha1Log(boot)]));
    expect(log).toMatchObject({ format: 'sha1', events: { length: boot.length + 1 } });
  });

  it('steps over digests of algorithms that it does not know, and keeps what the maker added', () => {
    const [SM3, SHA3_256] = [0x0012, 0x0027];
    const unknown = (id: number) => Buffer.concat([Buffer.from(Uint16Array.of(id).buffer), Buffer.alloc(32, id)]);
    const event = boot[0] as MadeEvent;
    const known = agileEvent(event, ['sha256']).subarray(12, 12 + 2 + 32);
    const log = Buffer.concat([
      header({
        algorithms: [
          [SM3, 32],
          [ALGORITHMS.sha256, 32],
          [SHA3_256, 32],
        ],
        vendorInfo: Buffer.from('maker'),
      }),
      u32(event.pcr),
      u32(event.type),
      u32(3),
      unknown(SHA3_256),
      known,
      unknown(SM3),
      u32(event.data.length),
      event.data,
    ]);
    const parsed = parseEventLog(log);
    expect(parsed).toMatchObject({ algorithms: ['sha256'], specId: { vendorInfo: bytes(Buffer.from('maker')) } });
    expect(parsed.events[0]?.digests).toEqual({ sha256: bytes(digestOf('sha256', event)) });
  });

  it('knows a type that it has no name for by its number', () => {
    const [event] = parseEventLog(sha1Log([{ pcr: 1, type: 0x90001234, data: Buffer.alloc(0) }])).events;
    expect(event).toMatchObject({ type: 0x90001234, typeName: 'unknown' });
  });

  it('keeps a copy: changes afterwards are not seen', () => {
    const given = sha1Log(boot);
    const log = parseEventLog(given);
    given.fill(0xff);
    expect(log).toEqual(parseEventLog(sha1Log(boot)));
  });

  const event = { pcr: 1, type: EV_IPL, data: Buffer.from('data') };
  const good = header();
  const twice = agileEvent(event, ['sha256', 'sha256']);
  it.each([
    ['nothing', new Uint8Array()],
    ['text', 'log' as never],
    ['more than 4 MiB', Buffer.concat([sha1Event({ ...event, data: Buffer.alloc(4 * 1024 * 1024) })])],
    ['more than 16,384 events', Buffer.concat(Array(16_386).fill(sha1Event(event)))],
    ['a first event cut short', sha1Event(event).subarray(0, -1)],
    ['a byte left over', Buffer.concat([sha1Log(boot), Buffer.alloc(1)])],
    [
      'data said to be longer than the log',
      Buffer.concat([sha1Event(event).subarray(0, 28), u32(0xffffffff), Buffer.alloc(64)]),
    ],
    ['an event of PCR 24', sha1Log([{ ...event, pcr: 24 }])],
    ['a measured event of no PCR', sha1Log([{ ...event, pcr: 0xffffffff }])],
    ['no algorithm', header({ algorithms: [] })],
    ['seventeen algorithms', header({ algorithms: Array.from({ length: 17 }, (_, i) => [0x100 + i, 32] as const) })],
    ['a count of four thousand million algorithms', header({ count: 0xffffffff })],
    ['fewer algorithms than counted', header({ count: 2 })],
    [
      'an algorithm twice',
      header({
        algorithms: [
          [0x0b, 32],
          [0x0b, 32],
        ],
      }),
    ],
    ['SHA-256 of 20 bytes', header({ algorithms: [[0x0b, 20]] })],
    ['a digest of no bytes', header({ algorithms: [[0x12, 0]] })],
    ['a digest of a kilobyte', header({ algorithms: [[0x12, 1024]] })],
    ['vendor information cut short', header({ vendorInfoSize: 200 })],
    ['a byte after the vendor information', header({ after: Buffer.alloc(1) })],
    ['a header cut short', sha1Event({ pcr: 0, type: EV_NO_ACTION, data: Buffer.from('Spec ID Event03\0') })],
    ['an event of an algorithm that is not in the header', Buffer.concat([good, agileEvent(event, ['sha384'])])],
    ['more digests than algorithms', Buffer.concat([good, agileEvent(event, ['sha256', 'sha384'])])],
    [
      'a digest twice',
      Buffer.concat([
        header({
          algorithms: [
            [0x0b, 32],
            [0x04, 20],
          ],
        }),
        twice,
      ]),
    ],
    [
      'a count of four thousand million digests',
      Buffer.concat([good, u32(1), u32(EV_IPL), u32(0xffffffff), Buffer.alloc(64)]),
    ],
    ['an event of the older form after the header', Buffer.concat([good, sha1Event(event)])],
    ['a crypto-agile event cut short', Buffer.concat([good, agileEvent(event, ['sha256']).subarray(0, -1)])],
  ])('refuses %s', async (_, log) => {
    const startedAt = performance.now();
    await expectRefusal(() => parseEventLog(log), { code: 'tpm_malformed', rule: 'TPM attestation 8' });
    expect(performance.now() - startedAt).toBeLessThan(500);
  });

  const anyEvent: fc.Arbitrary<MadeEvent> = fc.record({
    pcr: fc.nat(23),
    type: fc.oneof(fc.constantFrom(0, 1, EV_NO_ACTION, EV_SEPARATOR, EV_IPL, 0x80000001), fc.nat(0xffffffff)),
    data: fc.uint8Array({ maxLength: 60 }),
    measured: fc.uint8Array({ maxLength: 8 }),
  });
  const anyLog = fc
    .tuple(fc.shuffledSubarray([...BANKS], { minLength: 1 }), fc.array(anyEvent, { maxLength: 12 }))
    .map(([banks, events]) => ({ banks, events, log: agileLog(banks, events) }));

  it('reads every log that firmware may write, and replays it', () => {
    fc.assert(
      fc.property(anyLog, ({ banks, events, log }) => {
        const parsed = parseEventLog(log);
        expect(parsed.events.map(({ pcr, type, data }) => ({ pcr, type, data }))).toEqual(
          events.map(({ pcr, type, data }) => ({ pcr, type, data: bytes(data) })),
        );
        for (const bank of banks) expect(replayEventLog(parsed, { bank })).toEqual(extended(bank, events));
      }),
    );
  });

  it('makes of any other bytes an AttestedError or a log', () => {
    const changed = fc.tuple(anyLog, fc.nat(), fc.nat(255), fc.nat(4)).map(([{ log }, at, value, removed]) => {
      const copy = Buffer.from(log);
      copy[at % copy.length] = value;
      return copy.subarray(0, copy.length - removed);
    });
    fc.assert(
      fc.property(fc.oneof(fc.uint8Array({ maxLength: 300 }), changed), (log) => {
        try {
          const parsed = parseEventLog(log);
          for (const bank of parsed.algorithms) replayEventLog(parsed, { bank });
        } catch (error) {
          expect(error).toBeInstanceOf(AttestedError);
          expect((error as AttestedError).code).toBe('tpm_malformed');
        }
      }),
      { numRuns: 500 },
    );
  });
});

describe('replayEventLog', () => {
  it.each(BANKS)('gives the PCRs of bank %s', (bank) => {
    expect(replayEventLog(parseEventLog(agileLog(BANKS, boot)), { bank })).toEqual(extended(bank, boot));
  });

  it('leaves out what is not measured, whatever digest stands there', () => {
    const silent = { pcr: 4, type: EV_NO_ACTION, data: Buffer.from('x'), digests: { sha256: Buffer.alloc(32, 7) } };
    const log = parseEventLog(agileLog(['sha256'], [silent, ...boot, silent]));
    expect(replayEventLog(log, { bank: 'sha256' })).toEqual(extended('sha256', boot));
  });

  it.each([0, 3, 4])('begins PCR 0 with a start from locality %i', (locality) => {
    const expected = extended('sha256', boot, { 0: locality });
    for (const log of [agileLog(['sha256'], [startupLocality(locality), ...boot])]) {
      expect(replayEventLog(parseEventLog(log), { bank: 'sha256' })).toEqual(expected);
    }
    const sha1 = parseEventLog(sha1Log([startupLocality(locality), ...boot]));
    expect(replayEventLog(sha1, { bank: 'sha1' })).toEqual(extended('sha1', boot, { 0: locality }));
  });

  it.each([
    ['after PCR 0 was extended', [...boot, startupLocality(3)]],
    ['for another PCR', [{ ...startupLocality(3), pcr: 1 }, ...boot]],
    ['without the locality', [{ ...startupLocality(3), data: Buffer.from('StartupLocality\0') }, ...boot]],
    [
      'in an event that is measured',
      [startupLocality(3), ...boot].map((one) => ({ ...one, type: one.type || 1 })).slice(1),
    ],
  ])('takes no locality %s', (_, events) => {
    const log = parseEventLog(agileLog(['sha256'], events));
    expect(replayEventLog(log, { bank: 'sha256' })).toEqual(extended('sha256', events));
  });

  it('gives no value to a PCR with an event that has no digest of the bank, though another has one', () => {
    const loader = boot.findLast(({ pcr }) => pcr === 4);
    const log = parseEventLog(
      Buffer.concat([
        header({
          algorithms: [
            [ALGORITHMS.sha1, 20],
            [ALGORITHMS.sha256, 32],
          ],
        }),
        ...boot.map((event) => agileEvent(event, event === loader ? ['sha1'] : ['sha1', 'sha256'])),
      ]),
    );
    const { 4: missing, ...others } = extended('sha256', boot);
    expect(missing).toBeDefined();
    expect(replayEventLog(log, { bank: 'sha256' })).toEqual(others);
    expect(eventLogMatches(log, 'sha256', extended('sha256', boot)).mismatched).toEqual([4]);
    expect(eventLogMatches(log, 'sha256', { 4: new Uint8Array(32) }).mismatched).toEqual([4]);
  });

  it('refuses a bank that the log does not have', async () => {
    const log = parseEventLog(sha1Log(boot));
    await expectRefusal(() => replayEventLog(log, { bank: 'sha256' }), {
      code: 'tpm_refused',
      rule: 'TPM attestation 8',
    });
  });
});

describe('eventLogMatches', () => {
  const log = parseEventLog(agileLog(['sha1', 'sha256'], boot));
  const quoted = extended('sha256', boot);

  it('proves the events of the PCRs that replay, in their order', () => {
    const { matched, mismatched, events } = eventLogMatches(log, 'sha256', quoted);
    expect({ matched, mismatched }).toEqual({ matched: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], mismatched: [] });
    expect(events.map(({ dataIsMeasured, ...event }) => event)).toEqual(log.events);
  });

  it('says of which events the data is proved too', () => {
    const { events } = eventLogMatches(log, 'sha256', quoted);
    expect(events.filter(({ dataIsMeasured }) => !dataIsMeasured).map(({ pcr, type }) => [pcr, type])).toEqual(
      boot.filter(({ measured }) => measured !== undefined).map(({ pcr, type }) => [pcr, type]),
    );
  });

  it('gives no event that is never measured, though its PCR replays', () => {
    const silent = { pcr: 7, type: EV_NO_ACTION, data: Buffer.from('SecureBoot: 1') };
    const match = eventLogMatches(parseEventLog(agileLog(['sha256'], [silent, ...boot, silent])), 'sha256', quoted);
    expect(match.matched).toContain(7);
    expect(match.events.map(({ type }) => type)).toEqual(boot.map(({ type }) => type));
  });

  it('gives no event of a PCR that was not quoted', () => {
    const { events } = eventLogMatches(log, 'sha256', { 7: quoted[7] as Uint8Array });
    expect(events.map(({ pcr }) => pcr)).toEqual([7, 7]);
  });

  const changes: Record<string, (events: MadeEvent[]) => MadeEvent[]> = {
    'an event left out': (events) => events.toSpliced(events.length - 3, 1),
    'an event added': (events) => [...events, { pcr: 4, type: EV_IPL, data: Buffer.from('more') }],
    'an event of another digest': (events) =>
      events.map((event) => (event.measured && event.pcr === 4 ? { ...event, measured: Buffer.from('other') } : event)),
    'two events in another order': (events) => [events.at(-3) as MadeEvent, ...events.toSpliced(events.length - 3, 1)],
  };
  it.each(Object.keys(changes))('%s: that PCR proves nothing, the others do', (name) => {
    const changed = changes[name]?.([...boot]) as MadeEvent[];
    const match = eventLogMatches(parseEventLog(agileLog(['sha256'], changed)), 'sha256', quoted);
    expect(match).toMatchObject({ matched: [0, 1, 2, 3, 5, 6, 7, 8, 9], mismatched: [4] });
    expect(match.events.some(({ pcr }) => pcr === 4)).toBe(false);
  });

  it('does not know a type that was changed: nothing measures it', () => {
    const relabelled = boot.map((event) => (event.pcr === 9 ? { ...event, type: 0x80000003 } : event));
    const match = eventLogMatches(parseEventLog(agileLog(['sha256'], relabelled)), 'sha256', quoted);
    expect(match.matched).toContain(9);
    expect(match.events.at(-1)).toMatchObject({ typeName: 'EV_EFI_BOOT_SERVICES_APPLICATION', dataIsMeasured: false });
  });

  it('a measured event relabelled as one that is not: its PCR no longer replays', () => {
    const hidden = boot.map((event) => (event.pcr === 9 ? { ...event, type: EV_NO_ACTION } : event));
    const match = eventLogMatches(parseEventLog(agileLog(['sha256'], hidden)), 'sha256', quoted);
    expect(match.mismatched).toEqual([9]);
  });

  it('a PCR without events must have its reset value', () => {
    const [zero, ones] = [new Uint8Array(32), new Uint8Array(32).fill(0xff)];
    expect(eventLogMatches(log, 'sha256', { 10: zero, 16: zero, 17: ones, 22: ones, 23: zero }).mismatched).toEqual([]);
    expect(eventLogMatches(log, 'sha256', { 10: ones, 16: ones, 17: zero, 22: zero, 23: ones }).matched).toEqual([]);
  });

  it('of a bank that the log does not have nothing matches, reset values neither', () => {
    const match = eventLogMatches(log, 'sha384', { 0: new Uint8Array(48), 10: new Uint8Array(48) });
    expect(match).toEqual({ matched: [], mismatched: [0, 10], events: [] });
  });

  it('values of another length do not match', () => {
    expect(
      eventLogMatches(log, 'sha256', { 0: (quoted[0] as Uint8Array).subarray(1), 1: new Uint8Array() }).matched,
    ).toEqual([]);
  });
});

describe.skipIf(skipTpm)('of a TPM', () => {
  let tpm: Swtpm;
  beforeAll(async () => {
    tpm = await startSwtpm();
  }, 60_000);
  afterAll(() => tpm.stop());

  const banks: readonly Bank[] = ['sha1', 'sha256', 'sha384'];

  const file = (name: string) => bytes(readFileSync(join(tpm.directory, name)));

  /** The values of one bank, as a quote proves them. */
  async function quoted(bank: Bank, numbers: readonly number[]): Promise<Record<number, Uint8Array>> {
    const selection = `${bank}:${numbers}`;
    await tpm.tools('tpm2_pcrread', selection, '-o', 'values');
    await tpm.tools('tpm2_quote', '-c', 'ak.ctx', '-l', selection, '-m', 'attest', '-s', 'signature');
    await tpm.tools('tpm2_flushcontext', '-t');
    const { length } = hashOf(bank, Buffer.alloc(0));
    const values = numbers.map((pcr, i) => [pcr, file('values').subarray(i * length, (i + 1) * length)]);
    const input = { attest: file('attest'), signature: file('signature'), ak: file('ak.pub') };
    return verifyQuote({ ...input, pcrs: { [bank]: Object.fromEntries(values) } }).pcrs[bank] as Record<
      number,
      Uint8Array
    >;
  }

  it('replays to its PCRs when they were extended as the log says, in each bank', async () => {
    await tpm.tools('tpm2_createek', '-G', 'ecc', '-c', 'ek.ctx');
    await tpm.tools('tpm2_flushcontext', '-t');
    await tpm.tools(
      'tpm2_createak',
      '-C',
      'ek.ctx',
      '-G',
      'ecc',
      '-g',
      'sha256',
      '-s',
      'ecdsa',
      '-c',
      'ak.ctx',
      '-u',
      'ak.pub',
    );
    await tpm.tools('tpm2_flushcontext', '-t');
    for (const event of boot) {
      const digests = banks.map((bank) => `${bank}=${Buffer.from(digestOf(bank, event)).toString('hex')}`);
      await tpm.tools('tpm2_pcrextend', `${event.pcr}:${digests.join(',')}`);
    }
    const all = Array.from({ length: 24 }, (_, pcr) => pcr);
    const log = parseEventLog(agileLog(banks, boot));
    for (const bank of banks) {
      const match = eventLogMatches(log, bank, await quoted(bank, all));
      expect(match).toMatchObject({ matched: all, mismatched: [] });
      expect(match.events).toHaveLength(boot.length);
    }
    const older = parseEventLog(sha1Log(boot));
    expect(eventLogMatches(older, 'sha1', await quoted('sha1', all)).mismatched).toEqual([]);

    await tpm.tools('tpm2_pcrextend', `9:sha256=${'00'.repeat(32)}`);
    expect(eventLogMatches(log, 'sha256', await quoted('sha256', all)).mismatched).toEqual([9]);
  });
});
