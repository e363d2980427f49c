/** An agent that may not write a byte more to any file: uses its key, and tries to make others. argv: directory, TCTI. */
import { openKeys } from '../../../src/keys/index.ts';

process.on('SIGXFSZ', () => undefined); // the write is to fail, not to end us

const [directory, tcti] = process.argv.slice(2);
const keys = await openKeys('tpm', { directory: directory!, tpm: { tcti: tcti! } });
const told = async (job: Promise<unknown>) =>
  job.then(
    () => 'done',
    (error: { code: string }) => error.code,
  );
const signer = await keys.getKey('a key');
console.log(
  JSON.stringify({
    signing: await told(signer!.sign(Buffer.from('data'))),
    making: await told(keys.createKey({ label: 'another' })),
    certifying: await told(keys.tpm!.certify('a key', new Uint8Array(8))),
    keeping: await told(keys.secrets.set('a secret', new Uint8Array(8))),
    listed: (await keys.listKeys()).map(({ label }) => label),
  }),
);
await keys.close();
