/** The gate: who gets in, and what those hear who do not. */
import { describe, expect, test } from 'vitest';
import { AttestedError } from '../../src/errors.ts';
import type { AccessToken } from '../../src/mcp/access-tokens.ts';
import { type AuthInfo, nextHeaders, type RequireAttestedAgentOptions } from '../../src/mcp/server.ts';
import { createGate, type GateWorld, METADATA_URL, RESOURCE, TOKEN } from '../support/gate.ts';
import { newSigner } from '../support/tokens.ts';
import { CLIENT_ID, type Sent } from '../support/world.ts';

const METADATA = `resource_metadata="${METADATA_URL}"`;

interface Answer {
  status: number;
  error: string;
  authenticate: string | null;
  headers: Headers;
  text: string;
}

async function refused(answer: AuthInfo | Response): Promise<Answer> {
  if (!(answer instanceof Response)) expect.fail('was admitted');
  const text = await answer.text();
  const { error } = JSON.parse(text) as { error: string };
  for (const secret of [TOKEN, 'unknown token', 'eyJ']) {
    expect(text).not.toContain(secret);
    expect(answer.headers.get('www-authenticate') ?? '').not.toContain(secret);
  }
  expect(answer.headers.get('cache-control')).toBe('no-store');
  const authenticate = answer.headers.get('www-authenticate');
  return { status: answer.status, error, authenticate, headers: answer.headers, text };
}

function admitted(answer: AuthInfo | Response): AuthInfo {
  if (answer instanceof Response) expect.fail(`was refused with ${answer.status}`);
  return answer;
}

