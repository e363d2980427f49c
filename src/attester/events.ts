/** What an attester tells its operator. No event holds a token, a challenge, a proof or a private key. */
import type { KeyEvidence, KeyStorage } from '../core/storage.ts';
import type { ErrorCode } from '../errors.ts';
import type { Instance } from './store.ts';

export type AttesterEvent =
  | { type: 'enrolled'; instance: Instance }
  | {
      type: 'issued';
      clientId: string;
      instanceId: string;
      instanceThumbprint: string;
      storage: KeyStorage;
      evidence: KeyEvidence;
      expiresAt: number;
    }
  | { type: 'revoked'; instance: Instance }
  /** An answer that was the asker's fault. `clientId` is what the request said, checked for its characters only. */
  | { type: 'refused'; code: ErrorCode; rule: string | undefined; message: string; clientId: string | undefined }
  /** An answer `temporarily_unavailable` that was ours: store, signer, policy. */
  | { type: 'fault'; error: unknown };

export type AttesterLog = (event: AttesterEvent) => void;

/** A log that cannot fail: a full disk under a log file must not undo or hide what has already been recorded. */
export function safeLog(log: AttesterLog | undefined): AttesterLog {
  return (event) => {
    try {
      log?.(event);
    } catch {
      // there is nowhere left to report it
    }
  };
}
