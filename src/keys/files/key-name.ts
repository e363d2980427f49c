/** What the file of a key is called. */
import { utf8 } from '../../core/bytes.ts';
import { sha256 } from '../../platform/crypto.ts';

const SUFFIX = '.key.json';
const NAME = /^[0-9a-f]{64}\.key\.json$/;

/** A hash, in hexadecimal: labels may look like paths, and some file systems ignore case. */
export function keyFileName(label: string): string {
  return `${Buffer.from(sha256(utf8(label))).toString('hex')}${SUFFIX}`;
}

export function isKeyFileName(name: string): boolean {
  return NAME.test(name);
}
