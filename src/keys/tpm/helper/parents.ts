/**
 * The storage parent that wraps our keys: the standard one at 0x81000001 where there is one, else a transient primary made
 * from the standard template, which is the same key each time as long as the owner's seed is. Nothing is ever made persistent.
 */
import { createHash } from 'node:crypto';
import { TPM_CAP } from '../../../native/tpm2-tss/capabilities.ts';
import { TpmError } from '../../../native/tpm2-tss/error.ts';
import type { Esys, EsysHandle } from '../../../native/tpm2-tss/types.ts';
import { TPM_RC, tpmCode } from '../codes.ts';
import { OTHER_TPM, type TpmAddress } from '../protocol.ts';
import type { Slots } from './slots.ts';

const SRK_HANDLE = 0x81000001;
const TRANSIENT = 'parent';
const SHA256 = [0x00, 0x0b];

export interface Parents {
  /** What new keys are made under. */
  current(): Promise<{ name: Uint8Array; persistent: boolean }>;
  /** Runs a command with the parent of this Name; default: the current one. @throws TpmError `OTHER_TPM` */
  use<T>(name: Uint8Array | undefined, command: (parent: EsysHandle, name: Uint8Array) => Promise<T>): Promise<T>;
}

interface Parent {
  name: Uint8Array;
  persistent: boolean;
  handle: () => Promise<EsysHandle>;
}

export function createParents(esys: Esys, slots: Slots, address: TpmAddress): Parents {
  let persistent: Promise<Parent | undefined> | undefined;
  let transientName: Uint8Array | undefined;

  async function findPersistent(): Promise<Parent | undefined> {
    const handles = await esys.getCapability(TPM_CAP.HANDLES, SRK_HANDLE, 1);
    if (!handles.some(({ value }) => value === SRK_HANDLE)) return undefined;
    const handle = await esys.fromTpmHandle(SRK_HANDLE);
    const area = (await esys.readPublic(handle)).public;
    // only an ordinary one: another's attributes may cost lock-out attempts, or allow duplication
    if (!address.srkPrefixes.some((prefix) => startsWith(area, prefix))) return undefined;
    return { name: nameOf(area), persistent: true, handle: async () => handle };
  }

  async function transientHandle(): Promise<EsysHandle> {
    return slots.hold(TRANSIENT, async () => {
      const primary = await esys.createPrimary('owner', address.srkTemplate);
      transientName = nameOf(primary.public);
      return primary.handle;
    });
  }

  async function transientParent(): Promise<Parent> {
    if (transientName === undefined) await transientHandle();
    return { name: transientName as unknown as Uint8Array, persistent: false, handle: transientHandle };
  }

  async function find(name: Uint8Array | undefined): Promise<Parent> {
    persistent ??= findPersistent();
    const standard = await persistent;
    if (standard !== undefined && (name === undefined || equal(standard.name, name))) return standard;
    const other = await transientParent();
    if (name === undefined || equal(other.name, name)) return other;
    throw new TpmError(OTHER_TPM, 'no parent of this name');
  }

  return {
    async current() {
      const { name, persistent } = await find(undefined);
      return { name, persistent };
    },

    async use(name, command) {
      const parent = await find(name);
      try {
        return await command(await parent.handle(), parent.name);
      } catch (error) {
        if (!parent.persistent || !(error instanceof TpmError) || !isAuthFailure(error.code)) throw error;
        persistent = Promise.resolve(undefined); // somebody gave it a password: it is not for us
        const other = await transientParent();
        if (name !== undefined && !equal(other.name, name)) throw error;
        return command(await other.handle(), other.name);
      }
    },
  };
}

function isAuthFailure(code: number): boolean {
  const spoken = tpmCode(code);
  return spoken === TPM_RC.BAD_AUTH || spoken === TPM_RC.AUTH_FAIL;
}

function nameOf(area: Uint8Array): Uint8Array {
  return Uint8Array.from([...SHA256, ...createHash('sha256').update(area).digest()]);
}

function startsWith(bytes: Uint8Array, prefix: Uint8Array): boolean {
  return bytes.length > prefix.length && prefix.every((byte, i) => bytes[i] === byte);
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => b[i] === byte);
}
