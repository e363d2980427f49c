import { describe, expect, test } from 'vitest';
import type { AgentEvent, AgentWarning } from '../../src/agent/index.ts';
import { expectRefusal } from '../support/errors.ts';
import { asked, json, newAgent, startFakeAs, tokenRequest } from './support.ts';

const A = 'https://a.example/mcp';
const B = 'https://b.example/mcp';
const bearer = () => startFakeAs((_request, response) => json(response, { access_token: 'a', token_type: 'Bearer' }));

describe('agent.on', () => {
  test("'event': an identity, its attestation, its renewal, its rotation", async () => {
    const as = await bearer();
    const { agent, clock } = await newAgent({ lifetime: 1000 });
    const events: AgentEvent[] = [];
    agent.on('event', (event) => events.push(event));
    await tokenRequest(agent, as.issuer, { resource: A });
    clock.offset = 990_000;
    await tokenRequest(agent, as.issuer, { resource: A });
    const [{ thumbprint } = { thumbprint: '' }] = agent.identities();
    await agent.rotate(A);
    const next = agent.identities().find(({ current }) => current)!.thumbprint;
    const attestation = { type: 'attestation', server: A, lifetime: 1000, duration: expect.any(Number) };
    expect(events).toEqual([
      { type: 'identity', server: A, thumbprint, generation: 1 },
      { ...attestation, thumbprint },
      { ...attestation, thumbprint },
      { type: 'identity', server: A, thumbprint: next, generation: 2 },
      { ...attestation, thumbprint: next },
      { type: 'rotation', server: A, thumbprint: next, generation: 2 },
    ]);
  });

  test("'event': a request that is sent once more, and why", async () => {
    const as = await startFakeAs((_request, response) =>
      asked(as, '/token').length === 1
        ? json(response, { error: 'use_attestation_challenge' }, 400, { 'oauth-client-attestation-challenge': 'c2' })
        : json(response, { access_token: 'a', token_type: 'Bearer' }),
    );
    const { agent } = await newAgent();
    const events: AgentEvent[] = [];
    agent.on('event', (event) => events.push(event));
    expect((await tokenRequest(agent, as.issuer, { resource: A })).status).toBe(200);
    expect(events.at(-1)).toMatchObject({ type: 'retry', server: A, reason: 'use_attestation_challenge' });
  });

  test("'warning' and onWarning are the same; a listener can be taken away, and its fault stays its own", async () => {
    const as = await bearer();
    const { agent } = await newAgent({ tracking: 'warn' });
    const heard: [string, AgentWarning][] = [];
    agent.on('warning', () => {
      throw new Error('a broken log');
    });
    const stop = agent.on('warning', (warning) => heard.push(['gone', warning]));
    agent.on('warning', (warning) => heard.push(['on', warning]));
    agent.onWarning((warning) => heard.push(['onWarning', warning]));
    stop();
    await tokenRequest(agent, as.issuer, { resource: A });
    expect((await tokenRequest(agent, as.issuer, { resource: B })).status).toBe(200);
    const tracking = heard.filter(([, { code }]) => code === 'tracking');
    expect(tracking.map(([who, { code }]) => `${who} ${code}`)).toEqual(['on tracking', 'onWarning tracking']);
  });

  test('there is nothing else to hear', async () => {
    const { agent } = await newAgent();
    await expectRefusal(async () => agent.on('error' as never, () => undefined), { code: 'invalid_argument' });
  });
});
