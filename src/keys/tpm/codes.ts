/** Response codes of the TPM and of tpm2-tss, sorted by what is to be done about them (TPM 2.0 Part 2 §6.6). */
import { NO_RESPONSE } from '../../native/tpm2-tss/error.ts';
import { OTHER_TPM } from './protocol.ts';

const LAYERS_THAT_SPEAK_FOR_THE_TPM = [0, 11, 12]; // the TPM itself, and resource managers

/** A response code without the number of the handle, session or parameter that it is about. */
export const TPM_RC = {
  AUTH_FAIL: 0x8e,
  BAD_AUTH: 0xa2,
  HANDLE: 0x8b,
  VALUE: 0x84,
  INTEGRITY: 0x9f,
  POLICY_FAIL: 0x9d,
  SIZE: 0x95,
  INSUFFICIENT: 0x9a,
  PCR_CHANGED: 0x128,
  OBJECT_MEMORY: 0x902,
  SESSION_MEMORY: 0x903,
  SESSION_HANDLES: 0x905,
  OBJECT_HANDLES: 0x906,
  YIELDED: 0x908,
  CANCELED: 0x909,
  TESTING: 0x90a,
  NV_RATE: 0x920,
  LOCKOUT: 0x921,
  RETRY: 0x922,
  NV_UNAVAILABLE: 0x923,
} as const;

/** What a failure asks for. */
export type Remedy =
  /** The connection is gone: open another one. */
  | 'reopen'
  /** The TPM has no room for another object or session. */
  | 'make-room'
  /** Objects or sessions that we had loaded are gone, as after a restart of the TPM behind a living connection. */
  | 'reload'
  /** The TPM asks us to come again. */
  | 'wait';

const remedies = new Map<number, Remedy>([
  [TPM_RC.OBJECT_MEMORY, 'make-room'],
  [TPM_RC.OBJECT_HANDLES, 'make-room'],
  [TPM_RC.SESSION_MEMORY, 'make-room'],
  [TPM_RC.SESSION_HANDLES, 'make-room'],
  [TPM_RC.PCR_CHANGED, 'wait'],
  [TPM_RC.YIELDED, 'wait'],
  [TPM_RC.CANCELED, 'wait'],
  [TPM_RC.TESTING, 'wait'],
  [TPM_RC.NV_RATE, 'wait'],
  [TPM_RC.RETRY, 'wait'],
  [TPM_RC.NV_UNAVAILABLE, 'wait'],
  [TPM_RC.HANDLE, 'reload'],
]);

/** After whatever failed in the layer of the transport, the context over it is of no use any more. */
const TCTI_LAYER = 0x0a;
/** TSS2_BASE_RC values that say the same in the layers above. */
const CONNECTION: ReadonlySet<number> = new Set([
  0x7, // BAD_SEQUENCE
  0x8, // NO_CONNECTION
  0x9, // TRY_AGAIN, which a call that waits never gives while all is well
  0xa, // IO_ERROR
]);
const FORMAT_ONE = 0x80;
/** In a code of format one: about a parameter (0x040), or else about the session (0x800) or handle of this number. */
const [ABOUT, ABOUT_A_HANDLE] = [0x840, 0x000];
const [REFERENCE_FIRST, REFERENCE_LAST] = [0x910, 0x91e];

/** The TPM's code as {@link TPM_RC} has it; undefined where it was not the TPM that spoke. */
export function tpmCode(code: number): number | undefined {
  if (code < 0 || !LAYERS_THAT_SPEAK_FOR_THE_TPM.includes(code >>> 16)) return undefined;
  const bare = code & 0xfff;
  return bare & FORMAT_ONE ? bare & 0xbf : bare;
}

export function remedyFor(code: number): Remedy | undefined {
  if (code === OTHER_TPM) return 'reload'; // what we remember of the TPM may be of the one that stood here before
  const spoken = tpmCode(code);
  if (spoken === undefined) {
    if (code < 0 || code === NO_RESPONSE) return undefined;
    return code >>> 16 === TCTI_LAYER || CONNECTION.has(code & 0xffff) ? 'reopen' : undefined;
  }
  // a resource manager whose TPM restarted gives no handle in the place of what it had saved
  if (spoken === TPM_RC.VALUE && (code & ABOUT) === ABOUT_A_HANDLE) return 'reload';
  if (spoken >= REFERENCE_FIRST && spoken <= REFERENCE_LAST) return 'reload';
  return remedies.get(spoken);
}
