/** TPM commands that tpm2-tools has no options for, sent as bytes by its tpm2_send. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { concat, Reader, sized, u8, u16, u32 } from '../../src/tpm2/wire.ts';
import type { Swtpm } from '../support/swtpm.ts';

export const hierarchies = { owner: 0x40000001, endorsement: 0x4000000b } as const;

const none = new Uint8Array(0);
/** A password session with an empty password, as an authorization area. */
const emptyPassword = concat(u32(9), u32(0x40000009), u16(0), u8(0), u16(0));

/** TPM2_CreatePrimary from a TPMT_PUBLIC. Gives the transient handle, which is the caller's to flush. */
export async function createPrimary(
  tpm: Swtpm,
  hierarchy: keyof typeof hierarchies,
  template: Uint8Array,
): Promise<string> {
  const sensitive = sized(concat(sized(none), sized(none)));
  const parameters = concat(sensitive, sized(template), sized(none), u32(0));
  const body = concat(u32(0x131), u32(hierarchies[hierarchy]), emptyPassword, parameters);
  writeFileSync(join(tpm.directory, 'command'), concat(u16(0x8002), u32(body.length + 6), body));
  await tpm.tools('tpm2_send', '-o', 'response', 'command');
  const reader = new Reader(new Uint8Array(readFileSync(join(tpm.directory, 'response'))), 'a response');
  reader.take(6);
  const code = reader.u32();
  if (code !== 0) throw new Error(`TPM2_CreatePrimary: 0x${code.toString(16)}`);
  return `0x${reader.u32().toString(16)}`;
}

/** The public area and Name of a key as tpm2-tools reads them: a TPM2B_PUBLIC, and the bare Name. */
export async function readPublic(tpm: Swtpm, key: string): Promise<{ file: Uint8Array; name: Uint8Array }> {
  await tpm.tools('tpm2_readpublic', '-c', key, '-o', 'read.pub', '-n', 'read.name');
  return { file: fileOf(tpm, 'read.pub'), name: fileOf(tpm, 'read.name') };
}

/** A file that a tool left in the TPM's directory. */
export function fileOf(tpm: Swtpm, name: string): Uint8Array {
  return new Uint8Array(readFileSync(join(tpm.directory, name)));
}
