/** A process that opens a store at a given instant and makes keys; prints their thumbprints. argv: directory, instant (ms), labels. */
import { openKeys } from '../../../src/keys/index.ts';

const [directory, instant, ...labels] = process.argv.slice(2);
await new Promise((resolve) => setTimeout(resolve, Number(instant) - Date.now()));
const keys = await openKeys('software', { directory: directory!, machineSecret: Buffer.alloc(32, 7) });
const signers = await Promise.all(labels.map((label) => keys.createKey({ label })));
console.log(JSON.stringify(signers.map(({ thumbprint }) => thumbprint)));
await keys.close();
