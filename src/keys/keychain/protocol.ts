/** What the parent and the keychain's helper process say to each other, over the channel that Node gives a fork. */
import type { KeyringEntries } from '../../native/keyring/index.ts';

export type Operation = keyof KeyringEntries;
export type Request = [id: number, operation: Operation, args: readonly unknown[]];
/** `fault`: the messages of an error and its causes. */
export type Response = { id: number; result: unknown } | { id: number; fault: string };
