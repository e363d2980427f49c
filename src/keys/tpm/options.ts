/** What `openKeys` can be told about the TPM. */
import { AttestedError } from '../../errors.ts';
import type { PcrSelection } from '../../tpm2/device.ts';
import { readNamedPcrs } from '../../tpm2/named-pcrs.ts';

export interface TpmOptions {
  /**
   * The way to the TPM as tpm2-tss names it, such as `device:/dev/tpmrm0` or `swtpm:path=/run/tpm/socket`. Default: the
   * variables `TPM2TOOLS_TCTI`, then `TCTI`, then /dev/tpmrm0, then the daemon tabrmd; on Windows the TPM Base Services
   * (untested). It names code to be loaded, so it must not come from outside.
   */
  tcti?: string;
  /**
   * Milliseconds that the TPM may take for a signature, at least 100. Default 20000. Making a key may take six times as long.
   * Where a helper process has to be started first, as after a TPM that hung, that counts too.
   * Past it the request fails with `key_store_unavailable`, and so do those that wait behind it.
   */
  deadline?: number;
  /**
   * A secret, at least 16 bytes, without which the new keys cannot be used: programs that can reach the TPM and the directory
   * but not this secret are kept out. `'keychain'` makes one and keeps it in the user's keychain. Cost: whoever loses it loses
   * the keys, and a locked keychain locks them. It crosses the bus to the TPM in clear, unless `saltedSessions` are on.
   */
  keyAuth?: Uint8Array | 'keychain';
  /**
   * Binds new keys to the values that these PCRs have now, as `{ sha256: [7] }`: they work only while the machine was started
   * in this state. Cost: a firmware or boot loader update that changes the values ends the keys, and each signature takes one
   * more command of the TPM. Secrets beside the keys (`provider.secrets`) are not bound.
   */
  pcrs?: PcrSelection;
  /**
   * Uses keys in salted sessions with encrypted parameters, so that who listens on the bus between processor and TPM learns
   * neither auth values nor secrets. Cost: one asymmetric operation of the TPM when a session starts, one of its few session
   * slots, and some HMACs each time.
   */
  saltedSessions?: boolean;
}

const MIN_DEADLINE = 100;
const MIN_KEY_AUTH = 16;
const names = ['tcti', 'deadline', 'keyAuth', 'pcrs', 'saltedSessions'];

/** @throws AttestedError `invalid_argument`, also for an option that there is not: a misspelt protection would be none */
export function assertTpmOptions(options: TpmOptions): void {
  const refuse = (why: string): never => {
    throw new AttestedError('invalid_argument', why);
  };
  if (typeof options !== 'object' || options === null) refuse('tpm must be an object of options');
  const { tcti, deadline, keyAuth, pcrs, saltedSessions } = options;
  if (!Object.keys(options).every((name) => names.includes(name)))
    refuse(`tpm has the options ${names.join(', ')} only`);
  if (tcti !== undefined && (typeof tcti !== 'string' || tcti === '' || tcti.length > 1024 || tcti.includes('\0'))) {
    refuse('tpm.tcti must be a TCTI, such as device:/dev/tpmrm0');
  }
  if (deadline !== undefined && !(Number.isInteger(deadline) && deadline >= MIN_DEADLINE && deadline <= 3_600_000)) {
    refuse(`tpm.deadline must be a whole number of milliseconds, ${MIN_DEADLINE} to 3600000`);
  }
  const isSecret = keyAuth instanceof Uint8Array && keyAuth.length >= MIN_KEY_AUTH;
  if (keyAuth !== undefined && keyAuth !== 'keychain' && !isSecret) {
    refuse(`tpm.keyAuth must be at least ${MIN_KEY_AUTH} bytes, or 'keychain'`);
  }
  if (pcrs !== undefined && readNamedPcrs(pcrs) === undefined) {
    refuse('tpm.pcrs must select PCRs 0 to 23 by bank, such as { sha256: [7] }');
  }
  if (saltedSessions !== undefined && typeof saltedSessions !== 'boolean')
    refuse('tpm.saltedSessions must be a boolean');
}
