/** A process that makes one key after another, naming each that is done, until it is killed. argv: directory. */
import { writeSync } from 'node:fs';
import { openKeys } from '../../../src/keys/index.ts';

const keys = await openKeys('software', { directory: process.argv[2]!, machineSecret: Buffer.alloc(32, 7) });
for (let i = 0; ; i++) {
  const { thumbprint } = await keys.createKey({ label: `key ${i}` });
  writeSync(1, `${thumbprint}\n`);
}
