/** Fetching URLs that strangers chose: https only, and never into a private network (SSRF). */
import { lookup as systemLookup } from 'node:dns';
import { request } from 'node:https';
import { BlockList, isIP, type LookupFunction } from 'node:net';
import { Readable } from 'node:stream';
import { AttestedError } from '../errors.ts';
import type { FetchLike } from './http.ts';

/** IPv4 that is not the public Internet (RFC 6890 and what came after it). */
const PRIVATE_V4: readonly (readonly [string, number])[] = [
  ['0.0.0.0', 8],
  ['10.0.0.0', 8],
  ['100.64.0.0', 10],
  ['127.0.0.0', 8],
  ['169.254.0.0', 16],
  ['172.16.0.0', 12],
  ['192.0.0.0', 24],
  ['192.0.2.0', 24],
  ['192.88.99.0', 24],
  ['192.168.0.0', 16],
  ['198.18.0.0', 15],
  ['198.51.100.0', 24],
  ['203.0.113.0', 24],
  ['224.0.0.0', 4],
  ['240.0.0.0', 4],
];
/** Of IPv6 only global unicast is public; these parts of it are not, or lead to an IPv4 address inside. */
const PRIVATE_V6: readonly (readonly [string, number])[] = [
  ['2001::', 23],
  ['2001:db8::', 32],
  ['2002::', 16],
  ['3fff::', 20],
];

const blocked = new BlockList();
for (const [network, prefix] of PRIVATE_V4) blocked.addSubnet(network, prefix, 'ipv4');
for (const [network, prefix] of PRIVATE_V6) blocked.addSubnet(network, prefix, 'ipv6');
const globalUnicast = new BlockList();
globalUnicast.addSubnet('2000::', 3, 'ipv6');

/** Whether an IP address belongs to the public Internet. */
export function isPublicAddress(address: string): boolean {
  const family = isIP(address);
  if (family === 4) return !blocked.check(address, 'ipv4');
  return family === 6 && globalUnicast.check(address, 'ipv6') && !blocked.check(address, 'ipv6');
}

export interface PublicFetchOptions {
  /** Resolves names; in tests another one. */
  lookup?: LookupFunction;
  /** Which addresses may be reached. Default {@link isPublicAddress}. */
  mayReach?: (address: string) => boolean;
}

/**
 * A fetch for GET requests to URLs from outside. The name is resolved once, every address it has must be public, and the
 * connection goes to one of them: a second answer of a hostile DNS server changes nothing. Redirects are not followed.
 *
 * @returns a function that throws AttestedError `http_failed` for URLs that are not https, and private addresses
 */
export function publicFetch({
  lookup = systemLookup as LookupFunction,
  mayReach = isPublicAddress,
}: PublicFetchOptions = {}): FetchLike {
  const guarded: LookupFunction = (hostname, options, callback) => {
    lookup(hostname, { ...options, all: true }, (error, found) => {
      const addresses = typeof found === 'string' ? [{ address: found, family: isIP(found) }] : (found ?? []);
      const [first] = addresses;
      if (error !== null || first === undefined) return callback(error ?? refused(), '', 4);
      if (!addresses.every(({ address }) => mayReach(address))) return callback(refused(), '', 4);
      if (options.all) callback(null, addresses);
      else callback(null, first.address, first.family);
    });
  };
  return async (input, init = {}) => {
    const url = new URL(input);
    const host = url.hostname.replace(/^\[|\]$/g, '');
    if (url.protocol !== 'https:' || (isIP(host) !== 0 && !mayReach(host))) throw refused();
    if (init.method !== undefined && init.method !== 'GET') throw refused();
    return new Promise<Response>((resolve, reject) => {
      const headers = Object.fromEntries(new Headers(init.headers));
      const options = { headers, lookup: guarded, agent: false as const, signal: init.signal ?? undefined };
      const outgoing = request(url, options, (incoming) => {
        const { statusCode = 502, rawHeaders } = incoming;
        const received = new Headers();
        try {
          for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
            received.append(rawHeaders[i] as string, rawHeaders[i + 1] as string);
          }
          const empty = [101, 204, 205, 304].includes(statusCode);
          if (empty) incoming.resume();
          const body = empty ? null : (Readable.toWeb(incoming) as ReadableStream<Uint8Array>);
          resolve(new Response(body, { status: statusCode, headers: received }));
        } catch (error) {
          outgoing.destroy();
          reject(error);
        }
      });
      outgoing.once('error', reject);
      outgoing.end();
    });
  };
}

function refused(): AttestedError {
  return new AttestedError('http_failed', 'the address is not one of the public Internet', { rule: 'SSRF' });
}
