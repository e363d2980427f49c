/** Attacks with another machine: a copy of the agent's directory, and keys that are not where they are said to be. */
import { cp } from 'node:fs/promises';
import { join } from 'node:path';
import type { Act, Result } from './act.ts';
import type { Remote } from './processes.ts';
import { CLIENTS, type KeyPlace, type OtherMachineRole } from './protocol.ts';
import { provesTpm, type Scene } from './scene.ts';

const ADVICE =
  'A key was used that should not be there, or believed to be where it is not: please report this as a security bug.';

export const machineAttacks: readonly Act[] = [
  {
    id: 'copied-directory',
    title: "A copy of the agent's directory on another machine",
    expected: 'no usable key',
    advice: ADVICE,
    async run(scene) {
      const { kind } = scene.fact('place');
      const machine = await otherMachine(scene);
      const copy = join(scene.directory, 'copy');
      await cp(join(scene.directory, 'agent'), copy, { recursive: true });
      const found = await errorOf(machine.useCopy(copy, kind));
      if (typeof found === 'number') {
        // a keychain's entries are not in the directory: on another machine there are just none
        const nothing = kind === 'keychain' && found === 0;
        return {
          ok: nothing,
          got: nothing ? 'no usable key' : `${found} keys sign`,
          details: ['its keychain has no such keys'],
        };
      }
      const ok = expectedOfCopy(scene, kind).includes(found.code ?? '');
      return { ok, got: ok ? 'no usable key' : String(found.code), details: [`${found.message} (${found.code})`] };
    },
  },
  {
    id: 'software-for-hardware',
    title: 'Enrolment with keys in files, as a client whose keys have to be in a TPM',
    expected: 'attester_refused',
    advice: ADVICE,
    applies: provesTpm,
    run: (scene) => enrolFalsely(scene, 'software', 'access_denied'),
  },
  {
    id: 'unknown-maker',
    title: 'Enrolment with a TPM that the attacker made himself',
    expected: 'attester_refused',
    advice: ADVICE,
    applies: (scene) => scene.options.softwareTpm,
    run: (scene) => enrolFalsely(scene, 'tpm', 'TPM attestation 2'),
  },
];

/** By what the key backend says of a copy. */
function expectedOfCopy(scene: Scene, kind: KeyPlace['kind']): readonly string[] {
  if (kind === 'keychain') return ['key_store_corrupt'];
  // to a machine without a TPM the directory says that its keys are in one
  if (kind === 'tpm' && !scene.options.softwareTpm) return ['key_store_unavailable'];
  return ['key_store_wrong_secret'];
}

async function otherMachine(scene: Scene): Promise<Remote<OtherMachineRole>> {
  const known = scene.known('otherMachine');
  if (known !== undefined) return known;
  const tpm = scene.options.softwareTpm ? await scene.tpms.start('stranger') : undefined;
  const machine = scene.processes.start('other-machine', 'other machine');
  await machine.configure(scene.fact('world'), tpm === undefined ? {} : { tcti: tpm.tcti });
  scene.learn('otherMachine', machine);
  return machine;
}

/** With a good enrolment token: that alone must not do. */
async function enrolFalsely(scene: Scene, kind: 'tpm' | 'software', because: string): Promise<Result> {
  const { attester } = scene.fact('cast');
  const machine = await otherMachine(scene);
  await attester.takeRefusals();
  const token = await attester.createEnrolmentToken(CLIENTS.dpop_combined);
  const got = await errorOf(machine.enrol(kind, token));
  if (typeof got === 'string') return { ok: false, got: `an attestation that says ${got}` };
  const refusals = await attester.takeRefusals();
  const reason = refusals.find(({ code, rule }) => rule === because || code === because);
  const refused = got.code === 'attester_refused';
  return {
    ok: refused && reason !== undefined,
    got: refused && reason === undefined ? 'attester_refused, for another reason' : String(got.code),
    details: refusals.map(
      ({ message, code, rule }) => `its log says: ${message} (${[code, rule].filter(Boolean).join(', ')})`,
    ),
  };
}

async function errorOf<T>(promise: Promise<T>): Promise<T | (Error & { code?: string })> {
  try {
    return await promise;
  } catch (error) {
    return error as Error & { code?: string };
  }
}
