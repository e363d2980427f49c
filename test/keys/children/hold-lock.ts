/** A process that takes a store's lock, says so, and keeps it until it is killed. argv: the store's directory. */
import { withDirectoryLock } from '../../../src/keys/files/lock.ts';

await withDirectoryLock(process.argv[2]!, async () => {
  console.log('held');
  await new Promise((resolve) => setTimeout(resolve, 60_000));
});
