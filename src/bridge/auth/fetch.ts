/** A fetch for one MCP server whose requests carry a token, and the agent's attestation and proofs. */

import type { Agent } from '../../agent/agent.ts';
import { isRetryCode } from '../../core/oauth-errors.ts';
import type { FetchLike } from '../../platform/http.ts';
import { discard } from '../http.ts';
import type { Authorization } from './authorization.ts';
import { challengeOf } from './discovery.ts';
import type { Tokens } from './tokens.ts';

/** Refusals that another token would not mend. The agent's own fetch has tried again already where that helps. */
const NOT_THE_TOKEN: readonly string[] = ['invalid_client_attestation', 'invalid_dpop_proof', 'invalid_client'];

/**
 * A request gets other tokens once, and a wider scope once, however often the server refuses. Requests that are refused at
 * the same time share what is done about it.
 */
export function authorizedFetch(agent: Agent, authorization: Authorization): FetchLike {
  return async (url, init = {}) => {
    const send = (tokens: Tokens | undefined): Promise<Response> => {
      const headers = new Headers(init.headers);
      // the agent writes the scheme that the token is bound by
      if (tokens !== undefined) headers.set('authorization', `Bearer ${tokens.accessToken}`);
      return agent.fetch(url, { ...init, headers, redirect: 'manual' });
    };

    let tokens = await authorization.current();
    let response = await send(tokens);
    const tried = new Set<number>();
    while ((response.status === 401 || response.status === 403) && !tried.has(response.status)) {
      const challenge = challengeOf(response);
      const { error } = challenge;
      const isToken = error === undefined || !(NOT_THE_TOKEN.includes(error) || isRetryCode(error));
      const mends = response.status === 401 ? tokens === undefined || isToken : error === 'insufficient_scope';
      if (!mends) return response;
      tried.add(response.status);
      await discard(response);
      tokens = await authorization.renew(tokens, challenge);
      response = await send(tokens);
    }
    return response;
  };
}
