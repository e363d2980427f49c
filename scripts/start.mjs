// npm start: prepare, build when the sources changed, run the demo. Arguments go to `attested demo`; its exit code is ours.
// With `--tpm swtpm` the software TPM is installed first, where it is missing and that is allowed.
import { installParts, packagesFor, softwareTpm } from './parts.mjs';
import { build, prepare, runNode, say } from './prepare.mjs';

const args = process.argv.slice(2);
if (/(^| )--tpm[ =]swtpm( |$)/.test(args.join(' ')) && installParts([softwareTpm]).length > 0) {
  // what cannot be found here may be there all the same, on another system: the demo will see
  say(
    `no right to install what a software TPM needs; on Debian: sudo apt-get install ${packagesFor(softwareTpm).join(' ')}`,
  );
}
prepare();
build();
process.exitCode = await runNode(['dist/cli/main.js', 'demo', ...args]);
