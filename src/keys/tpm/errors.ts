/** What the TPM, its library and its helper process say, in the words of a key store. */
import { AttestedError } from '../../errors.ts';
import { TpmError } from '../../native/tpm2-tss/error.ts';
import { unavailable, wrongSecret } from '../files/faults.ts';
import { TPM_RC, tpmCode } from './codes.ts';
import { HELD_BY_ANOTHER, OTHER_TPM } from './protocol.ts';

/** What a request works with, where the same code means different things. */
export type Subject = 'owner' | 'endorsement' | 'key';

const OWNER_PASSWORD =
  'the owner hierarchy of the TPM has a password, which we do not ask for: make the standard storage key persistent once, with ' +
  'tpm2_createprimary -C o -P PASSWORD -G ecc -a "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt" ' +
  '-c srk.ctx and tpm2_evictcontrol -C o -P PASSWORD -c srk.ctx 0x81000001';

const authFailures: Readonly<Record<Subject, () => AttestedError>> = {
  owner: () => unavailable(OWNER_PASSWORD),
  endorsement: () =>
    unavailable('the endorsement hierarchy of the TPM has a password, so its identity cannot be proved'),
  key: () => wrongSecret('the auth value (tpm.keyAuth) is not the one that this key was made with'),
};

/** What TPM2_ActivateCredential answers to a credential for others, depending on what of it is first found not to fit. */
const notForUs: readonly (number | undefined)[] = [TPM_RC.INTEGRITY, TPM_RC.VALUE, TPM_RC.SIZE, TPM_RC.INSUFFICIENT];
const notForThisTpm = (error: TpmError) =>
  new AttestedError(
    'invalid_argument',
    "the credential was not made for this TPM's endorsement key and attestation key (or the file of the latter is damaged)",
    { cause: error },
  );

const full = () =>
  unavailable(
    'other programs fill all slots of the TPM; through /dev/tpmrm0 each has its own, and tpm2-abrmd frees what it left itself when started with --flush-all',
  );

const byCode: ReadonlyMap<number, () => AttestedError> = new Map([
  [OTHER_TPM, () => wrongSecret('the key was made in another TPM, or this TPM was cleared since')],
  [
    HELD_BY_ANOTHER,
    () => unavailable('another process holds the TPM, which has no resource manager (as /dev/tpmrm0 has) to share it'),
  ],
  [TPM_RC.INTEGRITY, () => new AttestedError('key_store_corrupt', 'the wrapped key is damaged; it was left as it is')],
  [
    TPM_RC.POLICY_FAIL,
    () =>
      new AttestedError(
        'key_store_locked',
        'the PCRs are not those that this key is bound to (tpm.pcrs): the machine was started in another state',
      ),
  ],
  [
    TPM_RC.LOCKOUT,
    () => unavailable('the TPM is locked out after wrong auth values: wait, or tpm2_dictionarylockout --clear-lockout'),
  ],
  [TPM_RC.OBJECT_MEMORY, full],
  [TPM_RC.OBJECT_HANDLES, full],
  [TPM_RC.SESSION_MEMORY, full],
  [TPM_RC.SESSION_HANDLES, full],
]);

/** The error to be thrown in the place of this one. @param doing completes `the TPM could not …` */
export function explain(error: unknown, doing: string, subject: Subject): AttestedError {
  if (error instanceof AttestedError) return error;
  if (!(error instanceof TpmError)) return unavailable(`the TPM could not ${doing}`, error);
  const { code, message } = error;
  const spoken = code < 0 ? code : tpmCode(code);
  if (spoken === TPM_RC.BAD_AUTH || spoken === TPM_RC.AUTH_FAIL) return authFailures[subject]();
  if (subject === 'endorsement' && notForUs.includes(spoken)) return notForThisTpm(error);
  const known = spoken === undefined ? undefined : byCode.get(spoken);
  return known?.() ?? unavailable(`the TPM could not ${doing}: ${message}`, error);
}