describe('admitted', () => {
  test('POP-2, VER-3: a token of the instance, its attestation and a PoP', async () => {
    const gate = createGate();
    const { world } = gate;
    gate.token.extra = { subject: 'alice' };
    expect(admitted(await gate.call(await gate.sentPop()))).toEqual({
      token: TOKEN,
      clientId: CLIENT_ID,
      scopes: ['mcp'],
      expiresAt: gate.token.expiresAt,
      resource: new URL(RESOURCE),
      resourceMetadataUrl: METADATA_URL,
      extra: {
        subject: 'alice',
        attestation: expect.objectContaining({
          clientId: CLIENT_ID,
          thumbprint: world.instance.thumbprint,
          method: 'attestation_pop_jwt',
        }),
      },
    });
    expect(gate.refusals).toEqual([]);
  });

  test('DPOP-1, DPOP-3: combined mode: the proof stands for the token and the attestation', async () => {
    const gate = createGate();
    const { extra } = admitted(await gate.call(await gate.sentCombined()));
    expect(extra.attestation?.method).toBe('dpop_combined');
  });

  test('DPOP-1: separate mode: a PoP of the instance, and a DPoP proof with another key that the token is bound to', async () => {
    const gate = createGate();
    const other = newSigner();
    gate.token.jkt = other.thumbprint;
    const sent = await gate.sentPop({ dpop: await gate.proof({ signer: other }), authorization: `DPoP ${TOKEN}` });
    expect(admitted(await gate.call(sent)).extra.attestation?.thumbprint).toBe(gate.world.instance.thumbprint);
  });

  test('META-3: without an attestation, where it is optional', async () => {
    const gate = createGate({}, { policy: { popMethods: ['attestation_pop_jwt', 'dpop_combined', 'none'] } });
    delete gate.token.instance;
    // what a token says of attestations is not what we say
    gate.token.extra = { attestation: { thumbprint: 'forged' } };
    const bearer = await gate.sentPop({ attestation: null, pop: null });
    expect(admitted(await gate.call(bearer)).extra).toEqual({});
    gate.token.jkt = gate.world.instance.thumbprint;
    const dpop = await gate.sentPop({
      attestation: null,
      pop: null,
      dpop: await gate.proof(),
      authorization: `DPoP ${TOKEN}`,
    });
    expect(admitted(await gate.call(dpop)).extra).toEqual({});
    // what is there is judged all the same
    expect((await refused(await gate.call(await gate.sentPop({ attestation: null })))).error).toBe(
      'invalid_client_attestation',
    );
    const forged = await gate.world.attestation({ signer: newSigner() });
    expect((await refused(await gate.call(await gate.sentPop({ attestation: forged })))).error).toBe(
      'invalid_client_attestation',
    );
  });

  test('BIND-1: a resource that is text, and a `cnf` where tokens and other verifiers have it', async () => {
    for (const put of [
      (token: AccessToken, cnf: { jkt: string }) => Object.assign(token, { cnf }),
      (token: AccessToken, cnf: { jkt: string }) => Object.assign(token, { extra: { cnf } }),
    ]) {
      const gate = createGate();
      delete gate.token.instance;
      delete gate.token.jkt;
      gate.token.resource = String(gate.token.resource);
      put(gate.token, { jkt: gate.world.instance.thumbprint });
      const { resource } = admitted(
        await gate.call(await gate.sentPop({ dpop: await gate.proof(), authorization: `DPoP ${TOKEN}` })),
      );
      expect(resource).toBeInstanceOf(URL);
      put(gate.token, { jkt: newSigner().thumbprint });
      expect(
        (
          await refused(
            await gate.call(await gate.sentPop({ dpop: await gate.proof(), authorization: `DPoP ${TOKEN}` })),
          )
        ).error,
      ).toBe('invalid_token');
      put(gate.token, { 'x5t#S256': 'AAAA' } as never);
      expect((await refused(await gate.call(await gate.sentPop()))).error).toBe('invalid_token');
    }
  });

  test.each([undefined, 'when-bound', 'client'] as const)('an unbound token, with binding %s', async (binding) => {
    const gate = createGate(binding === undefined ? {} : { binding });
    delete gate.token.instance;
    delete gate.token.jkt;
    expect(admitted(await gate.call(await gate.sentPop())).clientId).toBe(CLIENT_ID);
  });

  test('a token whose verifier says nothing of a resource: that check is the verifier’s', async () => {
    const gate = createGate();
    delete gate.token.resource;
    expect(admitted(await gate.call(await gate.sentPop())).resource).toBeUndefined();
  });

  test("a token that is bound by DPoP to another key than the instance's, with binding `client`", async () => {
    const gate = createGate({ binding: 'client' });
    delete gate.token.instance;
    const other = newSigner();
    gate.token.jkt = other.thumbprint;
    const sent = await gate.sentPop({ dpop: await gate.proof({ signer: other }), authorization: `DPoP ${TOKEN}` });
    expect(admitted(await gate.call(sent)).clientId).toBe(CLIENT_ID);
  });

  test('the verifier of an SDK, an object with a method', async () => {
    const gate = createGate();
    const verifier = {
      known: gate.token,
      async verifyAccessToken() {
        return this.known;
      },
    };
    const other = createGate({ verifyAccessToken: verifier }, { instance: gate.world.instance });
    expect(admitted(await other.call(await other.sentPop())).clientId).toBe(CLIENT_ID);
  });

  test.each(['bearer', 'BEARER', 'Bearer  '])('RFC 9110 §11.1: the scheme written %j', async (scheme) => {
    const gate = createGate();
    const sent = await gate.sentPop({
      authorization: `${scheme.trimEnd()} ${scheme.endsWith(' ') ? ' ' : ''}${TOKEN}`,
    });
    expect(admitted(await gate.call(sent)).token).toBe(TOKEN);
  });

  test('CHA-3: the next values, where the verifier has some', () => {
    const attestation = { challengeForNext: 'c', dpopNonceForNext: 'n' } as never;
    const base = { token: '', clientId: '', scopes: [] };
    expect(nextHeaders({ ...base, extra: { attestation } })).toEqual({
      'OAuth-Client-Attestation-Challenge': 'c',
      'DPoP-Nonce': 'n',
    });
    expect(nextHeaders({ ...base, extra: {} })).toEqual({});
  });
});

