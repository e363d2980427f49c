/**
 * An agent with keys in a TPM. argv: directory, TCTI, what to do. Prints one JSON line when it is ready, and one at the end.
 * `sign N`: N signatures, then closes. `leave`: ends without closing. `stay`: lives until it is killed.
 */
import { openKeys } from '../../../src/keys/index.ts';

const [directory, tcti, job, count] = process.argv.slice(2);
const keys = await openKeys('tpm', { directory: directory!, tpm: { tcti: tcti! } });
const signer = await keys.createKey({ label: 'a key' });
const data = Buffer.from('the bytes to be signed');
const signatures = [Buffer.from(await signer.sign(data)).toString('base64url')];
const say = () => console.log(JSON.stringify({ alg: signer.alg, publicJwk: signer.publicJwk, signatures }));
say();
if (job === 'sign') {
  for (let i = 0; i < Number(count); i++) signatures.push(Buffer.from(await signer.sign(data)).toString('base64url'));
  say();
  await keys.close();
}
if (job === 'stay') setInterval(() => undefined, 1000);
