/**
 * The process that talks to the TPM, so that a TPM which hangs or a library which crashes takes nothing else along. It lives
 * as long as its parent keeps the channel open, answers requests in their order, and imports only what it needs.
 */
import { TpmError } from '../../../native/tpm2-tss/error.ts';
import { openEsys } from '../../../native/tpm2-tss/index.ts';
import { createLru } from '../../lru.ts';
import {
  HELPER_FAULT,
  type KeyReference,
  type Request,
  type Response,
  type TpmAddress,
  UNKNOWN_KEY,
} from '../protocol.ts';
import { createContext, type TpmContext } from './context.ts';
import { operations } from './operations.ts';

const MOST_KEYS = 4096;
/** For giving slots back when the parent is gone; a TPM that hangs must not keep us. Milliseconds. */
const FAREWELL = 2000;

const keys = createLru<KeyReference>(MOST_KEYS);
let tpm: TpmContext | undefined;

process.on('message', (message: TpmAddress | Request) => {
  if (Array.isArray(message)) void answer(message);
  else tpm = createContext(openEsys, message);
});

process.on('disconnect', () => {
  // not process.exit(): it would wait for a command that never returns
  setTimeout(() => process.kill(process.pid, 'SIGKILL'), FAREWELL);
  void tpm?.release().finally(() => process.exit());
});

async function answer([id, operation, patience, args, named]: Request): Promise<void> {
  let response: Response;
  try {
    if (tpm === undefined) throw new TypeError('no TPM was named');
    const held = named.map(keyOf);
    const perform = operations[operation] as (...all: unknown[]) => Promise<unknown>;
    response = [id, await tpm.run(patience, (context) => perform(context, args, held))];
  } catch (error) {
    const code = error instanceof TpmError ? error.code : HELPER_FAULT;
    response = [id, undefined, code, error instanceof Error ? error.message : 'unknown'];
  }
  process.send?.(response, undefined, undefined, () => undefined); // a parent that is gone hears nothing
}

function keyOf(named: string | KeyReference): KeyReference {
  if (typeof named !== 'string') {
    keys.set(named.ref, named);
    return named;
  }
  const key = keys.get(named);
  if (key === undefined) throw new TpmError(UNKNOWN_KEY, 'the key was forgotten');
  return key;
}