interface Row {
  name: string;
  options?: Partial<RequireAttestedAgentOptions>;
  mode?: 'sentPop' | 'sentCombined';
  parts?: (gate: GateWorld) => Partial<Sent> | Promise<Partial<Sent>>;
  token?: (gate: GateWorld) => void;
  status?: number;
  error?: string;
  rule: string;
  /** Of WWW-Authenticate. */
  scheme?: string;
}

const rows: Row[] = [
  {
    name: 'DPOP-2: the scheme Bearer for a token that is bound by DPoP',
    mode: 'sentCombined',
    parts: () => ({ authorization: `Bearer ${TOKEN}` }),
    rule: 'BIND-1',
  },
  {
    name: 'the scheme DPoP for a token that is not bound',
    mode: 'sentCombined',
    parts: (gate) => {
      delete gate.token.jkt;
      return {};
    },
    token: ({ token }) => {
      delete token.jkt;
    },
    rule: 'BIND-1',
  },
  {
    name: "BIND-1: another instance's token",
    token: ({ token }) => {
      token.instance = newSigner().thumbprint;
    },
    rule: 'BIND-1',
  },
  {
    name: "BIND-1: another instance's token, also with binding `client`",
    options: { binding: 'client' },
    token: ({ token }) => {
      token.instance = newSigner().thumbprint;
    },
    rule: 'BIND-1',
  },
  {
    name: "BIND-1: a token that is bound to another instance's key, in combined mode",
    mode: 'sentCombined',
    token: ({ token }) => {
      delete token.instance;
      token.jkt = newSigner().thumbprint;
    },
    rule: 'BIND-1',
  },
  {
    name: 'BIND-1: a token of two instances: `cnf.jkt` of one, the claim of another',
    mode: 'sentCombined',
    token: ({ token }) => {
      token.instance = newSigner().thumbprint;
    },
    rule: 'BIND-1',
  },
  {
    name: "VER-6: another client's token",
    token: ({ token }) => {
      token.clientId = 'https://other.example';
    },
    rule: 'VER-6',
  },
  {
    name: "VER-6: another client's token, with binding `client`",
    options: { binding: 'client' },
    token: ({ token }) => {
      token.clientId = 'https://other.example';
      delete token.instance;
    },
    rule: 'VER-6',
  },
  {
    name: 'BIND-1: a token that is bound to nothing, with binding `instance`',
    options: { binding: 'instance' },
    token: ({ token }) => {
      delete token.instance;
    },
    rule: 'BIND-1',
  },
  {
    name: 'a token for another resource',
    token: ({ token }) => {
      token.resource = new URL('https://mcp.example/other');
    },
    rule: 'RFC 8707 §2',
  },
  {
    name: 'a token for a resource whose name begins like ours',
    token: ({ token }) => {
      token.resource = new URL('https://mcp.example/mcp2');
    },
    rule: 'RFC 8707 §2',
  },
  {
    name: 'a token for a resource that is no URL',
    token: ({ token }) => {
      token.resource = 'mcp';
    },
    rule: 'RFC 8707 §2',
  },
  {
    name: 'an expired token',
    token: ({ token, world }) => {
      token.expiresAt = world.seconds();
    },
    rule: 'RFC 6750 §3.1',
  },
  {
    name: 'a token without end',
    token: ({ token }) => {
      delete token.expiresAt;
    },
    rule: 'RFC 6750 §3.1',
  },
  {
    name: 'a token whose end is no number',
    token: ({ token }) => {
      token.expiresAt = Number.NaN;
    },
    rule: 'RFC 6750 §3.1',
  },
  { name: 'an unknown token', parts: () => ({ authorization: 'Bearer other' }), rule: 'RFC 6750 §3.1' },
  {
    name: 'VER-1: no attestation',
    parts: () => ({ attestation: null }),
    error: 'invalid_client_attestation',
    rule: 'VER-1',
  },
  {
    name: 'VER-1: nothing but the token',
    parts: () => ({ attestation: null, pop: null }),
    error: 'invalid_client_attestation',
    rule: 'VER-1',
  },
  { name: 'POP-8: no proof', parts: () => ({ pop: null }), error: 'invalid_client_attestation', rule: 'POP-8' },
  {
    name: 'VER-1: two attestations',
    parts: async ({ world }) => ({ attestation: [await world.attestation(), await world.attestation()] }),
    error: 'invalid_client_attestation',
    rule: 'VER-1',
  },
  {
    name: 'POP-8: two proofs',
    parts: async ({ world }) => ({ pop: [await world.pop(), await world.pop()] }),
    error: 'invalid_client_attestation',
    rule: 'POP-8',
  },
  {
    name: 'DPOP-1: two DPoP proofs',
    mode: 'sentCombined',
    parts: async (gate) => ({ dpop: [await gate.proof(), await gate.proof()] }),
    error: 'invalid_dpop_proof',
    rule: 'DPOP-1',
    scheme: 'DPoP',
  },
  {
    name: 'POP-2: a PoP for another server, by way of that server',
    parts: async ({ world }) => ({ pop: await world.pop({ payload: { aud: 'https://evil.example/mcp' } }) }),
    error: 'invalid_client_attestation',
    rule: 'POP-2',
  },
  {
    name: "POP-6: a captured attestation with a PoP of the attacker's key",
    parts: async ({ world }) => ({ pop: await world.pop({ signer: newSigner() }) }),
    error: 'invalid_client_attestation',
    rule: 'POP-6',
  },
  {
    name: 'POP-5: no challenge',
    parts: async ({ world }) => ({ pop: await world.pop({ payload: { challenge: undefined as never } }) }),
    error: 'use_attestation_challenge',
    rule: 'POP-5',
  },
  {
    name: 'DPOP-4: no nonce',
    mode: 'sentCombined',
    parts: async (gate) => ({ dpop: await gate.proof({ payload: { nonce: undefined as never } }) }),
    error: 'use_dpop_nonce',
    rule: 'DPOP-4',
    scheme: 'DPoP',
  },
  {
    name: 'DPOP-2: a DPoP proof for another token',
    mode: 'sentCombined',
    parts: async (gate) => ({ dpop: await gate.proof({ payload: { ath: 'AAAA' } }) }),
    error: 'invalid_dpop_proof',
    rule: 'DPOP-2',
    scheme: 'DPoP',
  },
  {
    name: 'DPOP-2: a DPoP proof for another address',
    mode: 'sentCombined',
    parts: async (gate) => ({ dpop: await gate.proof({ payload: { htu: 'https://evil.example/mcp' } }) }),
    error: 'invalid_dpop_proof',
    rule: 'DPOP-2',
    scheme: 'DPoP',
  },
  {
    name: 'DPOP-1: separate mode without a DPoP proof',
    token: ({ token }) => {
      token.jkt = newSigner().thumbprint;
    },
    parts: () => ({ authorization: `DPoP ${TOKEN}` }),
    error: 'invalid_dpop_proof',
    rule: 'DPOP-2',
    scheme: 'DPoP',
  },
  {
    name: "DPOP-1: separate mode with the instance's key, where the token is bound to another",
    token: ({ token }) => {
      token.jkt = newSigner().thumbprint;
    },
    parts: async (gate) => ({ authorization: `DPoP ${TOKEN}`, dpop: await gate.proof() }),
    rule: 'BIND-1',
  },
  {
    name: 'BIND-1: separate mode, the token bound to the DPoP key alone: nothing ties it to the instance',
    parts: async (gate) => {
      const other = newSigner();
      gate.token = { ...gate.token, jkt: other.thumbprint };
      delete gate.token.instance;
      return { authorization: `DPoP ${TOKEN}`, dpop: await gate.proof({ signer: other }) };
    },
    rule: 'BIND-1',
  },
  {
    name: 'ATT-3: an expired attestation',
    parts: async ({ world }) => ({
      attestation: await world.attestation({ payload: { iat: world.seconds() - 100, exp: world.seconds() - 60 } }),
    }),
    error: 'use_fresh_attestation',
    rule: 'ATT-3',
  },
];

