/** Lists of trusted certificates as operators keep them: files and directories. */
import { readdir, readFile, stat } from 'node:fs/promises';
import { extname, join } from 'node:path';
import { AttestedError } from '../errors.ts';
import { readCertificate } from './certificates.ts';

const MAX_BYTES = 16 * 1024 * 1024;
const EXTENSIONS = new Set(['.pem', '.crt', '.cer', '.der']);
const PEM_BLOCK = /-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g;

/**
 * Reads certificates for a list of anchors, such as the `roots` of TPM makers. A path is a file, with one certificate in DER
 * or any number in PEM (text between them is skipped), or a directory, of which the files `.pem`, `.crt`, `.cer` and `.der` are
 * read, and no sub-directories. Strict, because a root that is silently missing is found when a device is refused: a file
 * with something unreadable in it, or a directory without certificates, is an error that names it.
 *
 * @returns DER, each certificate once, in the order of the paths and of the names in a directory
 * @throws AttestedError `invalid_argument`
 */
export async function readCertificateFiles(paths: readonly string[]): Promise<Uint8Array[]> {
  const found = new Map<string, Uint8Array>();
  for (const path of paths) {
    for (const file of await filesAt(path)) {
      for (const der of await certificatesIn(file)) found.set(Buffer.from(der).toString('base64'), der);
    }
  }
  return [...found.values()];
}

async function filesAt(path: string): Promise<string[]> {
  const isDirectory = await readable(path, async () => (await stat(path)).isDirectory());
  if (!isDirectory) return [path];
  const names = (await readable(path, () => readdir(path))).filter((name) =>
    EXTENSIONS.has(extname(name).toLowerCase()),
  );
  if (names.length === 0) throw invalid(path, 'has no files .pem, .crt, .cer or .der in it');
  return names.sort().map((name) => join(path, name));
}

async function certificatesIn(file: string): Promise<Uint8Array[]> {
  const content = await readable(file, () => readFile(file));
  if (content.length > MAX_BYTES) throw invalid(file, `is larger than ${MAX_BYTES} bytes`);
  const text = content.toString('latin1');
  const begun = text.split('-----BEGIN ').length - 1;
  const blocks = begun === 0 ? [content] : (text.match(PEM_BLOCK) ?? []);
  if (begun > blocks.length) throw invalid(file, 'has something in PEM that is no certificate');
  return blocks.map((block) => {
    const certificate = readCertificate(block);
    // of DER, OpenSSL reads the first certificate and is silent about the rest
    const isWhole = typeof block === 'string' || block.length === certificate?.x509.raw.length;
    if (certificate === undefined || !isWhole) throw invalid(file, 'holds something that is not a certificate');
    return new Uint8Array(certificate.x509.raw);
  });
}

async function readable<Result>(path: string, work: () => Promise<Result>): Promise<Result> {
  try {
    return await work();
  } catch (cause) {
    throw invalid(path, `cannot be read (${(cause as NodeJS.ErrnoException).code ?? 'unknown'})`, cause);
  }
}

/** The path is named: it is the operator's own, and there may be hundreds of files. */
function invalid(path: string, why: string, cause?: unknown): AttestedError {
  return new AttestedError('invalid_argument', `certificates: ${path} ${why}`, { cause });
}
