/**
 * The attester's memory in one SQLite file, through Node's own `node:sqlite`. Several processes on one machine may share
 * the file. Every commit is flushed to disk (`synchronous = FULL`), so that what was answered is never forgotten.
 */
import { chmodSync, closeSync, mkdirSync, openSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import type { DatabaseSync, SQLOutputValue } from 'node:sqlite';
import type { JsonObject } from '../core/json.ts';
import { AttestedError } from '../errors.ts';
import {
  deviceAfter,
  enrolledInstance,
  type KeyRole,
  type PinnedDevice,
  refusalOf,
  statementOf,
} from './issue-rules.ts';
import { migrate, rollBack } from './sqlite-schema.ts';
import {
  type AttesterStore,
  ENTRY_GRACE,
  type Instance,
  type IssueOutcome,
  type IssueRequest,
  type NewToken,
} from './store.ts';

export interface SqliteStoreOptions {
  /** Made, with mode 0600, when it is not there; so is its directory, with mode 0700. */
  path: string;
  /** How long a step waits for another process's step, milliseconds. Default 2000. This process waits too. */
  busyTimeout?: number;
}

type Row = Record<string, SQLOutputValue>;

/**
 * Opens the store.
 *
 * @throws AttestedError `store_unavailable` when the file cannot be opened, is not a store, or is of a newer version
 */
export function sqliteStore(options: string | SqliteStoreOptions): AttesterStore {
  const { path, busyTimeout = 2000 } = typeof options === 'string' ? { path: options } : options;
  const { database, statements } = attempt(() => openDatabase(resolve(path), busyTimeout));
  let open = true;

  /** Runs work as one transaction, that of one process at a time. */
  const atomically = async <T>(work: () => T): Promise<T> =>
    attempt(() => {
      database.exec('BEGIN IMMEDIATE');
      try {
        const result = work();
        database.exec('COMMIT');
        return result;
      } catch (error) {
        rollBack(database);
        throw error;
      }
    });

  const issue = (request: IssueRequest): IssueOutcome => {
    const { now, enrolmentThumbprint, instanceThumbprint, tokenHash } = request;
    statements.dropAttestations.run(now - 2 * ENTRY_GRACE);
    const enrolmentKey = statements.keyOwner.get(enrolmentThumbprint);
    const known = enrolmentKey && instanceOf(enrolmentKey);
    const pinned = enrolmentKey && deviceOf(enrolmentKey);
    const instanceKey = statements.keyOwner.get(instanceThumbprint);
    const live = known && statements.countLive.get(instanceThumbprint, known.instanceId, now);
    const token = tokenHash === undefined ? undefined : tokenOf(statements.token.get(tokenHash));
    const why = refusalOf(request, {
      enrolmentKey: known && { owner: known, role: enrolmentKey?.role as KeyRole },
      instanceKey: instanceKey && { instanceId: instanceKey.instance_id as string, role: instanceKey.role as KeyRole },
      token,
      liveKeys: Number(live?.keys ?? 0),
      liveAttestations: Number(live?.attestations ?? 0),
      device: pinned,
    });
    if (why !== undefined) return { issued: false, why };
    const index = request.indexes.find((candidate) => statements.indexTaken.get(candidate) === undefined);
    if (index === undefined && request.indexes.length > 0) return { issued: false, why: 'index-taken' };

    const instance = known ?? enrolledInstance(request, token);
    const { instanceId } = instance;
    if (known === undefined) {
      const { clientId, name, enrolledBy, enrolledAt } = instance;
      statements.addInstance.run(instanceId, clientId, name ?? null, enrolmentThumbprint, enrolledBy, enrolledAt);
      statements.addKey.run(enrolmentThumbprint, instanceId, 'enrolment');
      if (enrolledBy === 'token') statements.dropToken.run(tokenHash as string);
    }
    statements.addKey.run(instanceThumbprint, instanceId, 'instance');
    statements.addAttestation.run(instanceId, instanceThumbprint, index ?? null, request.expiresAt);
    const device = deviceAfter(request, pinned);
    if (device !== undefined) {
      const { ek, ak, signer, clock, seenAt } = device;
      const { resetCount, restartCount, safe } = clock;
      statements.pinDevice.run(instanceId, ek, ak, signer, clock.clock, resetCount, restartCount, safe ? 1 : 0, seenAt);
    }
    const issuedTo = { ...instance, device: statementOf(device) };
    return { issued: true, instance: issuedTo, enrolled: known === undefined, index };
  };

  return {
    putChallenge: ({ hash, expiresAt, state }, { now, max }) =>
      atomically(() => {
        statements.dropChallenges.run(now);
        if (Number(statements.countChallenges.get()?.count) >= max) return false;
        statements.addChallenge.run(hash, expiresAt, state === undefined ? null : JSON.stringify(state));
        return true;
      }),
    takeChallenge: (hash, now) =>
      atomically(() => {
        const row = statements.takeChallenge.get(hash);
        if (row === undefined || (row.expires_at as number) <= now) return undefined;
        return { state: row.state === null ? undefined : (JSON.parse(row.state as string) as JsonObject) };
      }),
    putToken: ({ hash, clientId, name, expiresAt }, now) =>
      atomically(() => {
        statements.dropTokens.run(now);
        statements.addToken.run(hash, clientId, name ?? null, expiresAt);
      }),
    issue: (request) => atomically(() => issue(request)),
    device: async (enrolmentThumbprint) =>
      attempt(() => {
        const row = statements.keyOwner.get(enrolmentThumbprint);
        return row?.role === 'enrolment' ? statementOf(deviceOf(row)) : undefined;
      }),
    revoke: (target, now) =>
      atomically(() => {
        const row =
          'instanceId' in target
            ? statements.instance.get(target.instanceId)
            : statements.keyOwner.get(target.thumbprint);
        if (row === undefined) return undefined;
        const instance = instanceOf(row);
        statements.revoke.run(now, instance.instanceId);
        return { ...instance, revokedAt: instance.revokedAt ?? now };
      }),
    instances: async () => attempt(() => statements.instances.all().map(instanceOf)),
    revokedIndexes: async (now) =>
      attempt(() => statements.revokedIndexes.all(now - ENTRY_GRACE).map((row) => row.list_index as number)),
    close: async () => {
      if (open) attempt(() => database.close());
      open = false;
    },
  };
}

interface Opened {
  database: DatabaseSync;
  statements: ReturnType<typeof prepareAll>;
}

function openDatabase(path: string, busyTimeout: number): Opened {
  // not a static import: Node 22 prints an ExperimentalWarning when the module loads, which other users need not see
  const { DatabaseSync } = process.getBuiltinModule('node:sqlite');
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  // made here and not by SQLite, which follows the umask; its side files take over the mode of this one
  closeSync(openSync(path, 'a', 0o600));
  chmodSync(path, 0o600);
  const database = new DatabaseSync(path);
  try {
    database.exec(`PRAGMA busy_timeout = ${Math.floor(busyTimeout)}`);
    database.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON');
    migrate(database);
    return { database, statements: prepareAll(database) };
  } catch (error) {
    database.close();
    throw error;
  }
}

const DEVICE = 'LEFT JOIN device USING (instance_id)';
const INSTANCE_COLUMNS = 'instance.*, ek, ak, signer, clock, reset_count, restart_count, safe, seen_at';

function prepareAll(database: DatabaseSync) {
  const sql = (text: string) => database.prepare(text);
  return {
    dropChallenges: sql('DELETE FROM challenge WHERE expires_at <= ?'),
    countChallenges: sql('SELECT count(*) AS count FROM challenge'),
    addChallenge: sql('INSERT INTO challenge (hash, expires_at, state) VALUES (?, ?, ?)'),
    takeChallenge: sql('DELETE FROM challenge WHERE hash = ? RETURNING expires_at, state'),
    dropTokens: sql('DELETE FROM token WHERE expires_at <= ?'),
    addToken: sql('INSERT INTO token (hash, client_id, name, expires_at) VALUES (?, ?, ?, ?)'),
    token: sql('SELECT * FROM token WHERE hash = ?'),
    dropToken: sql('DELETE FROM token WHERE hash = ?'),
    keyOwner: sql(
      `SELECT key.role, ${INSTANCE_COLUMNS} FROM key JOIN instance USING (instance_id) ${DEVICE} WHERE key.thumbprint = ?`,
    ),
    addKey: sql('INSERT INTO key (thumbprint, instance_id, role) VALUES (?, ?, ?) ON CONFLICT DO NOTHING'),
    instance: sql(`SELECT ${INSTANCE_COLUMNS} FROM instance ${DEVICE} WHERE instance.instance_id = ?`),
    instances: sql(`SELECT ${INSTANCE_COLUMNS} FROM instance ${DEVICE} ORDER BY sequence`),
    addInstance: sql(
      `INSERT INTO instance (instance_id, client_id, name, enrolment_thumbprint, enrolled_by, enrolled_at)
       VALUES (?, ?, ?, ?, ?, ?)`,
    ),
    pinDevice: sql(
      `INSERT OR REPLACE INTO device (instance_id, ek, ak, signer, clock, reset_count, restart_count, safe, seen_at)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
    ),
    revoke: sql('UPDATE instance SET revoked_at = ? WHERE instance_id = ? AND revoked_at IS NULL'),
    countLive: sql(
      `SELECT count(*) AS attestations, count(DISTINCT nullif(thumbprint, ?)) AS keys
       FROM attestation WHERE instance_id = ? AND expires_at > ?`,
    ),
    indexTaken: sql('SELECT 1 FROM attestation WHERE list_index = ?'),
    addAttestation: sql(
      'INSERT INTO attestation (instance_id, thumbprint, list_index, expires_at) VALUES (?, ?, ?, ?)',
    ),
    dropAttestations: sql('DELETE FROM attestation WHERE expires_at <= ?'),
    revokedIndexes: sql(
      `SELECT list_index FROM attestation JOIN instance USING (instance_id)
       WHERE revoked_at IS NOT NULL AND list_index IS NOT NULL AND expires_at > ?`,
    ),
  };
}

function instanceOf(row: Row): Instance {
  return {
    instanceId: row.instance_id as string,
    clientId: row.client_id as string,
    enrolmentThumbprint: row.enrolment_thumbprint as string,
    name: (row.name as string | null) ?? undefined,
    enrolledBy: row.enrolled_by as Instance['enrolledBy'],
    enrolledAt: row.enrolled_at as number,
    revokedAt: (row.revoked_at as number | null) ?? undefined,
    device: statementOf(deviceOf(row)),
  };
}

function deviceOf(row: Row): PinnedDevice | undefined {
  if (row.ek === null) return undefined;
  return {
    ek: row.ek as string,
    ak: row.ak as string,
    signer: row.signer as string,
    clock: {
      clock: row.clock as number,
      resetCount: row.reset_count as number,
      restartCount: row.restart_count as number,
      safe: row.safe === 1,
    },
    seenAt: row.seen_at as number,
  };
}

function tokenOf(row: Row | undefined): NewToken | undefined {
  return (
    row && {
      hash: row.hash as string,
      clientId: row.client_id as string,
      name: (row.name as string | null) ?? undefined,
      expiresAt: row.expires_at as number,
    }
  );
}

/** Whatever goes wrong in SQLite or the file system is one thing to the attester: no store, so no attestation. */
function attempt<T>(work: () => T): T {
  try {
    return work();
  } catch (cause) {
    if (cause instanceof AttestedError) throw cause;
    throw new AttestedError('store_unavailable', 'the attester store cannot do its work', { cause });
  }
}
