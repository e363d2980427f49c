/** How examples/stdio-server.ts, in a process of its own, learns whom to trust: as a server learns anything, when it starts. */
import type { JsonWebKey } from 'attested';

export const jwksOfAttester = JSON.parse(process.env.ATTESTER_KEYS ?? '[]') as JsonWebKey[];
