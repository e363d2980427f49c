/** Which backend is opened, and that an identity stays where it is. */
import { resolve } from 'node:path';
import { AttestedError } from '../errors.ts';
import { backends, isWeaker, type KeyBackend, rememberBackend, rememberedBackend } from './backend.ts';
import { unavailable } from './files/faults.ts';
import { assertSecret, assertSecretName } from './labels.ts';
import type { OpenKeysOptions } from './options.ts';
import type { KeyProvider } from './provider.ts';
import { chooseTcti } from './tpm/tcti.ts';

type Openers = Readonly<Record<KeyBackend, (options: OpenKeysOptions) => Promise<KeyProvider>>>;
type Placed = OpenKeysOptions & { directory: string };

const NAMES: Readonly<Record<KeyBackend, string>> = {
  tpm: 'in the TPM',
  keychain: "in the operating system's keychain",
  software: 'in files',
};

/** The backend that the directory's keys are in, else the first that opens. */
export async function openBest(openers: Openers, options: Placed): Promise<KeyProvider> {
  const remembered = await rememberedBackend(resolve(options.directory));
  return remembered === undefined ? openFirst(openers, backends, options) : openAgain(openers, remembered, options);
}

/** The backend that the caller names: he may so move up, but down only where he says that he means it. */
export async function openNamed(openers: Openers, kind: KeyBackend, options: Placed): Promise<KeyProvider> {
  const home = resolve(options.directory);
  const remembered = await rememberedBackend(home);
  if (remembered !== undefined && isWeaker(kind, remembered) && options.downgrade !== 'allow') {
    throw unavailable(`the keys of ${home} are ${NAMES[remembered]}; ${howToGiveUp()}`);
  }
  return remembering(await openers[kind](options), home, () => true);
}

async function openAgain(openers: Openers, remembered: KeyBackend, options: Placed): Promise<KeyProvider> {
  const home = resolve(options.directory);
  try {
    const provider = await openers[remembered](options);
    const why = [
      `${remembered}: ${provider.why}`,
      'it was chosen when the first key was made',
      ...wayUp(remembered, options),
    ];
    return remembering({ ...provider, why: why.join('; ') }, home, () => false);
  } catch (error) {
    if (!isUnavailable(error) || remembered === 'software') throw error;
    if (options.downgrade === 'allow') {
      return openFirst(openers, backends.slice(backends.indexOf(remembered) + 1), options, [
        { kind: remembered, error },
      ]);
    }
    throw unavailable(
      `the keys of ${home} are ${NAMES[remembered]}, which cannot be used: ${error.message}; ${howToGiveUp()}`,
      error,
    );
  }
}

interface PassedOver {
  kind: KeyBackend;
  error: AttestedError;
}

/** Only a backend that is not there is passed over: a wrong passphrase or a damaged store must not lead to other keys. */
async function openFirst(
  openers: Openers,
  kinds: readonly KeyBackend[],
  options: Placed,
  before: readonly PassedOver[] = [],
): Promise<KeyProvider> {
  const passedOver = [...before];
  const reasons = () => passedOver.map(({ kind, error }) => `not ${kind}: ${error.message}`);
  for (const kind of kinds) {
    try {
      const provider = await openers[kind](options);
      const why = [`${kind}: ${provider.why}`, ...reasons()].join('; ');
      const given = before.map((passed) => passed.kind);
      return remembering({ ...provider, why }, resolve(options.directory), (other) => given.includes(other));
    } catch (error) {
      if (!isUnavailable(error)) throw kind === 'software' ? error : withAlternative(error);
      passedOver.push({ kind, error });
    }
  }
  throw new AttestedError('key_store_unavailable', `no place for keys; ${reasons().join('; ')}`, {
    cause: new AggregateError(passedOver.map(({ error }) => error)),
  });
}

/** The provider, which remembers itself in the directory before it makes the first key or keeps the first secret. */
function remembering(provider: KeyProvider, home: string, replaces: (remembered: KeyBackend) => boolean): KeyProvider {
  let remembered: Promise<void> | undefined;
  /** Once; what waits for it goes on in the order of the calls. */
  const remember = (): Promise<void> => {
    remembered ??= rememberBackend(home, provider.kind, replaces).catch((error: unknown) => {
      remembered = undefined;
      throw error;
    });
    return remembered;
  };
  return {
    ...provider,
    async createKey(request) {
      if (remembered === undefined) await provider.getKey(request.label); // what is refused leaves no trace
      await remember();
      return provider.createKey(request);
    },
    secrets: {
      ...provider.secrets,
      async set(name, secret) {
        assertSecretName(name);
        assertSecret(secret);
        const copy = Uint8Array.from(secret); // the caller's bytes may change while this one waits
        await remember();
        return provider.secrets.set(name, copy);
      },
    },
  };
}

function isUnavailable(error: unknown): error is AttestedError {
  return error instanceof AttestedError && error.code === 'key_store_unavailable';
}

function howToGiveUp(): string {
  return "to give up that identity and make weaker keys, open them with downgrade: 'allow'";
}

/** A locked keychain, say, is no reason to take files without a word, but no reason to be stuck either. */
function withAlternative(error: unknown): unknown {
  if (!(error instanceof AttestedError) || error.code !== 'key_store_locked') return error;
  const { message, cause } = error;
  return new AttestedError(
    'key_store_locked',
    `${message}; or name another place: openKeys('software', { directory })`,
    {
      cause,
    },
  );
}

/** A better place that is there. Only what can be seen without opening it: a keychain might ask the user for a password. */
function wayUp(remembered: KeyBackend, { tpm }: OpenKeysOptions): string[] {
  if (remembered === 'tpm') return [];
  try {
    chooseTcti(tpm?.tcti);
  } catch {
    return [];
  }
  return ["there is a TPM: openKeys('tpm', { directory }) makes new keys in it, and from then on they are used"];
}
