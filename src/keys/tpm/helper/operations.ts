/** What the helper does with the TPM, one function a request. Each may be run again from its beginning after a hiccup. */
import { createHash } from 'node:crypto';
import { TPM_CAP } from '../../../native/tpm2-tss/capabilities.ts';
import type { EsysHandle, ObjectAuth } from '../../../native/tpm2-tss/types.ts';
import type { KeyReference, Operation, Operations } from '../protocol.ts';
import { type Context, dropSessions } from './context.ts';

type Perform = {
  [O in Operation]: (
    context: Context,
    args: Operations[O]['args'],
    keys: readonly KeyReference[],
  ) => Promise<Operations[O]['result']>;
};

const ALL = 256;
const ENDORSEMENT_KEY = 'endorsement key';
/** PCRs that change between the quote and the reading are read again. */
const QUOTE_ATTEMPTS = 10;

export const operations: Perform = {
  async open({ esys, parents }) {
    const parent = await parents.current();
    const algorithms = await esys.getCapability(TPM_CAP.ALGS, 0, ALL);
    const curves = await esys.getCapability(TPM_CAP.ECC_CURVES, 0, ALL);
    return { parent, algorithms: algorithms.map(({ property }) => property), curves: curves.map(({ value }) => value) };
  },

  findParent: ({ parents }, [name]) => parents.use(name, async () => true as const),

  async create(context, [{ template, data, authValue, salted }]) {
    return context.parents.use(undefined, async (parent, name) => {
      const options = { ...(authValue && { authValue }), ...(data && { data }) };
      const encryptWith = salted ? { encryptWith: await saltedSession(context, name) } : {};
      return { ...(await context.esys.create(parent, template, { ...options, ...encryptWith })), parent: name };
    });
  },

  async pcrPolicy({ esys }, [pcrs, withAuthValue]) {
    const session = await esys.startSession({ type: 'trial' });
    try {
      await esys.policyPcr(session, pcrs);
      if (withAuthValue) await esys.policyAuthValue(session);
      return await esys.policyGetDigest(session);
    } finally {
      await esys.flush(session).catch(() => undefined);
    }
  },

  async sign(context, [digest], [key]) {
    const held = one(key);
    const object = await load(context, held);
    return authorized(context, held, (auth) => context.esys.sign(object, digest, auth && { auth }));
  },

  async unseal(context, _args, [key]) {
    const held = one(key);
    const object = await load(context, held);
    const auth = await valueAuth(context, held);
    return context.esys.unseal(object, auth && { auth });
  },

  async certify(context, [qualifyingData], [key, ak]) {
    const held = one(key);
    const [object, signer] = [await load(context, held), await load(context, one(ak))];
    // the object's ADMIN role: its auth value, also where its use is bound to PCRs
    const objectAuth = await valueAuth(context, held);
    return context.esys.certify(object, signer, qualifyingData, objectAuth && { objectAuth });
  },

  async quote(context, [qualifyingData, selection], [ak]) {
    const signer = await load(context, one(ak));
    for (let attempt = 1; ; attempt++) {
      const quote = await context.esys.quote(signer, qualifyingData, selection);
      const read = await context.esys.pcrRead(selection);
      const values = read.map(({ hash, values }) => ({ hash, pcrs: [...values] }));
      if (endsWithDigestOf(quote.attest, values) || attempt === QUOTE_ATTEMPTS) return { ...quote, values };
    }
  },

  async endorsementKey({ esys, slots }, [template]) {
    await slots.evict(ENDORSEMENT_KEY);
    let area: Uint8Array | undefined;
    await slots.hold(ENDORSEMENT_KEY, async () => {
      const primary = await esys.createPrimary('endorsement', template);
      area = primary.public;
      return primary.handle;
    });
    await slots.evict(ENDORSEMENT_KEY);
    return area as unknown as Uint8Array;
  },

  async activate(context, [{ template, hash, policyOr, credentialBlob, secret }], [ak]) {
    const { esys, slots } = context;
    const held = one(ak);
    const object = await load(context, held);
    await dropSessions(context);
    const objectAuth = await valueAuth(context, held); // in a salted session also what the credential gives is encrypted
    await slots.evict(ENDORSEMENT_KEY);
    const ek = await slots.hold(
      ENDORSEMENT_KEY,
      async () => (await esys.createPrimary('endorsement', template)).handle,
    );
    const session = await esys.startSession({ type: 'policy', hash });
    try {
      await esys.policySecret(session, 'endorsement');
      if (policyOr !== undefined) await esys.policyOr(session, policyOr);
      return await esys.activateCredential(object, ek, credentialBlob, secret, {
        ...(objectAuth && { objectAuth }),
        keyAuth: { session },
      });
    } finally {
      await esys.flush(session).catch(() => undefined);
      await slots.evict(ENDORSEMENT_KEY);
    }
  },

  nvRead: ({ esys }, [index]) => esys.nvRead(index),

  async capability({ esys, slots }, [capability, property, count]) {
    await slots.clear(); // what we hold ourselves is not to be counted
    return esys.getCapability(capability, property, count);
  },
};

