/** One client for attested and other servers: what happens where an authorization server offers no attestation. */
import { describe, expect, test, vi } from 'vitest';
import { AttestedError } from '../../src/errors.ts';
import { withAttestation } from '../../src/mcp/client.ts';

const metadata = {
  issuer: 'https://as.example',
  token_endpoint_auth_methods_supported: ['client_secret_basic', 'none'],
};
const unsupported = new AttestedError('server_unsupported', 'no attestation here');

/** As an SDK does it: asks for the client, then authenticates it. */
async function authenticate(
  provider: Record<string, unknown>,
  { refusal = unsupported, unattested = 'usual', document = metadata, named = true }: Options = {},
) {
  const agent = {
    clientId: 'agent',
    clientMetadata: { token_endpoint_auth_method: 'attest_jwt_client_auth' },
    addClientAuthentication: async (headers: Headers) => {
      if (refusal !== null) throw refusal;
      headers.set('attested', 'yes');
    },
  };
  const base = { tokens: () => undefined, saveTokens() {}, clientMetadata: {}, clientInformation: () => undefined };
  const wrapped = withAttestation({ ...base, ...provider } as never, agent as never, { unattested }) as unknown as {
    clientInformation(about?: object): Promise<unknown>;
    addClientAuthentication(...args: unknown[]): Promise<void>;
    clientMetadata: object;
  };
  await wrapped.clientInformation(...(named ? [{ issuer: document.issuer }] : []));
  const [headers, params] = [new Headers(), new URLSearchParams({ grant_type: 'client_credentials' })];
  const { addClientAuthentication } = wrapped; // the SDKs call it unbound
  await addClientAuthentication(headers, params, 'https://as.example/token', document);
  return { headers: Object.fromEntries(headers), params: Object.fromEntries(params), metadata: wrapped.clientMetadata };
}
interface Options {
  refusal?: AttestedError | null;
  unattested?: 'usual' | 'refuse';
  document?: { issuer: string; token_endpoint_auth_methods_supported: string[] };
  named?: boolean;
}
const client = (more: object = {}) => ({
  clientInformation: () => ({ client_id: 'a b', client_secret: 's:é', ...more }),
});
const listing = (...names: string[]) => ({ ...metadata, token_endpoint_auth_methods_supported: names });
const grant = { grant_type: 'client_credentials' };
const basic = `Basic ${btoa('a+b:s%3A%C3%A9')}`;
const inBody = { client_id: 'a b', client_secret: 's:é' };

describe('unattested: usual', () => {
  test('attestation where the server offers it, and then nothing else', async () => {
    const result = await authenticate(client(), { refusal: null });
    expect(result).toMatchObject({ headers: { attested: 'yes' }, params: grant });
    expect(result.headers).not.toHaveProperty('authorization');
  });

  test.each([
    ['a secret, where nothing is listed', client(), listing(), { authorization: basic }, {}],
    ['a secret, where only the body is open', client(), listing('client_secret_post'), {}, inBody],
    [
      'the registered method before the default',
      client({ token_endpoint_auth_method: 'client_secret_post' }),
      listing('client_secret_basic', 'client_secret_post'),
      {},
      inBody,
    ],
    [
      'the registered method only where it is listed',
      client({ token_endpoint_auth_method: 'client_secret_post' }),
      listing('client_secret_basic'),
      { authorization: basic },
      {},
    ],
    [
      'a method that no table has',
      client({ token_endpoint_auth_method: 'constructor' }),
      listing('constructor', 'client_secret_basic'),
      { authorization: basic },
      {},
    ],
    ['no secret', client({ client_secret: undefined }), listing('none'), {}, { client_id: 'a b' }],
    ['no client of its own', {}, listing('none'), {}, { client_id: 'agent' }],
  ])('%s', async (_, provider, document, headers, params) => {
    const result = await authenticate(provider, { document });
    expect(result.headers).toEqual(headers);
    expect(result.params).toEqual({ ...grant, ...params });
  });

  test("the provider's own hook comes before its secret, and runs on the provider", async () => {
    const addClientAuthentication = vi.fn(function (this: unknown, headers: Headers) {
      headers.set('own', String((this as { name: string }).name));
    });
    const result = await authenticate({ ...client(), name: 'mine', addClientAuthentication });
    expect(result).toMatchObject({ headers: { own: 'mine' }, params: grant });
    expect(result.headers).not.toHaveProperty('authorization');
  });

  test('a secret is asked for by the issuer whose metadata it is, where the SDK names issuers', async () => {
    const clientInformation = vi.fn(() => ({ client_id: 'c' }));
    await authenticate({ clientInformation });
    expect(clientInformation.mock.calls).toEqual([[{ issuer: metadata.issuer }], [{ issuer: metadata.issuer }]]);
    clientInformation.mockClear();
    await authenticate({ clientInformation }, { named: false });
    expect(clientInformation.mock.calls).toEqual([[], []]);
  });

  test('META-6: metadata that speaks for another issuer gets no secret', async () => {
    const refusal = new AttestedError('metadata_mismatch', 'for another issuer');
    await expect(authenticate(client(), { refusal })).rejects.toBe(refusal);
  });

  test('the client is registered with the method that its provider names', async () => {
    const own = { clientMetadata: { token_endpoint_auth_method: 'none' } };
    expect(await authenticate({ ...client(), ...own })).toMatchObject({ metadata: own.clientMetadata });
  });
});

test('META-4: by default a server without attestation gets neither secret nor client_id', async () => {
  await expect(authenticate(client(), { unattested: 'refuse' })).rejects.toBe(unsupported);
});
