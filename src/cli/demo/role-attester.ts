/** The Client Attester's process. */
import { join } from 'node:path';
import { type Attester, createAttester, sqliteStore } from '../../attester/index.ts';
import { toNodeListener } from '../../integrations/node.ts';
import { generateSigner } from '../../keys/index.ts';
import { type AttesterRole, CLIENTS, type Ending } from './protocol.ts';
import { listen } from './serve.ts';

/** Seconds. The shortest there is, so that the demo need not wait long for a revocation to arrive. */
const STATUS_TTL = 2;

export async function attesterRole(): Promise<AttesterRole & Ending> {
  const http = await listen();
  let attester: Attester | undefined;
  const open = (): Attester => {
    if (attester === undefined) throw new Error('the attester is not configured yet');
    return attester;
  };
  return {
    listen: async () => http.origin,
    async configure({ directory }) {
      const client = { lifetime: 600, enrolment: { tokens: true } };
      attester = createAttester({
        issuer: http.origin,
        signer: generateSigner('ES256'),
        store: sqliteStore({ path: join(directory, 'attester', 'attester.sqlite') }),
        policy: { clients: Object.fromEntries(Object.values(CLIENTS).map((clientId) => [clientId, client])) },
        statusList: { ttl: STATUS_TTL },
      });
      http.answerWith(toNodeListener(attester.handler, { url: http.origin }));
    },
    createEnrolmentToken: (clientId) => open().createEnrolmentToken({ clientId, ttl: 60 }),
    revoke: (thumbprint) => open().revoke({ thumbprint }),
    end: async () => attester?.close(),
  };
}
