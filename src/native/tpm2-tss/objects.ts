/** Keys and sealed objects: made, loaded, used, flushed. */

import { readNumber } from './cells.ts';
import { type Context, NONE } from './context.ts';
import type { Esys, Hierarchy } from './types.ts';
import { join, sized, u16, u32, unsized } from './wire.ts';

/** ESYS_TR_RH_… */
export const hierarchies: Record<Hierarchy, number> = { owner: 0x101, null: 0x107, endorsement: 0x10b };

const NOTHING = new Uint8Array(0);
const EMPTY: Uint8Array = sized(NOTHING);
const NO_PCRS = u32(0);

/** TPM2B_SENSITIVE_CREATE */
const sensitive = (authValue: Uint8Array, data: Uint8Array) => sized(join(sized(authValue), sized(data)));

/** TPMT_SIG_SCHEME: TPM_ALG_NULL, the key's own. */
export const OWN_SCHEME: Uint8Array = u16(0x0010);

/** TPMT_TK_HASHCHECK of a digest that the TPM has not computed: TPM_ST_HASHCHECK, TPM_RH_NULL, empty. */
const OUTSIDE_DIGEST = join(u16(0x8024), u32(0x40000007), EMPTY);

type Objects =
  | 'createPrimary'
  | 'create'
  | 'load'
  | 'readPublic'
  | 'fromTpmHandle'
  | 'closeHandle'
  | 'flush'
  | 'sign'
  | 'unseal';

const both = { command: true, response: true };

export function objectCommands({ exclusively, sessions }: Context): Pick<Esys, Objects> {
  return {
    createPrimary: (hierarchy, template) =>
      exclusively(async (io) => {
        const object = hierarchies[hierarchy];
        const handle = io.cell();
        const made = io.result();
        await io.call(
          'Esys_CreatePrimary',
          object,
          ...io.sessions(both, [{ object }]),
          io.input('TPM2B_SENSITIVE_CREATE', sensitive(NOTHING, NOTHING)),
          io.input('TPM2B_PUBLIC', sized(template)),
          io.input('TPM2B_DATA', EMPTY),
          io.input('TPML_PCR_SELECTION', NO_PCRS),
          handle,
          made,
          null,
          null,
          null,
        );
        return { handle: readNumber(handle), public: unsized(io.output('TPM2B_PUBLIC', made)) };
      }),

    create: (parent, template, { authValue = NOTHING, data = NOTHING, parentAuth, encryptWith } = {}) =>
      exclusively(async (io) => {
        const wrapped = io.result();
        const made = io.result();
        await io.call(
          'Esys_Create',
          parent,
          ...io.sessions(both, [{ object: parent, auth: parentAuth }], encryptWith),
          io.input('TPM2B_SENSITIVE_CREATE', sensitive(authValue, data)),
          io.input('TPM2B_PUBLIC', sized(template)),
          io.input('TPM2B_DATA', EMPTY),
          io.input('TPML_PCR_SELECTION', NO_PCRS),
          wrapped,
          made,
          null,
          null,
          null,
        );
        return { private: io.output('TPM2B_PRIVATE', wrapped), public: io.output('TPM2B_PUBLIC', made) };
      }),

    load: (parent, object, { parentAuth } = {}) =>
      exclusively(async (io) => {
        const handle = io.cell();
        await io.call(
          'Esys_Load',
          parent,
          ...io.sessions(both, [{ object: parent, auth: parentAuth }]),
          io.input('TPM2B_PRIVATE', object.private),
          io.input('TPM2B_PUBLIC', object.public),
          handle,
        );
        return readNumber(handle);
      }),

    readPublic: (object) =>
      exclusively(async (io) => {
        const area = io.result();
        const name = io.result();
        await io.call('Esys_ReadPublic', object, NONE, NONE, NONE, area, name, null);
        return { public: unsized(io.output('TPM2B_PUBLIC', area)), name: unsized(io.output('TPM2B_NAME', name)) };
      }),

    fromTpmHandle: (tpmHandle) =>
      exclusively(async (io) => {
        const handle = io.cell();
        await io.call('Esys_TR_FromTPMPublic', tpmHandle, NONE, NONE, NONE, handle);
        return readNumber(handle);
      }),

    closeHandle: (object) => exclusively(async (io) => io.quick('Esys_TR_Close', io.handle(object))),

    flush: (object) =>
      exclusively(async (io) => {
        await io.call('Esys_FlushContext', object);
        sessions.delete(object);
      }),

    sign: (key, digest, { scheme = OWN_SCHEME, auth, encryptWith } = {}) =>
      exclusively(async (io) => {
        const signature = io.result();
        await io.call(
          'Esys_Sign',
          key,
          ...io.sessions({ command: true, response: false }, [{ object: key, auth }], encryptWith),
          io.input('TPM2B_DIGEST', sized(digest)),
          io.input('TPMT_SIG_SCHEME', scheme),
          io.input('TPMT_TK_HASHCHECK', OUTSIDE_DIGEST),
          signature,
        );
        return io.output('TPMT_SIGNATURE', signature);
      }),

    unseal: (object, { auth, encryptWith } = {}) =>
      exclusively(async (io) => {
        const data = io.result();
        const sessions = io.sessions({ command: false, response: true }, [{ object, auth }], encryptWith);
        await io.call('Esys_Unseal', object, ...sessions, data);
        return unsized(io.output('TPM2B_SENSITIVE_DATA', data));
      }),
  };
}
