/** Refused requests as rows of a table: what is forged, and what has to come of it. */
import { expect, vi } from 'vitest';
import type { ErrorCode } from '../../src/errors.ts';
import { randomId } from '../../src/platform/crypto.ts';
import { forbiddenFetch } from './http.ts';
import { type Changes, createWorld, expectRefused, type Sent, type World, type WorldOptions } from './world.ts';

export interface Row {
  name: string;
  /** Default `invalid_client_attestation`. */
  code?: ErrorCode;
  rule: string;
  /** Options of the verifier, where the default one will not do. */
  world?: () => WorldOptions;
  /** Changes to the honest tokens. */
  attestation?: ((world: World) => Changes) | undefined;
  pop?: ((world: World) => Changes) | undefined;
  dpop?: ((world: World) => Changes) | undefined;
  /** Changes to the honest request, after the tokens were made. */
  sent?: (honest: Sent, world: World) => Partial<Sent> | Promise<Partial<Sent>>;
}

/** Runs a row: refused as it says, no connection made, nothing spent. */
export async function expectRowRefused(row: Row, mode: 'pop' | 'combined' = 'pop'): Promise<void> {
  const fetch = forbiddenFetch();
  vi.stubGlobal('fetch', fetch);
  try {
    const world = createWorld(row.world?.());
    const { honest, attempt } = mode === 'pop' ? await popPair(row, world) : await combinedPair(row, world);
    Object.assign(attempt, await row.sent?.(honest, world));
    await expectRefused(world, attempt, { code: row.code ?? 'invalid_client_attestation', rule: row.rule }, honest);
    expect(fetch.calls).toEqual([]);
  } finally {
    vi.unstubAllGlobals();
  }
}

async function popPair(row: Row, world: World): Promise<{ honest: Sent; attempt: Sent }> {
  const once = { jti: randomId(), challenge: await world.challenge() };
  const honest = await world.sent({ pop: await world.pop({ payload: once }) });
  const attempt = { ...honest };
  if (row.attestation) attempt.attestation = await world.attestation(row.attestation(world));
  if (row.pop) {
    const changes = row.pop(world);
    attempt.pop = await world.pop({ ...changes, payload: { ...once, ...changes.payload } });
  }
  return { honest, attempt };
}

async function combinedPair(row: Row, world: World): Promise<{ honest: Sent; attempt: Sent }> {
  const once = { jti: randomId(), nonce: await world.nonce() };
  const honest = await world.sentCombined({ dpop: await world.dpop({ payload: once }) });
  const attempt = { ...honest };
  if (row.attestation) attempt.attestation = await world.attestation(row.attestation(world));
  if (row.dpop) {
    const changes = row.dpop(world);
    attempt.dpop = await world.dpop({ ...changes, payload: { ...once, ...changes.payload } });
  }
  return { honest, attempt };
}