function one(key: KeyReference | undefined): KeyReference {
  if (key === undefined) throw new TypeError('the request names no key');
  return key;
}

async function load({ esys, slots, parents }: Context, key: KeyReference): Promise<EsysHandle> {
  return slots.find(key.ref) ?? parents.use(key.parent, (parent) => slots.hold(key.ref, () => esys.load(parent, key)));
}

/** Runs a command that needs the key's USER role, with what the key was made to ask for. */
async function authorized<T>(
  context: Context,
  key: KeyReference,
  command: (auth: ObjectAuth | undefined) => Promise<T>,
): Promise<T> {
  if (key.pcrs === undefined) return command(await valueAuth(context, key));
  const session = await policySession(context, key);
  try {
    await context.esys.policyPcr(session, key.pcrs);
    if (key.authValue === undefined) return await command({ session });
    await context.esys.policyAuthValue(session);
    return await command({ session, authValue: key.authValue });
  } catch (error) {
    await dropSessions(context); // what a failure leaves in a policy session is not to be built on
    throw error;
  }
}

async function valueAuth(context: Context, key: KeyReference): Promise<ObjectAuth | undefined> {
  const authValue = key.authValue && { authValue: key.authValue };
  return key.salted ? { ...authValue, session: await saltedSession(context, key.parent) } : authValue;
}

/** An HMAC session whose nonces roll on from command to command: nothing that is secret crosses the bus in clear. */
function saltedSession(context: Context, parent: Uint8Array): Promise<EsysHandle> {
  return kept(context, 'salted', () =>
    context.parents.use(parent, (saltKey) => context.esys.startSession({ type: 'hmac', saltKey, encrypt: true })),
  );
}

function policySession(context: Context, key: KeyReference): Promise<EsysHandle> {
  if (!key.salted) return kept(context, 'policy', () => context.esys.startSession({ type: 'policy' }));
  return kept(context, 'salted policy', () =>
    context.parents.use(key.parent, (saltKey) => context.esys.startSession({ type: 'policy', saltKey, encrypt: true })),
  );
}

async function kept({ kept }: Context, name: string, start: () => Promise<EsysHandle>): Promise<EsysHandle> {
  const session = kept.get(name) ?? (await start());
  kept.set(name, session);
  return session;
}

/** TPMS_QUOTE_INFO ends with the digest of the values, and TPMS_ATTEST with the TPMS_QUOTE_INFO. Our AK's hash is SHA-256. */
function endsWithDigestOf(attest: Uint8Array, values: { pcrs: [number, Uint8Array][] }[]): boolean {
  const hash = createHash('sha256');
  for (const { pcrs } of values) for (const [, value] of pcrs.sort(([a], [b]) => a - b)) hash.update(value);
  const digest = hash.digest();
  return digest.equals(attest.subarray(-digest.length));
}
