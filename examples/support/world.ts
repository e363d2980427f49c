/** What stands around an example: an attester and an authorization server on this machine, for as long as it runs. */
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createAttester } from 'attested/attester';
import { toNodeListener } from 'attested/integrations/node';
import { attestationMiddleware, attestClientAuth, clientInstanceClaim } from 'attested/integrations/oidc-provider';
import { generateSigner, openKeys } from 'attested/keys';
import { remoteJwks } from 'attested/verifier';
import { exportJWK, generateKeyPair } from 'jose';
import Provider, { type Configuration } from 'oidc-provider';

export interface World {
  attester: string;
  issuer: string;
  /** Lets one instance of the client enrol, once. */
  enrolmentToken: string;
  /** For a further instance. */
  createEnrolmentToken(): Promise<string>;
  /** URL of the MCP server that the example makes or uses. */
  resource: string;
  /** The port in it, which is free. */
  port: number;
  /** A directory that is gone when the example ends. */
  directory: string;
  close(): void;
}

/** @param clientId the one client that there is */
export async function startWorld(clientId: string): Promise<World> {
  const home = mkdtempSync(join(tmpdir(), 'attested-example-'));
  await keepKeysIn(home);
  const [attesterAt, asAt, free] = await Promise.all([place(), place(), place()]);
  free.close();
  const attester = createAttester({
    issuer: attesterAt.origin,
    signer: generateSigner('ES256'),
    policy: { clients: { [clientId]: { enrolment: { tokens: true } } } },
  });
  attesterAt.answerWith(toNodeListener(attester.handler, { url: attesterAt.origin }));
  asAt.answerWith(await authorizationServer(asAt.origin, attesterAt.origin, clientId));
  return {
    attester: attesterAt.origin,
    issuer: asAt.origin,
    enrolmentToken: await attester.createEnrolmentToken({ clientId }),
    createEnrolmentToken: () => attester.createEnrolmentToken({ clientId }),
    resource: `${free.origin}/mcp`,
    port: Number(new URL(free.origin).port),
    directory: home,
    close() {
      for (const each of [attesterAt, asAt]) each.close();
      rmSync(home, { recursive: true });
    },
  };
}

/**
 * So that an example leaves nothing behind. `openKeys('auto')` would take the TPM or the keychain of whoever runs it; a directory
 * whose first key is in a file keeps to files.
 */
async function keepKeysIn(directory: string): Promise<void> {
  process.env.ATTESTED_HOME = directory;
  const keys = await openKeys('software', { directory });
  await keys.createKey({ label: 'first' });
  await keys.close();
}

/** A free port of this machine, and whoever shall answer there. */
async function place(): Promise<{ origin: string; answerWith(listener: RequestListener): void; close(): void }> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    answerWith: (listener) => void server.on('request', listener),
    close() {
      server.close();
      server.closeAllConnections();
    },
  };
}

async function authorizationServer(issuer: string, attester: string, clientId: string): Promise<RequestListener> {
  const { privateKey } = await generateKeyPair('ES256', { extractable: true });
  const [challengeSecret, nonceSecret] = [randomBytes(32), randomBytes(32)];
  const client = {
    client_id: clientId,
    token_endpoint_auth_method: 'attest_jwt_client_auth_dpop', // or attest_jwt_client_auth
    grant_types: ['client_credentials'],
    redirect_uris: [],
    response_types: [],
  };
  const rest: Configuration = {
    jwks: { keys: [{ ...(await exportJWK(privateKey)), alg: 'ES256', use: 'sig', kid: 'as' }] },
    clientDefaults: { id_token_signed_response_alg: 'ES256' },
    cookies: { keys: [randomBytes(32).toString('base64url')] },
    ttl: { ClientCredentials: 300 },
  };
  const features: Configuration['features'] = {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (_ctx: unknown, audience: string) => ({
        scope: '',
        audience,
        accessTokenFormat: 'jwt',
        jwt: { sign: { alg: 'ES256' } },
      }),
    },
  };
  // #region oidc-provider
  const trust = remoteJwks(`${attester}/jwks`, { clients: [clientId] });
  const configuration = {
    ...rest,
    clients: [client],
    clientAuthMethods: ['attest_jwt_client_auth', 'attest_jwt_client_auth_dpop'],
    extraTokenClaims: clientInstanceClaim, // access tokens name their instance, also without DPoP
    features: {
      ...features,
      attestClientAuth: attestClientAuth({ issuer, trust, challengeSecret, onRefusal: console.error }),
      dPoP: { enabled: true, nonceSecret },
    },
  };
  // the published types lack the combined mode
  const provider = new Provider(issuer, configuration as unknown as Configuration);
  provider.use(attestationMiddleware);
  // #endregion
  return provider.callback();
}