describe('refused', () => {
  test.each(rows)('$name', async ({ options = {}, mode = 'sentPop', parts, token, rule, ...expected }) => {
    const gate = createGate(options);
    const sent = await gate[mode](await parts?.(gate));
    if (mode === 'sentCombined' && parts !== undefined) Object.assign(sent, await parts(gate));
    token?.(gate);
    const { status = 401, error = 'invalid_token', scheme = 'Bearer' } = expected;
    const answer = await refused(await gate.call(sent));
    expect({ status: answer.status, error: answer.error }).toEqual({ status, error });
    expect(gate.refusals.map(({ code, rule }) => ({ code, rule }))).toEqual([{ code: error, rule }]);
    const [refusal] = gate.refusals;
    expect(answer.authenticate).toBe(
      `${scheme} error="${error}", error_description="${refusal?.message}", ${METADATA}`,
    );
  });

  test('DPOP-2: the scheme Bearer for a token that is bound by DPoP, with no proof at all', async () => {
    const gate = createGate();
    gate.token.jkt = gate.world.instance.thumbprint;
    expect((await refused(await gate.call(await gate.sentPop()))).error).toBe('invalid_token');
  });

  test('VER-8: the same request twice', async () => {
    const gate = createGate({}, { policy: { challenge: 'off' } });
    const sent = await gate.sentPop();
    admitted(await gate.call(sent));
    expect(await refused(await gate.call(sent))).toMatchObject({ status: 401, error: 'invalid_client_attestation' });
    expect(gate.refusals[0]?.rule).toBe('VER-8');
  });

  test.each([
    ['nothing', null],
    ['another scheme', 'Basic YTpi'],
    ['a scheme alone', 'Bearer'],
    ['an empty token', 'Bearer '],
    ['a token with a space', 'Bearer a b'],
    ['two tokens in one field', `Bearer ${TOKEN}, Bearer other`],
    ['a token without scheme', TOKEN],
  ])(
    'RFC 6750 §3: without a token (%s) there is no error code, but all that the client needs',
    async (_, authorization) => {
      const gate = createGate({ requiredScopes: ['mcp', 'mail'] });
      const answer = await refused(await gate.call(await gate.sentPop({ authorization })));
      expect(answer).toMatchObject({ status: 401, error: 'invalid_token' });
      expect(answer.authenticate).toBe(`Bearer scope="mcp mail", ${METADATA}`);
      expect(gate.refusals.map(({ rule }) => rule)).toEqual(['RFC 6750 §3']);
    },
  );

  test('CHA-3, CHA-6: challenge and nonce of the first refusal are good for the first request', async () => {
    const gate = createGate();
    const { headers } = await refused(await gate.call(await gate.sentPop({ authorization: null })));
    const challenge = headers.get('oauth-client-attestation-challenge') as string;
    admitted(await gate.call(await gate.sentPop({ pop: await gate.world.pop({ payload: { challenge } }) })));
    const nonce = headers.get('dpop-nonce') as string;
    admitted(await gate.call(await gate.sentCombined({ dpop: await gate.proof({ payload: { nonce } }) })));
  });

  test('ERR-1, DPOP-4: the refusal of an old challenge or nonce brings one that works', async () => {
    const gate = createGate();
    const pop = await refused(
      await gate.call(await gate.sentPop({ pop: await gate.world.pop({ payload: { challenge: 'x' } }) })),
    );
    const challenge = pop.headers.get('oauth-client-attestation-challenge') as string;
    admitted(await gate.call(await gate.sentPop({ pop: await gate.world.pop({ payload: { challenge } }) })));
    const dpop = await refused(
      await gate.call(await gate.sentCombined({ dpop: await gate.proof({ payload: { nonce: 'x' } }) })),
    );
    const nonce = dpop.headers.get('dpop-nonce') as string;
    admitted(await gate.call(await gate.sentCombined({ dpop: await gate.proof({ payload: { nonce } }) })));
  });

  test('RFC 6750 §3.1: a missing scope is 403, and says which', async () => {
    const gate = createGate({ requiredScopes: ['mcp', 'mail'] });
    const answer = await refused(await gate.call(await gate.sentPop()));
    expect(answer).toMatchObject({ status: 403, error: 'insufficient_scope' });
    expect(answer.authenticate).toBe(
      `Bearer error="insufficient_scope", error_description="the access token lacks a scope", scope="mcp mail", ${METADATA}`,
    );
    expect(gate.refusals.map(({ code }) => code)).toEqual(['insufficient_scope']);
  });

  test.each([
    ['a plain error', new Error('unknown token abc'), 401, 'invalid_token'],
    ['something that is no error', 'unknown token abc', 401, 'invalid_token'],
    ['our own error', new AttestedError('invalid_token', 'the token was withdrawn'), 401, 'invalid_token'],
    ['an outage', new AttestedError('temporarily_unavailable', 'the AS is down'), 503, 'temporarily_unavailable'],
    [
      'an error that is not for the wire',
      new AttestedError('http_failed', 'unknown token abc'),
      503,
      'temporarily_unavailable',
    ],
  ])('verifyAccessToken throws %s', async (_, thrown, status, error) => {
    const gate = createGate({ verifyAccessToken: () => Promise.reject(thrown) });
    const answer = await refused(await gate.call(await gate.sentPop()));
    expect(answer).toMatchObject({ status, error });
    expect(answer.authenticate?.includes(METADATA) ?? false).toBe(status === 401);
  });

  test('a fault of our own is a bare 503, with the cause in the log', async () => {
    const gate = createGate({ verifyAccessToken: async () => undefined as never });
    const answer = await refused(await gate.call(await gate.sentPop()));
    expect(answer).toMatchObject({ status: 503, error: 'temporarily_unavailable' });
    expect(gate.refusals[0]?.cause).toBeInstanceOf(TypeError);
  });

  test('BIND-1, META-3: a token of an instance is not good without its attestation, where attestation is optional', async () => {
    const gate = createGate({}, { policy: { popMethods: ['attestation_pop_jwt', 'dpop_combined', 'none'] } });
    const stolen = await refused(await gate.call(await gate.sentPop({ attestation: null, pop: null })));
    expect(stolen).toMatchObject({ status: 401, error: 'invalid_client_attestation' });
    delete gate.token.instance;
    gate.token.jkt = gate.world.instance.thumbprint;
    const thief = await gate.proof({ signer: newSigner() });
    for (const parts of [{}, { dpop: thief, authorization: `DPoP ${TOKEN}` }]) {
      const sent = await gate.sentPop({ attestation: null, pop: null, ...parts });
      expect(await refused(await gate.call(sent))).toMatchObject({ status: 401, error: 'invalid_token' });
    }
  });

  test('a log that fails changes nothing', async () => {
    const gate = createGate({
      onRefusal: () => {
        throw new Error('disk full');
      },
    });
    expect(await refused(await gate.call(await gate.sentPop({ attestation: null })))).toMatchObject({ status: 401 });
  });

  test('CHA-3: a refusal for the token alone leaves the client its challenge, and makes no new one', async () => {
    let issued = 0;
    const issue = async () => `challenge-${++issued}`;
    const gate = createGate({}, { challenges: { issue, check: () => 'good' as const } });
    gate.token.instance = newSigner().thumbprint;
    const sent = await gate.sentPop();
    const before = issued;
    const { headers, error } = await refused(await gate.call(sent));
    expect([error, headers.get('oauth-client-attestation-challenge')]).toEqual(['invalid_token', null]);
    expect(issued).toBe(before);
  });

  test('a challenge store that is down: a refusal is a refusal still, without fresh values', async () => {
    const down = async () => Promise.reject(new Error('unknown token'));
    const gate = createGate({}, { challenges: { issue: down, check: down } as never });
    const sent = await gate.sentPop({ authorization: null, pop: 'x' });
    const answer = await refused(await gate.call(sent));
    expect(answer.status).toBe(401);
    expect(answer.headers.has('oauth-client-attestation-challenge')).toBe(false);
  });
});

