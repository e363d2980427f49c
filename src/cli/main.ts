#!/usr/bin/env node
/** The command's entry. It imports nothing before it knows that this Node can run the rest. */
const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
if (major < 22 || (major === 22 && minor < 13)) {
  process.stderr.write(`attested needs Node 22.13 or newer; this is Node ${process.versions.node}.\n`);
  process.exitCode = 1;
} else {
  const { ROLE_ARGUMENT } = await import('./demo/protocol.ts');
  const [first, second = ''] = process.argv.slice(2);
  if (first === ROLE_ARGUMENT) {
    const { playRole } = await import('./demo/role.ts');
    await playRole(second);
  } else {
    const { run } = await import('./run.ts');
    const { processIo } = await import('./io.ts');
    // a reader that has seen enough (`| head`) is no failure
    process.stdout.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EPIPE') throw error;
    });
    process.exitCode = await run(process.argv.slice(2), processIo());
  }
}

export {};
