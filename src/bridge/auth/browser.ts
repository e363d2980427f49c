/** Opens a page in the person's browser. */
import { spawn } from 'node:child_process';

/** By operating system: the program and what goes before the address. None of them is a shell. */
const OPENERS: Readonly<Partial<Record<NodeJS.Platform, readonly [string, ...string[]]>>> = {
  darwin: ['open'],
  win32: ['rundll32', 'url.dll,FileProtocolHandler'],
};

/** @param failed is called when there is no such program, or it says that it could not do it */
export function openInBrowser(page: URL, failed: () => void): void {
  const [command, ...before] = OPENERS[process.platform] ?? ['xdg-open'];
  // standard output is for the protocol: nothing of the program's may get there
  const child = spawn(command, [...before, page.href], { stdio: 'ignore', detached: true });
  child.once('error', failed);
  child.once('exit', (code) => {
    if (code !== 0) failed();
  });
  child.unref();
}
