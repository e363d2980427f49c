/** Sessions: authorization without the auth value on the bus, policies, encrypted parameters. */

import { readNumber } from './cells.ts';
import { type Context, NONE } from './context.ts';
import { hierarchies } from './objects.ts';
import type { Esys, SessionOptions } from './types.ts';
import { join, pcrSelection, sized, u16, u32, unsized } from './wire.ts';

/** TPM_SE_… */
const types: Record<SessionOptions['type'], number> = { hmac: 0x00, policy: 0x01, trial: 0x03 };

const SHA256 = 0x000b;

/** TPMT_SYM_DEF: AES-128-CFB, or TPM_ALG_NULL. */
const AES_128_CFB: Uint8Array = join(u16(0x0006), u16(128), u16(0x0043));
const NO_CIPHER: Uint8Array = u16(0x0010);

const EMPTY: Uint8Array = sized(new Uint8Array(0));

export function sessionCommands({
  exclusively,
  sessions,
}: Context): Pick<
  Esys,
  'startSession' | 'policySecret' | 'policyPcr' | 'policyAuthValue' | 'policyOr' | 'policyGetDigest'
> {
  return {
    startSession: ({ type, hash = SHA256, saltKey = NONE, encrypt = false, continueSession = true }) =>
      exclusively(async (io) => {
        const handle = io.cell();
        await io.call(
          'Esys_StartAuthSession',
          saltKey,
          NONE, // bound to nothing
          ...[NONE, NONE, NONE],
          null, // the library makes a nonce
          types[type],
          io.input('TPMT_SYM_DEF', encrypt ? AES_128_CFB : NO_CIPHER),
          hash,
          handle,
        );
        const session = readNumber(handle);
        sessions.set(session, { encrypt, continueSession });
        return session;
      }),

    policySecret: (session, hierarchy) =>
      exclusively(async (io) => {
        const object = hierarchies[hierarchy];
        await io.call(
          'Esys_PolicySecret',
          object,
          session,
          ...io.sessions({ command: true, response: true }, [{ object }]),
          io.input('TPM2B_NONCE', EMPTY),
          io.input('TPM2B_DIGEST', EMPTY),
          io.input('TPM2B_NONCE', EMPTY),
          0, // it does not expire
          null,
          null,
        );
      }),

    policyPcr: (session, selection) =>
      exclusively(async (io) => {
        const now = io.input('TPM2B_DIGEST', EMPTY); // whatever the PCRs are at this moment
        const pcrs = io.input('TPML_PCR_SELECTION', pcrSelection(selection));
        await io.call('Esys_PolicyPCR', session, NONE, NONE, NONE, now, pcrs);
      }),

    policyAuthValue: (session) => exclusively((io) => io.call('Esys_PolicyAuthValue', session, NONE, NONE, NONE)),

    policyOr: (session, digests) =>
      exclusively(async (io) => {
        const list = io.input('TPML_DIGEST', join(u32(digests.length), ...digests.map(sized)));
        await io.call('Esys_PolicyOR', session, NONE, NONE, NONE, list);
      }),

    policyGetDigest: (session) =>
      exclusively(async (io) => {
        const digest = io.result();
        await io.call('Esys_PolicyGetDigest', session, NONE, NONE, NONE, digest);
        return unsized(io.output('TPM2B_DIGEST', digest));
      }),
  };
}
