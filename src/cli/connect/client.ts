/** The attested client behind `connect` and `proxy`: keys, agent, tokens, and a fetch that uses them. */
import { createAgent } from '../../agent/index.ts';
import { selfAttester } from '../../attester/index.ts';
import { authorizedFetch, openAuthorization, openInBrowser, withinServer } from '../../bridge/index.ts';
import { defaultDirectory, type KeyProvider, openKeys } from '../../keys/index.ts';
import type { FetchLike } from '../../platform/http.ts';
import { UsageError } from '../command.ts';
import { type Io, visible } from '../io.ts';
import type { Settings } from './settings.ts';

export interface Client {
  /** For the MCP server only. */
  fetch: FetchLike;
  /** Writes what is to be kept, and lets go of the keys. */
  close(): Promise<void>;
}

/** @param log gets one line at a time, without names or values that a terminal would obey */
export async function openClient(settings: Settings, io: Io, signal: AbortSignal): Promise<Client> {
  const { clientId, server, loginTimeout, redirectPort } = settings;
  const log = logger(io);
  const keys = await openKeys(settings.keys, placeOf(settings));
  try {
    const agent = await createAgent({
      clientId,
      keys,
      attester: await attesterOf(settings, keys),
      method: settings.method,
      enrolmentToken: settings.enrolmentToken,
      onWarning: ({ message }) => log(message),
    });
    const authorization = openAuthorization({
      agent,
      keys,
      server,
      grant: settings.grant,
      scope: settings.scope,
      issuer: settings.issuer,
      login: { show: (page) => show(page, settings, log), timeout: loginTimeout, port: redirectPort, signal },
      log,
      now: io.now,
    });
    return {
      fetch: withinServer(authorizedFetch(agent, authorization), server),
      async close() {
        await agent.close();
        await keys.close();
      },
    };
  } catch (error) {
    await keys.close();
    throw error;
  }
}

export function logger(io: Io): (text: string) => void {
  return (text) => io.err(`attested: ${visible(text)}\n`);
}

function show(page: URL, { server, browser }: Settings, log: (text: string) => void): void {
  log(`${server.origin} wants somebody to sign in at ${page.origin}`);
  const print = () => log(`open this page: ${page.href}`);
  if (browser) openInBrowser(page, print);
  else print();
}

function placeOf({ keys, directory, passphrase }: Settings): { directory?: string; passphrase?: string } {
  // software keys without a place would live in memory and be gone with the process
  const place = directory ?? (keys === 'auto' ? undefined : defaultDirectory());
  return { ...(place !== undefined && { directory: place }), ...(passphrase !== undefined && { passphrase }) };
}

async function attesterOf({ attester, clientId }: Settings, keys: KeyProvider) {
  if ('url' in attester) return attester.url;
  const signer = await keys.getKey(attester.selfKey);
  if (signer === undefined) {
    throw new UsageError('there is no key of that label; `attested keygen --label LABEL` makes one');
  }
  return selfAttester({ clientId, signer });
}