describe('how the request is read', () => {
  const flat = (headers: Iterable<readonly [string, string]>) => [...headers].flat();

  test('VER-1: repeated fields are seen in rawHeaders', async () => {
    const gate = createGate();
    const { world } = gate;
    const token = ['authorization', `Bearer ${TOKEN}`];
    const honest = [
      'oauth-client-attestation',
      await world.attestation(),
      'OAuth-Client-Attestation-PoP',
      await world.pop(),
    ];
    const twice: [string[], string, number][] = [
      [['OAuth-Client-Attestation', await world.attestation()], 'invalid_client_attestation', 401],
      [['oauth-client-attestation-pop', await world.pop()], 'invalid_client_attestation', 401],
      [['Authorization', 'Bearer other'], 'invalid_request', 400],
    ];
    for (const [extra, error, status] of twice) {
      const headers = [...token, ...honest, ...extra];
      expect(await refused(await gate.gate({ method: 'POST', url: '/mcp', headers }))).toMatchObject({ error, status });
    }
    admitted(await gate.gate({ method: 'POST', url: '/mcp', headers: [...token, ...honest] }));
  });

  test('the Host header and the address that the server was reached at play no part', async () => {
    const gate = createGate();
    const requests = ['/mcp', 'http://127.0.0.1:8080/mcp', 'https://evil.example/mcp', 'http://evil.example/mcp#x'];
    for (const url of requests) {
      const { headers } = await headersOf(gate);
      admitted(await gate.gate({ method: 'POST', url, headers: [...flat(headers), 'Host', 'evil.example'] }));
    }
  });

  test.each([
    '//evil.example/mcp',
    '/\\evil.example/mcp',
    '\\\\evil.example/mcp',
    'https://mcp.example//evil.example/mcp',
    '//evil.example:443/mcp',
  ])('DPOP-2: the target %j does not make a proof for another server ours', async (url) => {
    const gate = createGate();
    const relayed = { htu: 'https://evil.example/mcp' };
    const sent = await gate.sentCombined({ dpop: await gate.proof({ payload: relayed }) });
    const answer = await refused(await gate.call(sent, { url }));
    expect(['invalid_dpop_proof', 'invalid_request']).toContain(answer.error);
  });

  test.each(['*', '', 'evil.example:443', 'javascript:alert(1)', 'data:,mcp', 'https://', '[', '\u0000'])(
    'RFC 9112 §3.2: the target %j names no path of ours',
    async (url) => {
      const gate = createGate();
      const answer = await refused(await gate.call(await gate.sentPop(), { url }));
      expect(answer).toMatchObject({ status: 400, error: 'invalid_request', authenticate: null });
    },
  );

  test.each(['/%', '/%ff', '/mcp?%00', `/${'a/'.repeat(4000)}`, '//', '///', '/..//..', '/mcp;x=[', '/ü'])(
    'the target %j does not crash the gate',
    async (url) => {
      const gate = createGate();
      admitted(await gate.call(await gate.sentPop(), { url }));
    },
  );

  test('publicUrl says how the client sees the server', async () => {
    const publicUrl = () => 'https://public.example/mcp';
    const gate = createGate({ publicUrl });
    const proof = await gate.proof({ payload: { htu: 'https://public.example/mcp' } });
    admitted(await gate.call(await gate.sentCombined({ dpop: proof })));
  });

  async function headersOf(gate: GateWorld) {
    const sent = await gate.sentCombined();
    const { attestation, dpop, authorization } = sent;
    return {
      headers: [
        ['OAuth-Client-Attestation', attestation],
        ['DPoP', dpop],
        ['Authorization', authorization],
      ] as [string, string][],
    };
  }
});

describe('a resource identifier', () => {
  test.each([
    ['https://mcp.example', 'https://mcp.example/'],
    ['https://mcp.example/', 'https://mcp.example'],
    ['https://MCP.example/mcp', 'https://mcp.example/mcp'],
    ['https://mcp.example/mcp', 'https://mcp.example/mcp/'],
  ])('%s is that of a token for %s', async (audience, resource) => {
    const gate = createGate({}, { audience });
    gate.token.resource = new URL(resource);
    admitted(await gate.call(await gate.sentPop()));
  });
});
