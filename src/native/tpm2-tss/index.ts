/** The binding of the system's tpm2-tss, and what to install where it is missing. */
import { attestingCommands } from './attesting.ts';
import { openContext } from './context.ts';
import { objectCommands } from './objects.ts';
import { readingCommands } from './reading.ts';
import { sessionCommands } from './sessions.ts';
import type { Esys, OpenEsys } from './types.ts';

export { NO_RESPONSE, TpmError } from './error.ts';
export { installHint, libraryVersion } from './install.ts';
export type * from './types.ts';

/**
 * Opens a context on a TPM.
 *
 * @param tcti module and configuration, as the TCTI loader takes them: `device:/dev/tpmrm0`, `swtpm:path=…`. The loader runs
 *   code of that name (`cmd:` even a command line), so it must come from whoever runs the program.
 */
export const openEsys: OpenEsys = async (tcti) => {
  const context = await openContext(tcti);
  return withOwnArguments({
    ...objectCommands(context),
    ...attestingCommands(context),
    ...sessionCommands(context),
    ...readingCommands(context),
    close: context.close,
  });
};

/** A command waits for its turn; what its caller does with its arrays meanwhile must not change what is signed or sealed. */
function withOwnArguments(esys: Esys): Esys {
  const methods = Object.entries(esys) as [string, (...args: unknown[]) => Promise<unknown>][];
  return Object.fromEntries(
    methods.map(([name, method]) => [name, (...args: unknown[]) => method(...args.map((arg) => copyOf(arg)))]),
  ) as unknown as Esys;
}

/** Deeper than any argument goes. */
const DEPTH = 4;

function copyOf(value: unknown, depth = 0): unknown {
  if (typeof value !== 'object' || value === null || depth > DEPTH) return value;
  if (value instanceof Uint8Array) return new Uint8Array(value);
  if (ArrayBuffer.isView(value)) return value; // refused later, as it is no Uint8Array
  if (Array.isArray(value)) return value.map((element) => copyOf(element, depth + 1));
  return Object.fromEntries(Object.entries(value).map(([name, field]) => [name, copyOf(field, depth + 1)]));
}
