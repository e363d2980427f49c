/** Requests to the TPM with their deadlines, and errors in the words of a key store. */
import { explain, type Subject } from './errors.ts';
import type { KeyReference, Operation, Operations } from './protocol.ts';
import type { TpmRequest } from './registry.ts';

/** Milliseconds for a signature, unless `tpm.deadline` says otherwise. */
export const DEADLINE = 20_000;

interface Row {
  /** Completes `the TPM could not …`. */
  doing: string;
  subject: Subject;
  /** How many times as long as a signature it may take: primes for an RSA key can take a TPM a minute. */
  deadlines: number;
}

const rows: Readonly<Record<Operation, Row>> = {
  open: { doing: 'be opened', subject: 'owner', deadlines: 1 },
  findParent: { doing: 'make its storage key', subject: 'owner', deadlines: 1 },
  create: { doing: 'make a key', subject: 'owner', deadlines: 6 },
  pcrPolicy: { doing: 'read its PCRs', subject: 'key', deadlines: 1 },
  sign: { doing: 'sign', subject: 'key', deadlines: 1 },
  unseal: { doing: 'unseal a secret', subject: 'key', deadlines: 1 },
  certify: { doing: 'certify a key', subject: 'key', deadlines: 1 },
  quote: { doing: 'quote its PCRs', subject: 'key', deadlines: 1 },
  endorsementKey: { doing: 'make its endorsement key', subject: 'endorsement', deadlines: 6 },
  activate: { doing: 'activate the credential', subject: 'endorsement', deadlines: 6 },
  nvRead: { doing: 'read its NV storage', subject: 'owner', deadlines: 1 },
  capability: { doing: 'tell its properties', subject: 'owner', deadlines: 1 },
};

export type Command = <O extends Operation>(
  operation: O,
  args: Operations[O]['args'],
  keys?: readonly KeyReference[],
) => Promise<Operations[O]['result']>;

/** @param deadline milliseconds for a signature */
export function createCommand(request: TpmRequest, deadline: number): Command {
  return async (operation, args, keys) => {
    const { doing, subject, deadlines } = rows[operation];
    try {
      return await request(operation, args, deadline * deadlines, keys);
    } catch (error) {
      throw explain(error, doing, subject);
    }
  };
}
