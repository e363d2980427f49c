// npm start: prepare, build when the sources changed, run the demo. Arguments go to `attested demo`; its exit code is ours.
import { build, prepare, runNode } from './prepare.mjs';

prepare();
build();
process.exitCode = await runNode(['dist/cli/main.js', 'demo', ...process.argv.slice(2)]);
