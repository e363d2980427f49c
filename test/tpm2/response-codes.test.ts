import { execFileSync } from 'node:child_process';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { describeTpmCode } from '../../src/tpm2/index.ts';
import { skipTpm } from '../support/swtpm.ts';
import vector from '../vectors/tss2-response-codes.json' with { type: 'json' };

describe('codes as they were seen', () => {
  test.each([
    [0x000, 'TPM_RC_SUCCESS', 'tpm', undefined],
    [0x902, 'TPM_RC_OBJECT_MEMORY', 'tpm', undefined],
    [0x903, 'TPM_RC_SESSION_MEMORY', 'tpm', undefined],
    [0x921, 'TPM_RC_LOCKOUT', 'tpm', undefined],
    [0x922, 'TPM_RC_RETRY', 'tpm', undefined],
    [0x98e, 'TPM_RC_AUTH_FAIL', 'tpm', { kind: 'session', number: 1 }],
    [0x9a2, 'TPM_RC_BAD_AUTH', 'tpm', { kind: 'session', number: 1 }],
    [0x1df, 'TPM_RC_INTEGRITY', 'tpm', { kind: 'parameter', number: 1 }],
    [0x14c, 'TPM_RC_NV_DEFINED', 'tpm', undefined],
    [0x18b, 'TPM_RC_HANDLE', 'tpm', { kind: 'handle', number: 1 }],
    [0x3e0, 'TPM_RC_TICKET', 'tpm', { kind: 'parameter', number: 3 }],
    [0x910, 'TPM_RC_REFERENCE_H0', 'tpm', undefined],
    [0x918, 'TPM_RC_REFERENCE_S0', 'tpm', undefined],
    [0x01e, 'TPM_RC_BAD_TAG', 'tpm', undefined],
    [0x500, 'TPM_RC_VENDOR', 'tpm', undefined],
    [0x70007, 'TSS2_ESYS_RC_BAD_SEQUENCE', 'esys', undefined],
    [0x8000b, 'TSS2_SYS_RC_BAD_VALUE', 'sys', undefined],
    [0x90006, 'TSS2_MU_RC_INSUFFICIENT_BUFFER', 'mu', undefined],
    [0xa000a, 'TSS2_TCTI_RC_IO_ERROR', 'tcti', undefined],
    [0xa0015, 'TSS2_TCTI_RC_NOT_SUPPORTED', 'tcti', undefined],
    [0xb0143, 'TPM_RC_COMMAND_CODE', 'rm', undefined],
    [0xb0001, 'TSS2_RESMGR_RC_GENERAL_FAILURE', 'rm', undefined],
    [0xc0902, 'TPM_RC_OBJECT_MEMORY', 'rm', undefined],
    [0xffffffff, 'NOT_SENT', 'none', undefined],
    [0x917, 'UNKNOWN', 'tpm', undefined],
    [0x1000902, 'UNKNOWN', 'none', undefined],
  ])('%x is %s', (code, name, layer, subject) => {
    expect(describeTpmCode(code)).toMatchObject({ code, name, layer, ...(subject && { subject }) });
    if (subject === undefined) expect(describeTpmCode(code).subject).toBeUndefined();
  });

  test('the words say what to do about no free slot', () => {
    expect(describeTpmCode(0x902)).toMatchObject({ warning: true, text: expect.stringContaining('no free slot') });
    expect(describeTpmCode(0x98e)).toMatchObject({
      warning: false,
      text: expect.stringMatching(/^TPM_RC_AUTH_FAIL \(session 1\): wrong authorization/),
    });
  });
});

test('whatever comes is described, and never by an exception', () => {
  fc.assert(
    fc.property(fc.oneof(fc.nat(0xffffffff), fc.nat(0xfff), fc.anything()), (code) => {
      const { name, text } = describeTpmCode(code as number);
      expect(name).toMatch(/^[A-Z0-9_]+$/);
      expect(text).toContain(name);
    }),
    { numRuns: 2000 },
  );
});

test('every code of tpm2-tss has the name that its headers give', () => {
  const { codes } = vector as { codes: Record<string, number> };
  const wrong = Object.entries(codes).flatMap(([name, code]) => {
    const found = describeTpmCode(code).name;
    return name.replace(/^TPM2_/, 'TPM_') === found ? [] : [`${name}: ${found}`];
  });
  expect(Object.keys(codes).length).toBeGreaterThan(150);
  expect(wrong).toEqual([]);
});

describe.skipIf(skipTpm)('against tpm2-tools', () => {
  test('tpm2_rc_decode finds the same error, handle, session and parameter', () => {
    const codes = [0x902, 0x921, 0x98e, 0x9a2, 0x1df, 0x18b, 0x3e0, 0x2c4, 0x14c, 0x095];
    for (const code of codes) {
      const theirs = execFileSync('tpm2_rc_decode', [`0x${code.toString(16)}`], { encoding: 'utf8' });
      const { subject } = describeTpmCode(code);
      const where = subject ? `${subject.kind}(${subject.number})` : '';
      expect(theirs, code.toString(16)).toContain(where);
      if (!subject) expect(theirs).not.toMatch(/(handle|session|parameter)\(\d+\)/);
    }
  });
});
