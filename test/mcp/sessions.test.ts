/** BIND-1 over more than one request: an MCP session is for the instance that began it. */
import { describe, expect, test } from 'vitest';
import type { GateRequest } from '../../src/mcp/index.ts';
import { openSessions } from '../../src/mcp/sessions.ts';
import { jwks } from '../../src/verifier/index.ts';
import { createGate, TOKEN } from '../support/gate.ts';
import { newSigner } from '../support/tokens.ts';
import { createWorld, requestOf } from '../support/world.ts';

const ID = 'Mcp-Session-Id';

/** A gate, and two instances of one client, attested by one attester, with a token that is good for both. */
function scene() {
  const attester = newSigner('ES256', 'attester-1');
  const trust = jwks({ keys: [attester.publicJwk] });
  const gate = createGate({}, { attester, trust });
  delete gate.token.instance;
  const other = createWorld({ role: 'rs', audience: gate.world.verifier.audience, attester, trust });
  type Lines = (honest: [string, string][]) => GateRequest['headers'];
  const named =
    (id: string): Lines =>
    (lines) => [...lines, [ID, id]];
  const statusOf = async (answer: unknown) => (answer instanceof Response ? answer.status : 200);
  return {
    gate,
    named,
    first: async (lines: Lines, method = 'POST') => {
      const { headers } = requestOf(await gate.sentPop());
      return statusOf(await gate.call(await gate.sentPop(), { method, headers: lines(headers as [string, string][]) }));
    },
    second: async (lines: Lines, method = 'POST') => {
      const pop = await other.pop({ payload: { challenge: await gate.world.challenge() } });
      const sent = await other.sent({ pop, authorization: `Bearer ${TOKEN}` });
      const { headers } = requestOf(sent);
      return statusOf(await gate.call(sent, { method, headers: lines(headers as [string, string][]) }));
    },
  };
}

describe('BIND-1: a session that another instance began is none', () => {
  test.each(['POST', 'GET', 'DELETE'])('%s', async (method) => {
    const { gate, first, second, named } = scene();
    expect(await first(named('s-1'))).toBe(200);
    expect(await second(named('s-1'), method)).toBe(404);
    expect(gate.refusals.map(({ code, rule }) => [code, rule])).toEqual([['access_denied', 'BIND-1']]);
    expect(await second(named('s-2'), method)).toBe(200);
    expect(await first(named('s-1'), method)).toBe(200);
    expect(await first((lines) => lines, method)).toBe(200);
  });

  test.each<[string, (lines: [string, string][]) => GateRequest['headers']]>([
    ['rawHeaders', (lines) => [...lines.flat(), 'MCP-SESSION-ID', 's-1']],
    ['a record', (lines) => ({ ...Object.fromEntries(lines), 'mcp-session-id': 's-1' })],
    ['a record with a list', (lines) => ({ ...Object.fromEntries(lines), 'mcp-session-id': ['s-1'] })],
    ['Headers', (lines) => new Headers([...lines, [ID, 's-1']])],
  ])('in %s', async (_shape, lines) => {
    const { first, second, named } = scene();
    await first(named('s-1'));
    expect(await second(lines)).toBe(404);
  });

  test('what is refused for another reason claims nothing', async () => {
    const { gate, first, second, named } = scene();
    gate.token.expiresAt = 1;
    expect(await second(named('s-1'))).toBe(401);
    gate.token.expiresAt = gate.world.seconds() + 60;
    expect(await first(named('s-1'))).toBe(200);
  });
});

describe('what is remembered', () => {
  const claims = () => {
    const sessions = openSessions();
    return (id: string, thumbprint: string) => sessions.belongsTo([[ID, id]], thumbprint);
  };

  test('the sessions that are in use, however many others there have been', () => {
    const claim = claims();
    claim('in use', 'me');
    for (let i = 0; i < 25_000; i++) {
      claim(`s-${i}`, `instance-${i}`);
      if (i % 1000 === 0) expect(claim('in use', 'me')).toBe(true);
    }
    expect(claim('in use', 'you')).toBe(false);
    expect(claim('s-24999', 'me')).toBe(false);
    expect(claim('s-0', 'me'), 'the oldest are forgotten').toBe(true);
  });

  test('all, when one instance invents as many as it can', () => {
    const claim = claims();
    for (let i = 0; i < 1000; i++) claim(`s-${i}`, `instance-${i}`);
    for (let i = 0; i < 25_000; i++) claim(`invented-${i}`, 'flood');
    for (let i = 0; i < 1000; i++) expect(claim(`s-${i}`, 'flood'), `s-${i}`).toBe(false);
  });
});

test('a session named twice is another one than either', () => {
  const sessions = openSessions();
  sessions.belongsTo(['mcp-session-id', 'a'], 'me');
  sessions.belongsTo(['mcp-session-id', 'b'], 'you');
  expect(sessions.belongsTo(['mcp-session-id', 'b', 'mcp-session-id', 'a'], 'you')).toBe(true);
  expect(sessions.belongsTo(['mcp-session-id', 'a'], 'you')).toBe(false);
});
