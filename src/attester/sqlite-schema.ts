/** Tables of the SQLite store. One entry per version of the file; an entry, once released, never changes. */
import type { DatabaseSync } from 'node:sqlite';
import { AttestedError } from '../errors.ts';

const migrations: readonly string[] = [
  `CREATE TABLE challenge (
     hash TEXT PRIMARY KEY,
     expires_at INTEGER NOT NULL,
     state TEXT
   ) STRICT, WITHOUT ROWID;
   CREATE INDEX challenge_by_expiry ON challenge (expires_at);

   CREATE TABLE token (
     hash TEXT PRIMARY KEY,
     client_id TEXT NOT NULL,
     name TEXT,
     expires_at INTEGER NOT NULL
   ) STRICT, WITHOUT ROWID;

   CREATE TABLE instance (
     sequence INTEGER PRIMARY KEY,
     instance_id TEXT NOT NULL UNIQUE,
     client_id TEXT NOT NULL,
     name TEXT,
     enrolment_thumbprint TEXT NOT NULL UNIQUE,
     enrolled_by TEXT NOT NULL CHECK (enrolled_by IN ('token', 'allow-list')),
     enrolled_at INTEGER NOT NULL,
     revoked_at INTEGER
   ) STRICT;

   CREATE TABLE key (
     thumbprint TEXT PRIMARY KEY,
     instance_id TEXT NOT NULL REFERENCES instance (instance_id),
     role TEXT NOT NULL CHECK (role IN ('enrolment', 'instance'))
   ) STRICT, WITHOUT ROWID;

   CREATE TABLE attestation (
     sequence INTEGER PRIMARY KEY,
     instance_id TEXT NOT NULL REFERENCES instance (instance_id),
     thumbprint TEXT NOT NULL REFERENCES key (thumbprint),
     list_index INTEGER UNIQUE,
     expires_at INTEGER NOT NULL
   ) STRICT;
   CREATE INDEX attestation_by_expiry ON attestation (expires_at);
   CREATE INDEX attestation_by_instance ON attestation (instance_id, expires_at);`,

  `CREATE TABLE device (
     instance_id TEXT PRIMARY KEY REFERENCES instance (instance_id),
     ek TEXT NOT NULL,
     ak TEXT NOT NULL,
     signer TEXT NOT NULL,
     clock INTEGER NOT NULL,
     reset_count INTEGER NOT NULL,
     restart_count INTEGER NOT NULL,
     safe INTEGER NOT NULL CHECK (safe IN (0, 1)),
     seen_at INTEGER NOT NULL
   ) STRICT, WITHOUT ROWID;`,
];

/** Brings a file to the newest version, whole or not at all. @throws AttestedError `store_unavailable` for a newer file */
export function migrate(database: DatabaseSync): void {
  if (versionOf(database) === migrations.length) return;
  database.exec('BEGIN EXCLUSIVE');
  try {
    const version = versionOf(database); // again, now that no other process can be at it
    if (version > migrations.length) {
      throw new AttestedError(
        'store_unavailable',
        'the attester store was written by a newer version of this software',
      );
    }
    for (const migration of migrations.slice(version)) database.exec(migration);
    database.exec(`PRAGMA user_version = ${migrations.length}`);
    database.exec('COMMIT');
  } catch (error) {
    rollBack(database);
    throw error;
  }
}

/** After some faults (disk full) SQLite has rolled back by itself, and doing it a second time is an error of its own. */
export function rollBack(database: DatabaseSync): void {
  try {
    database.exec('ROLLBACK');
  } catch {
    // the fault that led here is the one to report
  }
}

function versionOf(database: DatabaseSync): number {
  return database.prepare('PRAGMA user_version').get()?.user_version as number;
}
