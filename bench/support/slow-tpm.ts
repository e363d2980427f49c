/**
 * A TPM that takes its time, for a software TPM that does not. Runs as a process of its own, so that nothing of the delay is
 * ours. argv: the socket of the software TPM, milliseconds a command. Sends the TCTI to its parent and lives as long as that.
 */
import { startRelay } from '../../test/support/swtpm-relay.ts';

const [socket = '', delay = ''] = process.argv.slice(2);
const relay = await startRelay({ socket }, () => new Promise((resolve) => setTimeout(resolve, Number(delay))));
process.send?.(relay.tcti);
process.on('disconnect', () => process.exit());
