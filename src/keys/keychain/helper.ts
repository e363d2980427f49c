/** The helper process: holds the connection to the keychain, answers until its parent is gone. */
import { type KeyringEntries, openKeyring } from '../../native/keyring/index.ts';
import type { Request, Response } from './protocol.ts';

let opening: Promise<KeyringEntries> | undefined;

async function answer([id, operation, args]: Request): Promise<Response> {
  try {
    opening ??= openKeyring();
    const run = (await opening)[operation] as (...args: readonly unknown[]) => Promise<unknown>;
    return { id, result: await run(...args) };
  } catch (error) {
    return { id, fault: messagesOf(error) };
  }
}

function messagesOf(error: unknown): string {
  const messages = [];
  for (let at = error; at instanceof Error && messages.length < 5; at = at.cause) messages.push(at.message);
  return messages.join('; ');
}

process.on('message', async (request: Request) => {
  const response = await answer(request);
  if (process.connected) process.send?.(response);
});
process.on('disconnect', () => process.exit());
