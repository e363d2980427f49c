/** Is the clock plausible? Without a network, what it can be held against is when files were written here. */
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { placeNames } from '../../keys/files/place.ts';
import { type Finding, finding } from './findings.ts';

export interface ClockReport {
  /** ISO 8601, UTC. */
  now: string;
  /** The newest of the files that were looked at, and when it was written. */
  newest?: { path: string; written: string };
}

/** A file may have been written a moment ago by a machine whose clock is a little ahead (NFS). Milliseconds. */
const TOLERANCE = 60_000;
/** This version was written after it. npm gives the files of a package a date of 1985, so they do not tell. */
const EARLIEST = Date.UTC(2026, 0, 1);
const LATEST = Date.UTC(2100, 0, 1);

/** Written by whatever has kept time here. */
const WITNESSES = ['/var/lib/systemd/timesync/clock', '/var/log/wtmp', '/etc/machine-id', process.execPath];

export async function examineClock(
  directory: string,
  now: number,
): Promise<{ report: ClockReport; findings: Finding[] }> {
  const files = [
    ...WITNESSES,
    fileURLToPath(import.meta.url),
    directory,
    ...['backend.json', ...Object.values(placeNames)].map((name) => join(directory, name)),
  ];
  const written = await Promise.all(
    files.map(async (path) => ({ path, time: (await stat(path).catch(() => undefined))?.mtimeMs ?? 0 })),
  );
  const newest = written.filter(({ time }) => time > 0 && time < LATEST).sort((a, b) => b.time - a.time)[0];
  const report: ClockReport = {
    now: new Date(now).toISOString(),
    ...(newest && { newest: { path: newest.path, written: new Date(newest.time).toISOString() } }),
  };
  return { report, findings: judge(now, newest) };
}

function judge(now: number, newest: { path: string; time: number } | undefined): Finding[] {
  const remedy = 'set the clock, best by NTP: timedatectl set-ntp true';
  if (newest !== undefined && now < newest.time - TOLERANCE) {
    const behind = Math.round((newest.time - now) / 60_000);
    return [
      finding('clock_wrong', `the clock is ${behind} minutes behind the time when ${newest.path} was written`, remedy),
    ];
  }
  if (now < EARLIEST || now > LATEST) return [finding('clock_wrong', 'the clock shows an impossible year', remedy)];
  return [];
}
