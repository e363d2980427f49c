/** The traps of a TPM behind tpm2-tss behind Node, each seen in a trial, and what keeps us out of it. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';

const root = join(import.meta.dirname, '../..');
const read = (path: string) => readFileSync(join(root, path), 'utf8');

const BINDING = 'test/native/tpm2-tss-traps.test.ts';
const FAULTS = 'test/keys/tpm-faults.test.ts';
const IN_FLIGHT = 'test/keys/tpm-faults-in-flight.test.ts';

/** The trap, why it cannot catch us, and the tests of that: file, then titles as they stand there. */
const traps: [trap: string, why: string, ...tests: [file: string, ...titles: string[]][]][] = [
  [
    'the garbage collector takes the arguments of an asynchronous call',
    'only memory of the context is lent to C, and held until the callback',
    [BINDING, '2000 signatures at once while garbage is collected: every one is right'],
  ],
  [
    'anything is taken for a pointer',
    'each argument is held against its prototype, and a pointer has to be lent memory',
    [BINDING, '%s is refused, and the next command works', 'a TCTI that is %s is refused'],
  ],
  [
    'a context is not thread safe',
    'one queue for each context, one helper for each TPM',
    [BINDING, 'hundreds of commands of all kinds at once: each has its own answer, in the order of the calls'],
  ],
  [
    'a TPM that hangs hangs the call, and process.exit() with it',
    'the call is in a helper process, which is killed at the deadline or with its parent',
    [FAULTS, 'a TPM that hangs is given up at the deadline, for all who wait, and is used again when it answers'],
    [
      IN_FLIGHT,
      'an agent that calls process.exit() does not wait for the TPM',
      'an agent that is killed leaves no helper',
    ],
  ],
  [
    'a context stays dead after the TPM died',
    'it says so, and the helper opens another one',
    [BINDING, 'every command says so, the context closes at once, and another one works when the TPM is back'],
    [FAULTS, 'a TPM that is gone says so at once, and its keys are back with it'],
    ['test/keys/tpm-tcti.test.ts', 'the resource manager went away during the command'],
  ],
  [
    'two processes without a resource manager disturb each other',
    'ours take turns; the kernel’s resource manager is what is taken by default',
    [FAULTS, 'two agents on one TPM, both busy, both get on'],
    [IN_FLIGHT, 'three processes that make the same label at once have one key'],
  ],
  [
    'three objects or sessions fill a TPM',
    'what was used least recently makes room, what is idle goes, what dead processes left is flushed',
    [BINDING, 'objects and sessions beyond the TPM’s slots are refused with their codes; a flush makes room'],
    ['test/keys/tpm.test.ts', 'sixty labels on three slots, all at once'],
    [FAULTS, 'slots that another program left full are waited for, then taken: %s'],
    [IN_FLIGHT, 'helpers that die with sessions open leave no full TPM behind'],
  ],
  [
    'power cuts and wrong auth values lock the TPM',
    'our keys are noDA: nothing about them counts, and lock-out does not concern them',
    [BINDING, 'wrong auth values of our keys do not count towards the lock-out'],
    [FAULTS, 'ten power cuts in a row, each after all kinds of use, lock nothing out'],
    [FAULTS, 'lock-out does not concern our keys, and is told where it does'],
  ],
  [
    'tpm2-tss writes to the standard error',
    'TSS2_LOG is set before it loads, and the helper has no standard error',
    [BINDING, 'nothing is written to the standard error when the TPM refuses'],
  ],
  [
    'a missing library is a bare Error',
    'it becomes a TpmError that names the command to install it',
    [BINDING, 'without %s: what to install', 'without the TCTI module: what to install'],
    [BINDING, 'without koffi: a TpmError, and only when a TPM is opened'],
  ],
  [
    'TCP connections by the thousand stay in TIME_WAIT, long socket paths are refused, swtpm keeps objects',
    'the test TPM is on a unix socket in a directory with a short name; what we load we flush',
    ['test/support/swtpm.ts', 'type=unixio', "mkdtempSync(join(tmpdir(), 'tpm-'))"],
    ['test/keys/tpm.test.ts', 'nothing stays in the TPM, and nothing persistent is made'],
    [FAULTS, 'an agent that has nothing more to do ends, though it closed nothing'],
  ],
  [
    'r and s come without their leading zeros',
    'they are padded to the curve',
    ['test/tpm2/structures.test.ts', 'short numbers of an ECDSA signature are padded to the curve'],
  ],
];

describe('traps', () => {
  test.each(traps)('%s: %s', (_trap, _why, ...tests) => {
    expect(tests.length).toBeGreaterThan(0);
    const missing = tests.flatMap(([file, ...titles]) => titles.filter((title) => !read(file).includes(title)));
    expect(missing).toEqual([]);
  });

  test('there are twelve', () => expect(traps).toHaveLength(12));

  test('koffi, young and often mended, is pinned', () => {
    const { dependencies } = JSON.parse(read('package.json')) as { dependencies: Record<string, string> };
    expect(dependencies.koffi).toMatch(/^\d+\.\d+\.\d+$/);
  });
});
