/** Opens a TCTI and says what came of it. Told to, it has the TPM refuse a command too. */
import { openEsys } from '../../../src/native/tpm2-tss/index.ts';

const [tcti = ''] = process.argv.slice(2);
try {
  const esys = await openEsys(tcti);
  const refused = await esys.flush(0x101).then(
    () => undefined,
    ({ code }) => code,
  );
  const unknown = await esys.fromTpmHandle(0x81000009).then(
    () => undefined,
    ({ code }) => code,
  );
  await esys.close();
  console.log(JSON.stringify({ opened: true, refused, unknown }));
} catch (error) {
  const { name, code, message } = error as { name: string; code: number; message: string };
  console.log(JSON.stringify({ name, code, message }));
}
