/** Binding of codes, refresh tokens and access tokens to the Client Instance Key (ABCA §10.3, §10.4). */
import { baseProfile, type Profile } from '../core/profile.ts';
import { AttestedError } from '../errors.ts';

/** What to store beside a refresh token, code or pushed request: the instance that it was issued to. */
export function bindingOf(
  client: { clientId: string; thumbprint: string },
  profile: Profile = baseProfile,
): { clientId: string; thumbprint?: string } {
  const { clientId, thumbprint } = client;
  return profile.refreshTokenBinding === 'instance-key' ? { clientId, thumbprint } : { clientId };
}

/**
 * Checks that an artifact is used by the instance it was issued to (BIND-1, BIND-2). Call it before the artifact is marked
 * as used: somebody else's attempt must not burn it.
 *
 * @throws AttestedError `invalid_grant`
 */
export function assertBoundTo(
  binding: { clientId: string; thumbprint?: string },
  client: { clientId: string; thumbprint: string },
): void {
  if (binding.clientId !== client.clientId) throw mismatch('client');
  if (binding.thumbprint !== undefined && binding.thumbprint !== client.thumbprint) throw mismatch('client instance');
}

/**
 * Checks that an access token belongs to the attested instance that presents it: its `cnf.jkt` (RFC 9449 §6) and its
 * `client_id`, where the token names one.
 *
 * @throws AttestedError `invalid_token`
 */
export function assertTokenBoundTo(
  token: { clientId?: string | undefined; jkt?: string | undefined },
  client: { clientId: string; thumbprint: string },
): void {
  if (token.clientId !== undefined && token.clientId !== client.clientId) {
    throw new AttestedError('invalid_token', 'the access token was issued to another client', { rule: 'VER-6' });
  }
  if (token.jkt !== undefined && token.jkt !== client.thumbprint) {
    throw new AttestedError('invalid_token', 'the access token is bound to another key than the attested one', {
      rule: 'BIND-1',
    });
  }
}

function mismatch(what: string): AttestedError {
  return new AttestedError('invalid_grant', `the grant was issued to another ${what}`, { rule: 'BIND-1' });
}
