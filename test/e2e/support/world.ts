/** Everybody on loopback: an attester, an authorization server, and agents. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { type Agent, type AgentOptions, type AgentWarning, createAgent } from '../../../src/agent/index.ts';
import { type Attester, createAttester } from '../../../src/attester/index.ts';
import { toNodeListener } from '../../../src/integrations/node.ts';
import type { AttestClientAuthOptions } from '../../../src/integrations/oidc-provider.ts';
import { openKeys } from '../../../src/keys/index.ts';
import { newSigner } from '../../support/tokens.ts';
import { type AuthorizationServer, CLIENTS, type Method, startAuthorizationServer } from './authorization-server.ts';
import { listenForTest, recordTraffic, type Traffic } from './http.ts';

export interface TestInstance {
  agent: Agent;
  traffic: Traffic;
  warnings: AgentWarning[];
  /** Where its keys and state are. */
  directory: string;
}

export interface LoopbackWorld {
  attester: Attester;
  as: AuthorizationServer;
  /** A new instance of a method's client; with `directory`, the one that lives there. */
  instance(method: Method, options?: Partial<AgentOptions> & { directory?: string }): Promise<TestInstance>;
}

export interface WorldOptions {
  as?: Partial<AttestClientAuthOptions>;
  /** The clock of attester, agents and our part of the authorization server. Milliseconds since the epoch. */
  now?: () => number;
}

export async function startWorld({ as: asOptions, now = Date.now }: WorldOptions = {}): Promise<LoopbackWorld> {
  const http = await listenForTest();
  const enrolment = { tokens: true };
  const attester = createAttester({
    issuer: http.origin,
    signer: newSigner('ES256', 'attester-1'),
    policy: { clients: Object.fromEntries(Object.values(CLIENTS).map((client) => [client, { enrolment }])) },
    now,
  });
  http.answerWith(toNodeListener(attester.handler, { url: http.origin }));
  const as = await startAuthorizationServer(http.origin, { now, ...asOptions });

  return {
    attester,
    as,
    async instance(method, { directory, ...rest } = {}) {
      const clientId = CLIENTS[method];
      const place = directory ?? (await mkdtemp(join(tmpdir(), 'attested-e2e-')));
      const keys = await openKeys('software', { directory: place, machineSecret: new Uint8Array(32).fill(7) });
      const enrolmentToken = await attester.createEnrolmentToken({ clientId });
      const traffic = recordTraffic();
      const warnings: AgentWarning[] = [];
      const agent = await createAgent({
        clientId,
        keys,
        attester: http.origin,
        enrolmentToken: directory === undefined ? enrolmentToken : undefined,
        method,
        fetch: traffic.fetch,
        onWarning: (warning) => warnings.push(warning),
        now,
        ...rest,
      });
      onTestFinished(async () => {
        await agent.close();
        await keys.close();
        if (directory === undefined) await rm(place, { recursive: true, force: true });
      });
      return { agent, traffic, warnings, directory: place };
    },
  };
}
