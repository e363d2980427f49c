/** Response codes of a TPM and of tpm2-tss, in words. */
import { type CodeRow, formatOne, formatZero, tssCodes, warnings } from './response-code-tables.ts';

export interface TpmCode {
  code: number;
  /** Stable, as the specifications have it: `TPM_RC_OBJECT_MEMORY`, `TSS2_TCTI_RC_IO_ERROR`. */
  name: string;
  /** Who says so: the TPM, a layer of the TSS, or the resource manager. */
  layer: TpmCodeLayer;
  /** What the TPM found fault with, counted from 1; absent where the code does not say. */
  subject?: { kind: 'parameter' | 'handle' | 'session'; number: number };
  /** The TPM may do the same command later on. */
  warning: boolean;
  /** For people: name, subject and what it means. */
  text: string;
}

export type TpmCodeLayer = 'tpm' | 'fapi' | 'esys' | 'sys' | 'mu' | 'tcti' | 'rm' | 'none';

/** Layers of the TSS (its Overview §4.2): by bits 16 to 23. */
const layers: Readonly<Record<number, { layer: TpmCodeLayer; prefix: string }>> = {
  6: { layer: 'fapi', prefix: 'TSS2_FAPI_RC_' },
  7: { layer: 'esys', prefix: 'TSS2_ESYS_RC_' },
  8: { layer: 'sys', prefix: 'TSS2_SYS_RC_' },
  9: { layer: 'mu', prefix: 'TSS2_MU_RC_' },
  10: { layer: 'tcti', prefix: 'TSS2_TCTI_RC_' },
  11: { layer: 'rm', prefix: 'TSS2_RESMGR_RC_' },
};

const TPM_LAYER = 0;
/** The resource manager of the kernel answers with TPM codes at 11, that of tabrmd at 12. */
const RM_LAYER = 11;
const RM_TPM_LAYER = 12;

type Decoded = Omit<TpmCode, 'code' | 'layer'>;

/**
 * What a response code means. Knows all three formats of the TPM, the layers of the TSS, and 0xffffffff, which the binding
 * gives for a command that did not get as far as the library. Never throws: what is not known is said to be so.
 */
export function describeTpmCode(code: number): TpmCode {
  const known = Number.isInteger(code) && code >= 0 && code <= 0xffffffff;
  if (!known || code === 0xffffffff)
    return { code, layer: 'none', ...plain('NOT_SENT', 'the command did not reach the TPM') };
  const level = (code >>> 16) & 0xff;
  const low = code & 0xffff;
  if (level === TPM_LAYER && code <= 0xffff) return { code, layer: 'tpm', ...tpmCode(low) };
  if (level === RM_TPM_LAYER || (level === RM_LAYER && low >= 0x80)) return { code, layer: 'rm', ...tpmCode(low) };
  const row = layers[level];
  if (row === undefined) return { code, layer: 'none', ...unknown(code) };
  return { code, layer: row.layer, ...named(row.prefix, tssCodes[low & 0xff], code) };
}

function tpmCode(code: number): Decoded {
  if (code === 0) return plain('TPM_RC_SUCCESS', 'success');
  if (code > 0xfff) return unknown(code);
  if (code & 0x080) return aboutSubject(code);
  if (code & 0x400) return plain('TPM_RC_VENDOR', `a code of the TPM's maker (0x${code.toString(16)})`);
  if (!(code & 0x100))
    return code === 0x1e ? plain('TPM_RC_BAD_TAG', 'a TPM 1.2 does not know this command') : unknown(code);
  const number = code & 0x7f;
  if (!(code & 0x800)) return named('TPM_RC_', formatZero[number], code);
  return { ...named('TPM_RC_', warnings[number] ?? reference(number), code), warning: true };
}

/** TPM_RC_REFERENCE_H0 and those after it: a handle of the command whose object or session is not loaded. */
function reference(number: number): CodeRow | undefined {
  const index = number & 7;
  if (number < 0x10 || number > 0x1e || index === 7) return undefined;
  return number < 0x18
    ? [`REFERENCE_H${index}`, `the object of handle ${index + 1} is not loaded`]
    : [`REFERENCE_S${index}`, `session ${index + 1} is not loaded`];
}

/** Format 1: which parameter (bit 6), session (bit 11) or handle it is about stands in bits 8 to 11. */
function aboutSubject(code: number): Decoded {
  const decoded = named('TPM_RC_', formatOne[code & 0x3f], code);
  const kind = code & 0x040 ? 'parameter' : code & 0x800 ? 'session' : 'handle';
  const number = (code >>> 8) & (kind === 'parameter' ? 0xf : 0x7);
  if (number === 0) return decoded;
  return {
    ...decoded,
    subject: { kind, number },
    text: decoded.text.replace(decoded.name, `${decoded.name} (${kind} ${number})`),
  };
}

function named(prefix: string, row: CodeRow | undefined, code: number): Decoded {
  return row === undefined ? unknown(code) : plain(`${prefix}${row[0]}`, row[1]);
}

const plain = (name: string, words: string): Decoded => ({ name, warning: false, text: `${name}: ${words}` });

const unknown = (code: number): Decoded =>
  plain('UNKNOWN', `a response code that is not known (0x${code.toString(16)})`);
