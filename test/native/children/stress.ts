/** Run with --expose-gc: signatures by the thousand while the garbage collector takes whatever is not held. */
import { createHash } from 'node:crypto';
import { openEsys } from '../../../src/native/tpm2-tss/index.ts';
import { isSigned, newKey } from '../support.ts';

const [tcti = '', wanted = ''] = process.argv.slice(2);
const esys = await openEsys(tcti);
const { handle, object } = await newKey(esys);

let collecting = true;
let rounds = 0;
const garbage: unknown[] = [];
const collect = () => {
  // Filled with ones, so that memory taken too early does not keep the right content by luck.
  garbage.push(new Uint8Array(8192).fill(0xff), new Uint8Array(32).fill(0xff), new Uint8Array(90).fill(0xff));
  if (garbage.length > 300) garbage.length = 0;
  const { gc } = globalThis as unknown as { gc(options?: object): void };
  gc(rounds % 50 === 0 ? undefined : { type: 'minor' });
  rounds += 1;
  if (collecting) setImmediate(collect);
};
setImmediate(collect);

const results = await Promise.all(
  Array.from({ length: Number(wanted) }, async (_, at) => {
    const digest = new Uint8Array(createHash('sha256').update(String(at)).digest());
    return isSigned(String(at), await esys.sign(handle, digest), object.public);
  }),
);
collecting = false;
await esys.close();
console.log(JSON.stringify({ right: results.filter(Boolean).length, rounds }));
