/** A process of its own that shows the shared key to one server, when told to: `node one-showing.ts DIRECTORY SERVER`. */
import { once } from 'node:events';
import { createAgent } from '../../src/agent/index.ts';
import { selfAttester } from '../../src/attester/index.ts';
import { AttestedError } from '../../src/errors.ts';
import { openKeys } from '../../src/keys/index.ts';
import { newSigner } from '../support/tokens.ts';

const [directory = '', server = ''] = process.argv.slice(2);
const clientId = 'shared-agent';
const keys = await openKeys('software', { directory, machineSecret: new Uint8Array(32).fill(7) });
const attester = selfAttester({ clientId, signer: newSigner() });
const agent = await createAgent({ clientId, keys, attester, tracking: 'refuse', onWarning: () => undefined });
const presenter = agent.presenter(server);
process.stdout.write('ready\n');
await once(process.stdin, 'data');
try {
  await presenter.present();
  process.stdout.write('shown\n');
} catch (error) {
  process.stdout.write(`${error instanceof AttestedError ? `${error.code} ${error.message}` : error}\n`);
}
await agent.close();
await keys.close();
process.exit(0);
