/** A process that opens the keychain at a given instant and makes keys; prints their thumbprints. argv: directory, instant (ms), labels. */
import { openKeys } from '../../../src/keys/index.ts';

const [directory, instant, ...labels] = process.argv.slice(2);
await new Promise((resolve) => setTimeout(resolve, Number(instant) - Date.now()));
const keys = await openKeys('keychain', { directory: directory! });
const signers = await Promise.all(labels.map((label) => keys.createKey({ label })));
console.log(JSON.stringify(signers.map(({ thumbprint }) => thumbprint)));
// not closed: a process that has nothing else to do must end all the same
