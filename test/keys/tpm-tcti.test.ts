import { describe, expect, test } from 'vitest';
import { AttestedError } from '../../src/errors.ts';
import { remedyFor, tpmCode } from '../../src/keys/tpm/codes.ts';
import { explain } from '../../src/keys/tpm/errors.ts';
import { OTHER_TPM } from '../../src/keys/tpm/protocol.ts';
import { chooseTcti, type Surroundings } from '../../src/keys/tpm/tcti.ts';
import { TpmError } from '../../src/native/tpm2-tss/error.ts';

const TABRMD = '/usr/share/dbus-1/system-services/com.intel.tss2.Tabrmd.service';
const on = (more: Partial<Surroundings> & { paths?: string[]; forbidden?: string[] } = {}): Surroundings => ({
  env: {},
  platform: 'linux',
  exists: (path) => (more.paths ?? []).includes(path),
  mayUse: (path) => !(more.forbidden ?? []).includes(path),
  ...more,
});

describe('which TPM', () => {
  test.each<[string, string | undefined, Surroundings, string, boolean]>([
    [
      'the option first',
      'swtpm:path=/a',
      on({ env: { TPM2TOOLS_TCTI: 'mssim' }, paths: ['/dev/tpmrm0'] }),
      'swtpm:path=/a',
      false,
    ],
    ['then TPM2TOOLS_TCTI', undefined, on({ env: { TPM2TOOLS_TCTI: 'mssim', TCTI: 'x' } }), 'mssim', false],
    [
      'then TCTI',
      undefined,
      on({ env: { TPM2TOOLS_TCTI: '', TCTI: 'tabrmd:bus_type=session' } }),
      'tabrmd:bus_type=session',
      true,
    ],
    [
      'then the resource manager',
      undefined,
      on({ paths: ['/dev/tpmrm0', '/dev/tpm0', TABRMD] }),
      'device:/dev/tpmrm0',
      true,
    ],
    ['then tabrmd', undefined, on({ paths: ['/dev/tpm0', TABRMD] }), 'tabrmd', true],
    [
      'tabrmd where the device is forbidden',
      undefined,
      on({ paths: ['/dev/tpmrm0', TABRMD], forbidden: ['/dev/tpmrm0'] }),
      'tabrmd',
      true,
    ],
    ['on Windows its Base Services', undefined, on({ platform: 'win32' }), 'tbs', true],
    ['/dev/tpm0 where it is named', 'device:/dev/tpm0', on({ paths: ['/dev/tpm0'] }), 'device:/dev/tpm0', false],
    ['a second TPM', 'device:/dev/tpmrm1', on({ paths: ['/dev/tpmrm1'] }), 'device:/dev/tpmrm1', true],
    ['a library by its file', 'libtss2-tcti-tabrmd.so.0', on(), 'libtss2-tcti-tabrmd.so.0', true],
  ])('%s', (_what, option, surroundings, tcti, managed) => {
    expect(chooseTcti(option, surroundings)).toEqual({ tcti, managed });
  });

  test.each<[string, string | undefined, Surroundings, RegExp]>([
    ['nothing there', undefined, on({ paths: ['/dev/tpm0'] }), /no TPM: there is no \/dev\/tpmrm0/],
    ['a device that is not there', 'device:/dev/tpmrm7', on(), /there is no \/dev\/tpmrm7/],
    ['no permission', undefined, on({ paths: ['/dev/tpmrm0'], forbidden: ['/dev/tpmrm0'] }), /usermod -aG tss/],
    [
      'no permission for the bare device',
      'device:/dev/tpm0',
      on({ paths: ['/dev/tpm0'], forbidden: ['/dev/tpm0'] }),
      /tpmrm0/,
    ],
    ['macOS', undefined, on({ platform: 'darwin' }), /no TPM/],
  ])('%s is told at once', (_what, option, surroundings, message) => {
    expect(() => chooseTcti(option, surroundings)).toThrow(message);
    expect(() => chooseTcti(option, surroundings)).toThrow(AttestedError);
  });
});

describe('response codes', () => {
  test.each([
    ['slots full', 0x902, 'make-room'],
    ['slots full, says a resource manager', 0xc0902, 'make-room'],
    ["slots full, says the kernel's", 0xb0902, 'make-room'],
    ['sessions full', 0x903, 'make-room'],
    ['try again', 0x922, 'wait'],
    ['self-test', 0x90a, 'wait'],
    ['PCRs changed', 0x128, 'wait'],
    ['no such handle', 0x18b, 'reload'],
    ['no such second handle', 0x28b, 'reload'],
    ['a handle that is not loaded', 0x910, 'reload'],
    ['a session that is not loaded', 0x918, 'reload'],
    ['another TPM than before', OTHER_TPM, 'reload'],
    ['the device is gone', 0xa000a, 'reopen'],
    ['the context is at its end', 0x70007, 'reopen'],
    ['the resource manager is gone', 0xa0008, 'reopen'],
    ['the resource manager went away during the command', 0xa0001, 'reopen'],
    ['a resource manager whose TPM restarted', 0x184, 'reload'],
    ['a parameter out of range', 0x1c4, undefined],
    ['a session out of range', 0x984, undefined],
    ['wrong auth value', 0x98e, undefined],
    ['wrong auth value without lock-out', 0x9a2, undefined],
    ['lock-out', 0x921, undefined],
    ['a damaged blob', 0x1df, undefined],
    ['PCR policy', 0x99d, undefined],
    ['success', 0, undefined],
    ['no library', 0xffffffff, undefined],
  ])('%s', (_what, code, remedy) => {
    expect(remedyFor(code)).toBe(remedy);
  });

  test('name no TPM code where the library speaks', () => {
    expect(tpmCode(0xa000a)).toBeUndefined();
    expect(tpmCode(0xffffffff)).toBeUndefined();
    expect(tpmCode(0x9a2)).toBe(tpmCode(0x1a2));
  });

  test.each([
    [0x9a2, 'key', 'key_store_wrong_secret', /keyAuth/],
    [0x98e, 'owner', 'key_store_unavailable', /tpm2_evictcontrol/],
    [0x9a2, 'endorsement', 'key_store_unavailable', /endorsement hierarchy/],
    [0x99d, 'key', 'key_store_locked', /PCRs/],
    [0x1df, 'key', 'key_store_corrupt', /damaged/],
    [0x1df, 'endorsement', 'invalid_argument', /not made for this TPM/],
    [OTHER_TPM, 'key', 'key_store_wrong_secret', /another TPM/],
    [0x921, 'key', 'key_store_unavailable', /lock/],
    [0xc0902, 'key', 'key_store_unavailable', /slots/],
    [0xa000a, 'key', 'key_store_unavailable', /the TPM could not sign: words/],
    [0xffffffff, 'key', 'key_store_unavailable', /words/],
  ] as const)('0x%s of a %s', (code, subject, expected, message) => {
    const error = explain(new TpmError(code, 'words'), 'sign', subject);
    expect(error).toMatchObject({ code: expected, message: expect.stringMatching(message) });
  });
});
