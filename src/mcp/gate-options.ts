/** What the gate is given, judged when it is given. */
import { AttestedError } from '../errors.ts';
import type { RequireAttestedAgentOptions } from './gate.ts';

/** A word that means nothing would be read as the weaker choice. */
const BINDINGS: readonly unknown[] = [undefined, 'when-bound', 'instance', 'client'];

/** @throws AttestedError `invalid_argument` */
export function assertUsable(options: RequireAttestedAgentOptions | undefined): void {
  const { verifier, verifyAccessToken, requiredScopes = [], binding, resourceMetadataUrl } = options ?? {};
  const wrong: readonly [boolean, string][] = [
    [verifier?.role !== 'rs', "the verifier of an MCP server has the role 'rs' and its resource as audience"],
    [!/^https?:/.test(verifier?.audience ?? ''), "the audience of the verifier must be this server's URL"],
    [
      typeof (
        (verifyAccessToken as { verifyAccessToken?: unknown } | undefined)?.verifyAccessToken ?? verifyAccessToken
      ) !== 'function',
      'verifyAccessToken must say whose a token is: jwtAccessTokens(…), or a function of your own',
    ],
    [!BINDINGS.includes(binding), "binding must be 'when-bound', 'instance' or 'client'"],
    [!Array.isArray(requiredScopes), 'requiredScopes must be a list'],
    [resourceMetadataUrl !== undefined && !URL.canParse(resourceMetadataUrl), 'resourceMetadataUrl must be a URL'],
  ];
  for (const [isWrong, why] of wrong) if (isWrong) throw new AttestedError('invalid_argument', why);
}
