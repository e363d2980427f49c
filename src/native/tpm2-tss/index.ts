/** The binding of the system's tpm2-tss, and what to install where it is missing. */
import { attestingCommands } from './attesting.ts';
import { openContext } from './context.ts';
import { objectCommands } from './objects.ts';
import { readingCommands } from './reading.ts';
import { sessionCommands } from './sessions.ts';
import type { OpenEsys } from './types.ts';

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
  return {
    ...objectCommands(context),
    ...attestingCommands(context),
    ...sessionCommands(context),
    ...readingCommands(context),
    close: context.close,
  };
};
