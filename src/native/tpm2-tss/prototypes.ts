/**
 * The functions of tpm2-tss that we call, each with the kinds of its parameters (TSS 2.0 ESAPI and MU specifications;
 * <tss2/tss2_esys.h>, <tss2/tss2_mu.h>, <tss2/tss2_tctildr.h>, <tss2/tss2_rc.h>). The types of C structures are not told
 * to koffi: they pass as wire bytes through the MU library, so that no memory layout is written down here.
 */

/** What may be passed for a parameter, and the C type that it becomes. `memory` and `cell` are views of a {@link Scratch}. */
export const kinds = {
  /** An ESYS_CONTEXT, TSS2_TCTI_CONTEXT or structure that the library gave us. */
  pointer: 'void *',
  /** A C structure to read. */
  memory: 'void *',
  /** The same, or NULL. */
  memoryOrNull: 'void *',
  /** Where the library puts a handle, a pointer, an offset or a flag. */
  cell: 'void *',
  cellOrNull: 'void *',
  size: 'size_t',
  handle: 'uint32_t',
  u32: 'uint32_t',
  i32: 'int32_t',
  u16: 'uint16_t',
  u8: 'uint8_t',
  text: 'str',
} as const;

export type Kind = keyof typeof kinds;

const sessions: readonly Kind[] = ['handle', 'handle', 'handle'];
const created: readonly Kind[] = ['cell', 'cell', 'cellOrNull', 'cellOrNull', 'cellOrNull'];
const create: readonly Kind[] = ['handle', ...sessions, 'memory', 'memory', 'memory', 'memory', ...created];

/** Each gives a TSS2_RC and takes the ESYS_CONTEXT first, which is left out here. */
export const esysCommands: Readonly<Record<EsysCommand, readonly Kind[]>> = {
  Esys_CreatePrimary: create,
  Esys_Create: create,
  Esys_Load: ['handle', ...sessions, 'memory', 'memory', 'cell'],
  Esys_ReadPublic: ['handle', ...sessions, 'cell', 'cell', 'cellOrNull'],
  Esys_FlushContext: ['handle'],
  Esys_Sign: ['handle', ...sessions, 'memory', 'memory', 'memory', 'cell'],
  Esys_Unseal: ['handle', ...sessions, 'cell'],
  Esys_Certify: ['handle', 'handle', ...sessions, 'memory', 'memory', 'cell', 'cell'],
  Esys_Quote: ['handle', ...sessions, 'memory', 'memory', 'memory', 'cell', 'cell'],
  Esys_ActivateCredential: ['handle', 'handle', ...sessions, 'memory', 'memory', 'cell'],
  Esys_MakeCredential: ['handle', ...sessions, 'memory', 'memory', 'cell', 'cell'],
  Esys_StartAuthSession: ['handle', 'handle', ...sessions, 'memoryOrNull', 'u8', 'memory', 'u16', 'cell'],
  Esys_PolicySecret: ['handle', 'handle', ...sessions, 'memory', 'memory', 'memory', 'i32', 'cellOrNull', 'cellOrNull'],
  Esys_PolicyPCR: ['handle', ...sessions, 'memory', 'memory'],
  Esys_PolicyAuthValue: ['handle', ...sessions],
  Esys_PolicyOR: ['handle', ...sessions, 'memory'],
  Esys_PolicyGetDigest: ['handle', ...sessions, 'cell'],
  Esys_PCR_Read: [...sessions, 'memory', 'cell', 'cell', 'cell'],
  Esys_NV_ReadPublic: ['handle', ...sessions, 'cell', 'cellOrNull'],
  Esys_NV_Read: ['handle', 'handle', ...sessions, 'u16', 'u16', 'cell'],
  Esys_GetCapability: [...sessions, 'u32', 'u32', 'u32', 'cell', 'cell'],
  Esys_GetRandom: [...sessions, 'u16', 'cell'],
  Esys_Shutdown: [...sessions, 'u16'],
  Esys_TR_FromTPMPublic: ['u32', ...sessions, 'cell'],
  Esys_TR_Close: ['cell'],
  Esys_TR_SetAuth: ['handle', 'memory'],
  Esys_TRSess_SetAttributes: ['handle', 'u8', 'u8'],
};

/** Tss2_MU_<name>_Marshal and _Unmarshal are called for these. */
export const structures = [
  'TPM2B_AUTH',
  'TPM2B_ATTEST',
  'TPM2B_DATA',
  'TPM2B_DIGEST',
  'TPM2B_ENCRYPTED_SECRET',
  'TPM2B_ID_OBJECT',
  'TPM2B_MAX_NV_BUFFER',
  'TPM2B_NAME',
  'TPM2B_NONCE',
  'TPM2B_NV_PUBLIC',
  'TPM2B_PRIVATE',
  'TPM2B_PUBLIC',
  'TPM2B_SENSITIVE_CREATE',
  'TPM2B_SENSITIVE_DATA',
  'TPML_DIGEST',
  'TPML_PCR_SELECTION',
  'TPMS_CAPABILITY_DATA',
  'TPMT_SIG_SCHEME',
  'TPMT_SIGNATURE',
  'TPMT_SYM_DEF',
  'TPMT_TK_HASHCHECK',
] as const;

export type Structure = (typeof structures)[number];
export type EsysCommand =
  | 'Esys_CreatePrimary'
  | 'Esys_Create'
  | 'Esys_Load'
  | 'Esys_ReadPublic'
  | 'Esys_FlushContext'
  | 'Esys_Sign'
  | 'Esys_Unseal'
  | 'Esys_Certify'
  | 'Esys_Quote'
  | 'Esys_ActivateCredential'
  | 'Esys_MakeCredential'
  | 'Esys_StartAuthSession'
  | 'Esys_PolicySecret'
  | 'Esys_PolicyPCR'
  | 'Esys_PolicyAuthValue'
  | 'Esys_PolicyOR'
  | 'Esys_PolicyGetDigest'
  | 'Esys_PCR_Read'
  | 'Esys_NV_ReadPublic'
  | 'Esys_NV_Read'
  | 'Esys_GetCapability'
  | 'Esys_GetRandom'
  | 'Esys_Shutdown'
  | 'Esys_TR_FromTPMPublic'
  | 'Esys_TR_Close'
  | 'Esys_TR_SetAuth'
  | 'Esys_TRSess_SetAttributes';

export type LibraryName = 'esys' | 'mu' | 'tctildr' | 'rc';

/** What a library is called where; the first that loads is taken. */
export const libraryFiles: Record<'linux' | 'darwin' | 'win32', (library: string) => readonly string[]> = {
  linux: (library) => [`libtss2-${library}.so.0`],
  darwin: (library) => [`libtss2-${library}.0.dylib`, `libtss2-${library}.dylib`],
  win32: (library) => [`tss2-${library}.dll`],
};
