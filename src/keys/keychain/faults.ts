/** What a keychain's refusals mean, and what to do about them. */
import { AttestedError, type ErrorCode } from '../../errors.ts';

const UNLOCK: Partial<Record<NodeJS.Platform, string>> = {
  darwin: 'unlock it with: security unlock-keychain',
  win32: 'sign in to Windows as the user that the program runs as',
};
const UNLOCK_ELSEWHERE =
  'log in to the desktop, or unlock it in this session with: gnome-keyring-daemon --replace --unlock --components=secrets';

function howToUnlock(): string {
  return UNLOCK[process.platform] ?? UNLOCK_ELSEWHERE;
}

interface Meaning {
  says: RegExp;
  code: ErrorCode;
  why: () => string;
}

/** The first that fits; texts of libdbus, zbus, the Secret Service libraries, macOS and Windows. */
const meanings: readonly Meaning[] = [
  {
    says: /not receive a reply|NoReply|timed ?out/i,
    code: 'key_store_unavailable',
    why: () => 'the keychain does not answer; restart the keyring daemon or log in again',
  },
  {
    says: /IsLocked|object locked|prompt (was )?dismissed|before prompt completed|interaction is not allowed/i,
    code: 'key_store_locked',
    why: () => `the keychain is locked; ${howToUnlock()}`,
  },
  {
    says: /denied|cancell?ed|authorization|auth ?failed/i,
    code: 'key_store_locked',
    why: () => `the keychain denied access; allow it when it asks, or ${howToUnlock()}`,
  },
  {
    says: /no result found/i,
    code: 'key_store_unavailable',
    why: () => `the keychain has no collection to keep keys in; to make one, ${howToUnlock()}`,
  },
  {
    says: /matched by \d+ credentials|ambiguous/i,
    code: 'key_store_corrupt',
    why: () => 'the keychain has more than one entry of this name; remove what another program wrote there',
  },
  {
    says: /not provided by any|ServiceUnknown|NameHasNoOwner|no secret service/i,
    code: 'key_store_unavailable',
    why: () => 'no keychain runs in this session: install and start gnome-keyring, KWallet or another Secret Service',
  },
  {
    says: /dbus|zbus|autolaunch|failed to connect/i,
    code: 'key_store_unavailable',
    why: () =>
      'there is no D-Bus session to reach a keychain through: run in a login session, set DBUS_SESSION_BUS_ADDRESS, or use dbus-run-session',
  },
  {
    says: /native binding|cannot find module|ERR_DLOPEN|unsupported (os|architecture)/i,
    code: 'key_store_unavailable',
    why: () => 'the package @napi-rs/keyring has no binary for this platform, or it was not installed',
  },
];

/** @param text what the system said; it becomes the cause, for it may hold paths and addresses */
export function keychainFault(text: string): AttestedError {
  const meaning = meanings.find(({ says }) => says.test(text));
  return new AttestedError(
    meaning?.code ?? 'key_store_unavailable',
    meaning?.why() ?? 'the keychain refused; its own words are in the cause',
    { cause: new Error(text) },
  );
}

export function noAnswer(milliseconds: number): AttestedError {
  const seconds = Math.round(milliseconds / 100) / 10;
  return new AttestedError(
    'key_store_locked',
    `the keychain did not answer within ${seconds} s, as when it waits for somebody to unlock it; ${howToUnlock()}`,
  );
}
