import { describe, expect, it } from 'vitest';
import { assertBoundTo, assertTokenBoundTo, bindingOf, defineProfile } from '../../src/verifier/index.ts';
import { expectRefusal } from '../support/errors.ts';
import { createWorld } from '../support/world.ts';

const mine = { clientId: 'client', thumbprint: 'key-1' };

describe('binding of grants', () => {
  it('BIND-1: what was issued to an instance is used by that instance', async () => {
    const world = createWorld();
    const client = await world.verify(await world.sent());
    const binding = JSON.parse(JSON.stringify(bindingOf(client)));
    expect(binding).toEqual({ clientId: client.clientId, thumbprint: world.instance.thumbprint });
    const later = await world.verify(await world.sent());
    expect(() => assertBoundTo(binding, later)).not.toThrow();
  });

  it('BIND-1, IMPL-2: another instance of the same client, or the same one after rotation, is refused', async () => {
    const world = createWorld();
    const binding = bindingOf(await world.verify(await world.sent()));
    const rotated = createWorld({ attester: world.attester });
    const other = await rotated.verify(await rotated.sent());
    expect(other.clientId).toBe(binding.clientId);
    const error = await expectRefusal(() => assertBoundTo(binding, other), { code: 'invalid_grant', rule: 'BIND-1' });
    expect(world.verifier.respond(error).status).toBe(400);
  });

  it.each([
    { name: 'another client with the same key', client: { ...mine, clientId: 'other' } },
    { name: 'another key', client: { ...mine, thumbprint: 'key-2' } },
    { name: 'a key that starts alike', client: { ...mine, thumbprint: 'key-11' } },
    { name: 'no key', client: { ...mine, thumbprint: '' } },
  ])('BIND-2: a code of one instance is refused to $name', async ({ client }) => {
    await expectRefusal(() => assertBoundTo(bindingOf(mine), client), { code: 'invalid_grant', rule: 'BIND-1' });
    expect(() => assertBoundTo(bindingOf(mine), mine), 'the code was not burnt').not.toThrow();
  });

  it('BIND-1: a record that lost its key (a NULL in a database) is refused', async () => {
    await expectRefusal(() => assertBoundTo({ clientId: 'client', thumbprint: null as never }, mine), {
      code: 'invalid_grant',
      rule: 'BIND-1',
    });
  });

  it('PROF-1: a profile may bind refresh tokens to the client instead, and then only so', async () => {
    const profile = defineProfile({ name: 'wallets', refreshTokenBinding: 'client' });
    const binding = bindingOf(mine, profile);
    expect(binding).toEqual({ clientId: 'client' });
    expect(() => assertBoundTo(binding, { ...mine, thumbprint: 'key-2' })).not.toThrow();
    await expectRefusal(() => assertBoundTo(binding, { ...mine, clientId: 'other' }), {
      code: 'invalid_grant',
      rule: 'BIND-1',
    });
  });
});

describe('binding of access tokens', () => {
  it.each([
    { name: 'bound to another key', token: { clientId: 'client', jkt: 'key-2' }, rule: 'BIND-1' },
    { name: 'of another client', token: { clientId: 'other', jkt: 'key-1' }, rule: 'VER-6' },
    { name: 'of another client, not bound', token: { clientId: 'other' }, rule: 'VER-6' },
  ])('BIND-1, VER-6: an access token $name is refused', async ({ token, rule }) => {
    await expectRefusal(() => assertTokenBoundTo(token, mine), { code: 'invalid_token', rule });
  });
  it.each([{ clientId: 'client', jkt: 'key-1' }, { jkt: 'key-1' }, { clientId: 'client' }])(
    'BIND-1: an access token of this instance is accepted: %o',
    (token) => expect(() => assertTokenBoundTo(token, mine)).not.toThrow(),
  );
});
