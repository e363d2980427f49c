/** Which TPM: the way to it as tpm2-tss names it (a TCTI string), found without loading anything. */
import { accessSync, constants, existsSync } from 'node:fs';
import { srkTemplate } from '../../tpm2/templates.ts';
import { unavailable } from '../files/faults.ts';
import type { TpmAddress } from './protocol.ts';

export interface Tcti {
  tcti: string;
  /** A resource manager stands before the TPM, so that processes do not see each other's objects. */
  managed: boolean;
}

/** What is looked at on this machine; an argument so that tests can have another one. */
export interface Surroundings {
  env: Record<string, string | undefined>;
  platform: NodeJS.Platform;
  exists: (path: string) => boolean;
  mayUse: (path: string) => boolean;
}

const RESOURCE_MANAGER = '/dev/tpmrm0';
const TABRMD_SERVICE = '/usr/share/dbus-1/system-services/com.intel.tss2.Tabrmd.service';
/** As tpm2-tools and the TSS's older programs have it. */
const VARIABLES = ['TPM2TOOLS_TCTI', 'TCTI'];
const MANAGED = /(^|[:-])(tabrmd|tbs)|tpmrm\d|^device$/;
const DEVICE = /^device:(\/[^,]+)$/;

const here: Surroundings = {
  env: process.env,
  platform: process.platform,
  exists: existsSync,
  mayUse(path) {
    try {
      accessSync(path, constants.R_OK | constants.W_OK);
      return true;
    } catch {
      return false;
    }
  },
};

/**
 * The option, else `TPM2TOOLS_TCTI`, else `TCTI`, else /dev/tpmrm0, else the resource manager daemon tabrmd; on Windows the
 * TPM Base Services. /dev/tpm0, which has room for one process only, is used where it is named and not otherwise.
 *
 * @throws AttestedError `key_store_unavailable`: there is no TPM, or we may not use it
 */
export function chooseTcti(option: string | undefined, surroundings: Surroundings = here): Tcti {
  const { env, platform, exists, mayUse } = surroundings;
  const named = namedTcti(option, env);
  if (named !== undefined) {
    const device = deviceFile(named);
    if (device !== undefined) assertUsable(device, surroundings);
    return { tcti: named, managed: MANAGED.test(named) };
  }
  if (platform === 'win32') return { tcti: 'tbs', managed: true }; // by the same path, but never tried
  const tabrmd = exists(TABRMD_SERVICE);
  if (exists(RESOURCE_MANAGER) && (mayUse(RESOURCE_MANAGER) || !tabrmd)) {
    assertUsable(RESOURCE_MANAGER, surroundings);
    return { tcti: `device:${RESOURCE_MANAGER}`, managed: true };
  }
  if (tabrmd) return { tcti: 'tabrmd', managed: true };
  throw unavailable(`no TPM: there is no ${RESOURCE_MANAGER}, and no TCTI is named by option or environment`);
}

/** What the option or the environment says. */
export function namedTcti(option: string | undefined, env: Surroundings['env'] = process.env): string | undefined {
  return option ?? VARIABLES.map((name) => env[name]).find((value) => value !== undefined && value !== '');
}

/** The file that a `device:` TCTI names. */
export function deviceFile(tcti: string): string | undefined {
  return DEVICE.exec(tcti)?.[1];
}

/** What a helper is told of its TPM. */
export function addressOf({ tcti, managed }: Tcti): TpmAddress {
  const [ecc, rsa] = [srkTemplate('ecc'), srkTemplate('rsa')];
  // at the end of the template stands `unique`: a point of two sized coordinates, or a sized modulus
  const srkPrefixes = [ecc.slice(0, -2 * (2 + 32)), rsa.slice(0, -(2 + 256))];
  return { tcti, managed, srkTemplate: ecc, srkPrefixes };
}

function assertUsable(device: string, { exists, mayUse }: Surroundings): void {
  if (!exists(device)) throw unavailable(`no TPM: there is no ${device}`);
  if (mayUse(device)) return;
  const remedy = device.includes('tpmrm')
    ? 'its group is usually tss: sudo usermod -aG tss "$USER", then log in again'
    : `it is for its owner only; use the resource manager ${RESOURCE_MANAGER} instead`;
  throw unavailable(`permission denied for ${device}; ${remedy}`);
}
