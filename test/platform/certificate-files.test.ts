import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { readCertificateFiles } from 'attested/attester';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { goodChain, issueCertificate } from '../support/certificates.ts';
import { expectRefusal } from '../support/errors.ts';

const { root, authority, leaf } = goodChain();
const der = (...issued: { der: Buffer }[]) => issued.map((one) => new Uint8Array(one.der));

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'attested-certificates-'));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

async function file(name: string, content: string | Uint8Array): Promise<string> {
  await writeFile(join(directory, name), content);
  return join(directory, name);
}

describe('readCertificateFiles', () => {
  test('reads DER, PEM, and PEM of several with text between them', async () => {
    expect(await readCertificateFiles([await file('one.bin', root.der)])).toEqual(der(root));
    expect(await readCertificateFiles([await file('one', root.pem)])).toEqual(der(root));
    const bundle = `# Maker A\n${root.pem}\nMaker B, since 2020:\r\n${authority.pem.replaceAll('\n', '\r\n')}`;
    expect(await readCertificateFiles([await file('bundle.txt', bundle)])).toEqual(der(root, authority));
  });

  test('reads the certificates in a directory by name, and nothing else there', async () => {
    await file('b.PEM', root.pem);
    await file('a.crt', authority.der);
    await file('c.cer', leaf.der);
    await file('README.md', 'Where these are from');
    await mkdir(join(directory, 'sub.der.d'));
    expect(await readCertificateFiles([directory])).toEqual(der(authority, root, leaf));
  });

  test('gives each certificate once', async () => {
    await file('a.pem', root.pem + root.pem);
    const again = await file('b.der', root.der);
    expect(await readCertificateFiles([directory, again])).toEqual(der(root));
  });

  test('gives none for no path', async () => expect(await readCertificateFiles([])).toEqual([]));

  const damaged = root.pem.replace(/\n[^\n]{10}/, '\nAAAAAAAAAA');
  test.each([
    ['a certificate that is damaged', damaged],
    ['one that is damaged among good ones', root.pem + damaged + leaf.pem],
    ['one that is cut off after a good one', root.pem + leaf.pem.slice(0, -30)],
    ['a private key beside a certificate', `${root.pem}-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n`],
    ['two certificates in DER', Buffer.concat([root.der, leaf.der])],
    ['nothing', ''],
    ['text', 'no certificate'],
    ['a certificate with an extension twice', issueCertificate({ name: 'x', usage: 4, critical: '2.5.29.15' }).der],
  ])('refuses a file with %s, and names it', async (_, content) => {
    await file('a.pem', root.pem);
    const path = await file('b.pem', content);
    for (const given of [path, directory]) {
      const { message } = await expectRefusal(() => readCertificateFiles([given]), { code: 'invalid_argument' });
      expect(message).toContain(path);
      expect(message).not.toContain('AAAA');
    }
  });

  test('refuses a path where nothing is, and a directory without certificates', async () => {
    const missing = join(directory, 'missing.pem');
    const { message } = await expectRefusal(() => readCertificateFiles([missing]), { code: 'invalid_argument' });
    expect(message).toContain('ENOENT');
    await file('README', root.pem);
    await expectRefusal(() => readCertificateFiles([directory]), { code: 'invalid_argument' });
  });
});
