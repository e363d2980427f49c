/** Quotes and event logs in TPM evidence. */
import type { ClientPolicy, ProvedLog } from 'attested/attester';
import { describe, expect, test } from 'vitest';
import type { JsonObject } from '../../src/core/json.ts';
import { sha256 } from '../../src/platform/crypto.ts';
import { softwareAk, somePcrs } from '../tpm2/forge.ts';

import {
  type Attack,
  changeBy,
  enrolTpm,
  instanceOf,
  maker,
  newTpm,
  PCRS,
  refusals,
  textOf,
  tpmAttester,
} from './tpm-world.ts';

describe('a quote', () => {
  const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');
  const quoting = (quote: object = {}, client: ClientPolicy = {}, more: object = {}) =>
    tpmAttester({ tpm: { roots: [maker.der], quote: { pcrs: { sha256: PCRS }, ...quote }, ...more }, client });
  const quoteIn = (evidence: JsonObject) =>
    evidence.quote as { pcrs: Record<string, Record<string, string>> } & JsonObject;

  test('of exactly the PCRs asked for is accepted, and its values are judged by the operator', async () => {
    const seen: unknown[] = [];
    const check = (...args: unknown[]) => {
      seen.push(...args);
      return true;
    };
    const { attester } = quoting({ check });
    const tpm = newTpm();
    expect((await enrolTpm(attester, tpm)).status).toBe(200);
    expect(seen).toEqual([tpm.pcrs, undefined]);
  });

  test.each<[string, Attack]>([
    [
      'is missing',
      () => (evidence: JsonObject) => {
        delete evidence.quote;
      },
    ],
    [
      'is over PCR 0 only',
      (tpm) => {
        tpm.forge.quote = { pcrs: somePcrs('sha256', 0) };
      },
    ],
    [
      'is over PCR 0 only, and says so',
      (tpm) => {
        tpm.forge.quote = { pcrs: somePcrs('sha256', 0) };
        return (evidence: JsonObject) => {
          const { pcrs } = quoteIn(evidence);
          pcrs.sha256 = { 0: pcrs.sha256!['0']! };
        };
      },
    ],
    [
      'is over nothing',
      (tpm) => {
        tpm.forge.quote = { selection: [] };
      },
    ],
    [
      'is over nothing, and says so',
      (tpm) => {
        tpm.forge.quote = { selection: [] };
        return (evidence: JsonObject) => {
          quoteIn(evidence).pcrs = {};
        };
      },
    ],
    [
      'is over more than was asked for',
      (tpm) => {
        tpm.forge.quote = { pcrs: somePcrs('sha256', ...PCRS, 8) };
        return (evidence: JsonObject) => {
          quoteIn(evidence).pcrs.sha256!['8'] = textOf(somePcrs('sha256', 8).sha256![8]!);
        };
      },
    ],
    [
      'is over another bank',
      (tpm) => {
        tpm.forge.quote = { pcrs: somePcrs('sha384', ...PCRS) };
      },
    ],
    [
      'is beside a value that is not in it',
      () => (evidence: JsonObject) => {
        quoteIn(evidence).pcrs.sha256!['8'] = textOf(new Uint8Array(32));
      },
    ],
    [
      'is beside a bank that is not in it',
      () => (evidence: JsonObject) => {
        quoteIn(evidence).pcrs.sha1 = { 0: textOf(new Uint8Array(20)) };
      },
    ],
    [
      'lacks a value',
      () => (evidence: JsonObject) => {
        delete quoteIn(evidence).pcrs.sha256!['7'];
      },
    ],
    [
      'is beside another value',
      () => (evidence: JsonObject) => {
        quoteIn(evidence).pcrs.sha256!['7'] = textOf(new Uint8Array(32));
      },
    ],
    [
      'has another digest',
      (tpm) => {
        tpm.forge.quote = { pcrDigest: new Uint8Array(32) };
      },
    ],
    [
      'is of type certify',
      () => (evidence: JsonObject) =>
        Object.assign(quoteIn(evidence), {
          attest: instanceOf(evidence).attest,
          signature: instanceOf(evidence).signature,
        }),
    ],
    [
      'is by another AK',
      (tpm) => {
        tpm.forge.quote = { ak: softwareAk() };
      },
    ],
    [
      'has the magic of an outsider',
      (tpm) => {
        tpm.forge.quote = { magic: 0 };
      },
    ],
    [
      'is about another request',
      (tpm) => {
        tpm.forge.quote = { extraData: new Uint8Array(32) };
      },
    ],
    [
      'is by another signer',
      (tpm) => {
        tpm.forge.quote = { qualifiedSigner: new Uint8Array(34) };
      },
    ],
    [
      'is from before a reset',
      (tpm) => {
        tpm.forge.quote = { clockInfo: { ...tpm.clock, resetCount: 4 } };
      },
    ],
    [
      'comes with a log that is none',
      (tpm) => {
        tpm.log = new Uint8Array(40).fill(7);
      },
    ],
  ])('that %s is refused, and the operator is not asked', async (_what, attack) => {
    let asked = 0;
    const check = () => {
      asked += 1;
      return true;
    };
    const { attester, events } = quoting({ check });
    const tpm = newTpm();
    const change = changeBy(attack, tpm);
    const answer = await enrolTpm(attester, tpm, change);
    expect(answer).toMatchObject({ status: 400, body: { error: 'invalid_client_attestation' } });
    expect(refusals(events)[0]!.rule).toMatch(/^TPM attestation [1345689]$/);
    // signer and run are compared at the end, over all statements together
    expect(asked).toBe(refusals(events)[0]!.rule === 'TPM attestation 9' ? 1 : 0);
    expect(await attester.instances()).toEqual([]);
  });

  test.each([false, undefined, 'yes', 1])(
    'whose values are judged as %s is refused, at enrolment and at renewal',
    async (verdict) => {
      let answer: unknown = true;
      const { attester, events } = quoting({ check: async () => answer as boolean });
      const tpm = newTpm();
      expect((await enrolTpm(attester, tpm)).status).toBe(200);
      answer = verdict;
      events.length = 0;
      for (const device of [tpm, newTpm()]) {
        expect(await enrolTpm(attester, device)).toMatchObject({
          status: 400,
          body: { error: 'invalid_client_attestation' },
        });
      }
      expect(refusals(events).map(({ rule }) => rule)).toEqual(['TPM attestation 8', 'TPM attestation 8']);
    },
  );

  test('a judge that fails lets nobody in', async () => {
    const check = () => {
      throw new Error('no reference values');
    };
    expect(await enrolTpm(quoting({ check }).attester, newTpm())).toMatchObject({ status: 503 });
  });

  test('pins of a client: one of the values, in either case; another value is refused', async () => {
    const tpm = newTpm();
    const good = hex(tpm.pcrs.sha256![7]!);
    const pinning = (...values: string[]) => quoting({}, { evidence: ['tpm'], pcrs: { sha256: { 7: values } } });
    expect((await enrolTpm(pinning('00'.repeat(32), good.toUpperCase()).attester, tpm)).status).toBe(200);
    const { attester, events } = pinning('00'.repeat(32));
    expect((await enrolTpm(attester, tpm)).status).toBe(400);
    expect(refusals(events)).toMatchObject([{ rule: 'TPM attestation 8' }]);
    const one = quoting({}, { evidence: ['tpm'], pcrs: { sha256: { 7: good } } });
    expect((await enrolTpm(one.attester, tpm)).status).toBe(200);
  });

  test('the event log counts as far as it leads to the quoted values', async () => {
    const events = [
      { pcr: 0, data: 'firmware' },
      { pcr: 7, data: 'secure boot' },
      { pcr: 7, data: 'keys' },
    ];
    const tpm = newTpm();
    tpm.log = sha256Log(events);
    const replayed = (pcr: number) =>
      events
        .filter((event) => event.pcr === pcr)
        .reduce<Uint8Array>((value, { data }) => sha256(Buffer.concat([value, sha256(data)])), new Uint8Array(32));
    tpm.pcrs = { sha256: { ...tpm.pcrs.sha256, 7: replayed(7) } }; // PCR 0 has another value than the log says
    const seen: ProvedLog[] = [];
    const check = (_values: unknown, log: ProvedLog | undefined) => seen.push(log!) > 0;
    expect((await enrolTpm(quoting({ check }).attester, tpm)).status).toBe(200);
    const { matched, events: proved } = seen[0]!.sha256!;
    expect(matched).toEqual([7]);
    expect(proved.map(({ pcr, data, dataIsMeasured }) => [pcr, Buffer.from(data).toString(), dataIsMeasured])).toEqual([
      [7, 'secure boot', true],
      [7, 'keys', true],
    ]);
  });

  test('a log is not read where it is not asked for, and is bounded where it is', async () => {
    const tpm = newTpm();
    tpm.log = new Uint8Array(70_000);
    expect((await enrolTpm(quoting().attester, tpm)).status).toBe(200);
    const bounded = quoting({ eventLog: true }, {}, { maxEventLog: 60_000 });
    expect(await enrolTpm(bounded.attester, tpm)).toMatchObject({ status: 400, body: { error: 'invalid_request' } });
    tpm.log = new Uint8Array(200_000);
    expect((await enrolTpm(bounded.attester, tpm)).status).toBe(413);
  });

  test('a quote that nobody asked for is not looked at', async () => {
    const { attester } = tpmAttester();
    const tpm = newTpm();
    const change = (evidence: JsonObject) => {
      evidence.quote = { attest: 'AA', signature: 'AA', pcrs: {} };
    };
    expect((await enrolTpm(attester, tpm, { change })).status).toBe(200);
  });
});

/** A crypto-agile event log of one bank. */
function sha256Log(events: readonly { pcr: number; data: string }[]): Uint8Array {
  const le32 = (value: number) => Buffer.from(Uint32Array.of(value).buffer);
  const le16 = (value: number) => Buffer.from(Uint16Array.of(value).buffer);
  const spec = Buffer.concat([
    Buffer.from('Spec ID Event03\0', 'latin1'),
    le32(0),
    Buffer.from([0, 2, 0, 2]),
    le32(1),
    le16(11),
    le16(32),
    Buffer.from([0]),
  ]);
  const header = Buffer.concat([le32(0), le32(3), Buffer.alloc(20), le32(spec.length), spec]);
  const rows = events.map(({ pcr, data }) =>
    Buffer.concat([le32(pcr), le32(0x0d), le32(1), le16(11), sha256(data), le32(data.length), Buffer.from(data)]),
  );
  return new Uint8Array(Buffer.concat([header, ...rows]));
}
