/** A client's metadata document, made of what the operator says. */
import { signatureAlgorithms } from '../../core/algorithms.ts';
import type { JsonObject } from '../../core/json.ts';
import { authMethodOf, clientMetadata, POP_METHODS, type PopMethod } from '../../core/metadata.ts';
import { clientUrlFault, isHttpsUrl } from '../../platform/client-document.ts';
import { type Arguments, UsageError } from '../command.ts';

/** @throws UsageError for what no document may say */
export function writeDocument(args: Arguments): JsonObject {
  const url = args.text('url');
  if (url === undefined) throw new UsageError('client-metadata needs --url: where the document will be, or --check');
  const fault = clientUrlFault(url);
  if (fault !== undefined) throw new UsageError(`--url ${fault}`);
  const redirects = words(args.text('redirect-uri'));
  const grants = redirects.length > 0 ? ['authorization_code', 'refresh_token'] : ['client_credentials'];
  const [name, scope] = [args.text('name'), args.text('scope')];
  return {
    client_id: url,
    ...(name !== undefined && { client_name: name }),
    ...(scope !== undefined && { scope }),
    grant_types: grants,
    redirect_uris: redirects,
    response_types: redirects.length > 0 ? ['code'] : [],
    ...clientMetadata({
      popMethods: methodsOf(args),
      attestationAlgorithms: signatureAlgorithms,
      popAlgorithms: algorithmsOf(args),
    }),
    client_attesters: words(args.text('attester')).map(attesterOf),
  };
}

function methodsOf(args: Arguments): readonly PopMethod[] {
  const method = args.text('method');
  if (method === undefined) return POP_METHODS;
  const found = POP_METHODS.find((name) => name === method || authMethodOf[name] === method);
  if (found === undefined) throw new UsageError(`--method must be ${Object.values(authMethodOf).join(' or ')}`);
  return [found];
}

function algorithmsOf(args: Arguments): readonly string[] {
  const algorithms = words(args.text('alg') ?? 'ES256');
  if (!algorithms.every((alg) => (signatureAlgorithms as readonly string[]).includes(alg))) {
    throw new UsageError(`--alg takes names out of ${signatureAlgorithms.join(', ')}`);
  }
  return algorithms;
}

/** `ISSUER`, whose keys are at ISSUER/jwks as those of our attester are, or `ISSUER,JWKS_URI`. */
function attesterOf(text: string): JsonObject {
  const [, issuer = text, jwksUri = `${text.replace(/\/$/, '')}/jwks`] = /^(.+?),(https:\/\/.+)$/.exec(text) ?? [];
  if (!isHttpsUrl(jwksUri)) throw new UsageError('--attester must be an https URL, or ISSUER,JWKS_URI');
  return { issuer, jwks_uri: jwksUri };
}

/** No URI and no name in here has a space inside. */
function words(text = ''): string[] {
  return text.split(/\s+/).filter((word) => word !== '');
}
