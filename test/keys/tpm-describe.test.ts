/** What a TPM says of itself, beside what tpm2-tools read of the same TPM. */
import { createHash, X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { describeTpm } from '../../src/keys/tpm/describe.ts';
import { type Swtpm, skipTpm, startSwtpm } from '../support/swtpm.ts';

describe.skipIf(skipTpm)('describeTpm', () => {
  let swtpm: Swtpm;
  beforeAll(async () => {
    swtpm = await startSwtpm();
  });
  afterAll(() => swtpm?.stop());

  test('agrees with tpm2_getcap', async () => {
    const found = await describeTpm({ tcti: swtpm.tcti, managed: false });
    const fixed = await swtpm.tools('tpm2_getcap', 'properties-fixed');
    const variable = await swtpm.tools('tpm2_getcap', 'properties-variable');
    const raw = (text: string, name: string) =>
      Number(new RegExp(`${name}:\\s+(?:raw: )?(0x[0-9A-Fa-f]+|\\d+)`).exec(text)?.[1]);
    expect(found.family).toBe('2.0');
    expect(Number(found.revision) * 100).toBeCloseTo(raw(fixed, 'TPM2_PT_REVISION'), 5);
    expect(found.manufacturer.id).toBe(
      `id:${raw(fixed, 'TPM2_PT_MANUFACTURER').toString(16).toUpperCase().padStart(8, '0')}`,
    );
    expect(found.manufacturer.name).toMatch(/swtpm|IBM/);
    const [high, low] = [1, 2].map((i) => raw(fixed, `TPM2_PT_FIRMWARE_VERSION_${i}`));
    expect(found.firmware).toBe([high! >>> 16, high! & 0xffff, low! >>> 16, low! & 0xffff].join('.'));
    expect(found.freeSlots).toBe(raw(variable, 'TPM2_PT_HR_TRANSIENT_AVAIL'));
    expect(found.lockout).toEqual({
      failures: raw(variable, 'TPM2_PT_LOCKOUT_COUNTER'),
      limit: raw(variable, 'TPM2_PT_MAX_AUTH_FAIL'),
      recovery: raw(variable, 'TPM2_PT_LOCKOUT_INTERVAL'),
      locked: false,
    });
    expect(found.passwords).toEqual({ owner: false, endorsement: false });
    expect(found.algorithms).toContain('ES256');
    expect(found.algorithms).toContain('RS256');
  });

  test('shows the endorsement certificates', async () => {
    const { endorsementCertificates } = await describeTpm({ tcti: swtpm.tcti, managed: false });
    expect(endorsementCertificates.map(({ kind }) => kind).sort()).toEqual(['P-256', 'P-384', 'RSA-2048']);
    for (const { certificate } of endorsementCertificates) {
      expect(certificate?.issuer).toMatch(/./);
      expect(certificate!.notAfter).toBeGreaterThan(Date.now());
    }
  });

  test('names the TPM by the hash of its endorsement key, as attesters list it', async () => {
    const { endorsementKey } = await describeTpm({ tcti: swtpm.tcti, managed: false });
    expect(endorsementKey).toEqual({ kind: 'P-256', hash: expect.any(String), certified: true });
    await swtpm.tools('tpm2_nvread', '0x01c0000a', '-C', 'o', '-o', 'ek.der');
    const spki = new X509Certificate(await readFile(join(swtpm.directory, 'ek.der'))).publicKey;
    const hash = createHash('sha256')
      .update(spki.export({ type: 'spki', format: 'der' }))
      .digest('base64url');
    expect(endorsementKey).toMatchObject({ hash });
  });

  test('sees an owner password and a lock-out, and asks for neither', async () => {
    await swtpm.tools('tpm2_changeauth', '-c', 'o', 'a password');
    await swtpm.tools('tpm2_dictionarylockout', '--setup-parameters', '--max-tries=1', '--recovery-time=1000');
    const { passwords, lockout } = await describeTpm({ tcti: swtpm.tcti, managed: false });
    expect(passwords).toEqual({ owner: true, endorsement: false });
    expect(lockout).toMatchObject({ limit: 1, recovery: 1000, locked: false });
  });
});
