/** The Client Attester's process. */
import { join } from 'node:path';
import { type Attester, type AttesterStore, createAttester, sqliteStore } from '../../attester/index.ts';
import { toNodeListener } from '../../integrations/node.ts';
import { generateSigner } from '../../keys/index.ts';
import { type AttesterRole, CLIENTS, type Ending, type LoggedRefusal, type TpmBelief } from './protocol.ts';
import { listen } from './serve.ts';

/** Seconds. The shortest there is, so that the demo need not wait long for a revocation to arrive. */
const STATUS_TTL = 2;

export async function attesterRole(): Promise<AttesterRole & Ending> {
  const http = await listen();
  const signer = generateSigner('ES256');
  let refusals: LoggedRefusal[] = [];
  let store: AttesterStore | undefined;
  let attester: Attester | undefined;
  const open = (): Attester => {
    if (attester === undefined) throw new Error('the attester is not configured yet');
    return attester;
  };

  /** The same attester, with other trust: what is in the store stays. */
  function start(kept: AttesterStore, tpm: TpmBelief | undefined): void {
    const client = { lifetime: 600, enrolment: { tokens: true } };
    attester = createAttester({
      issuer: http.origin,
      signer,
      store: kept,
      policy: {
        clients: {
          [CLIENTS.dpop_combined]: tpm === undefined ? client : { ...client, evidence: ['tpm'] },
          [CLIENTS.attestation_pop_jwt]: client,
        },
      },
      ...(tpm && { tpm }),
      statusList: { ttl: STATUS_TTL },
      log: (event) => {
        if (event.type === 'refused') refusals.push({ code: event.code, rule: event.rule, message: event.message });
      },
    });
    http.answerWith(toNodeListener(attester.handler, { url: http.origin }));
  }

  return {
    listen: async () => http.origin,
    async configure({ directory }) {
      store = sqliteStore({ path: join(directory, 'attester', 'attester.sqlite') });
      start(store, undefined);
    },
    async believe(tpm) {
      if (store === undefined) throw new Error('the attester is not configured yet');
      start(store, tpm);
    },
    createEnrolmentToken: (clientId) => open().createEnrolmentToken({ clientId, ttl: 60 }),
    revoke: (thumbprint) => open().revoke({ thumbprint }),
    countInstances: async () => (await open().instances()).length,
    async takeRefusals() {
      const taken = refusals;
      refusals = [];
      return taken;
    },
    end: async () => attester?.close(),
  };
}
