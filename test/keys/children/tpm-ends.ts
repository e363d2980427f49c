/**
 * An agent that ends, or is ended, while signatures wait for the TPM. argv: directory, TCTI, how. Prints a line when its key
 * is there, begins to sign when it reads one, and prints a line for each signature's end. `exit`: calls process.exit() soon
 * after. `natural`: has nothing else to do. `stay`: lives until it is killed.
 */
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { openKeys } from '../../../src/keys/index.ts';

const [directory, tcti, how] = process.argv.slice(2);
const keys = await openKeys('tpm', { directory: directory!, tpm: { tcti: tcti!, deadline: 2000 } });
const signer = await keys.createKey({ label: 'a key' });
console.log('ready');
await once(process.stdin, 'data');
process.stdin.destroy();
for (let i = 0; i < 5; i++) {
  signer.sign(Buffer.from('data')).then(
    () => console.log('signed'),
    (error: { code: string }) => console.log(error.code),
  );
}
console.log('signing');
if (how === 'exit') {
  await sleep(200);
  process.exit(0);
}
if (how === 'stay') setInterval(() => undefined, 1000);
