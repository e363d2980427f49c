/** One ESAPI context: its queue, its memory, and what a command does before and after the call. */
import type { Argument } from './arguments.ts';
import { readPointer, writeNumber } from './cells.ts';
import { NO_RESPONSE, TpmError } from './error.ts';
import { installHintHere } from './install.ts';
import { hasTctiModule, loadTss, type Pointer, type Tss } from './library.ts';
import type { EsysCommand, Structure } from './prototypes.ts';
import { createScratch, type Scratch, SLOT_BYTES } from './scratch.ts';
import type { EsysHandle, ObjectAuth } from './types.ts';
import { sized } from './wire.ts';

/** ESYS_TR_NONE, ESYS_TR_PASSWORD */
export const NONE = 0xfff;
const PASSWORD = 0xff;

/** TPMA_SESSION: continueSession, decrypt (the command's first parameter is encrypted), encrypt (the response's). */
const CONTINUE = 0x01;
const DECRYPT = 0x20;
const ENCRYPT = 0x40;

/** Which first parameters of a command are a TPM2B, and so can be encrypted. Others are refused with the attribute set. */
export interface Encryptable {
  command: boolean;
  response: boolean;
}

export interface SessionState {
  encrypt: boolean;
  continueSession: boolean;
}

/** What one command works with while the context is its own. */
export interface Io {
  /** A C structure made of wire bytes, which must be the whole of it. */
  input(structure: Structure, wire: Uint8Array): Uint8Array;
  /** Room for a number or handle that the command gives. */
  cell(): Uint8Array;
  /** A cell that holds a handle, for the functions that clear it. */
  handle(handle: EsysHandle): Uint8Array;
  /** Room for a pointer to a structure that the command gives; freed after the command. */
  result(): Uint8Array;
  /** The wire bytes of a structure that a command gave. */
  output(structure: Structure, result: Uint8Array): Uint8Array;
  /** Three sessions: one for each authorization, then one to encrypt with. An auth value lasts for this command only. */
  sessions(
    can: Encryptable,
    auths: readonly { object: EsysHandle; auth?: ObjectAuth | undefined }[],
    encryptWith?: EsysHandle,
  ): [EsysHandle, EsysHandle, EsysHandle];
  call(name: EsysCommand, ...args: readonly Argument[]): Promise<void>;
  quick(name: EsysCommand, ...args: readonly Argument[]): void;
}

export interface Context {
  /** Runs when all earlier ones have ended, whatever became of them. */
  exclusively<T>(run: (io: Io) => Promise<T>): Promise<T>;
  /** The sessions that were started here and not flushed. */
  sessions: Map<EsysHandle, SessionState>;
  close(): Promise<void>;
}

export async function openContext(tcti: string): Promise<Context> {
  if (typeof tcti !== 'string' || tcti === '' || tcti.length > 1024 || tcti.includes('\0')) {
    throw new TpmError(NO_RESPONSE, 'a TCTI is a name and its configuration, such as device:/dev/tpmrm0');
  }
  const tss = await loadTss();
  const scratch = createScratch();
  const connection = await tss.openTcti(scratch, tcti).catch((error: unknown) => reasonFor(error, tcti));
  const context = await tss.openContext(scratch, connection).catch(async (error: unknown) => {
    await tss.closeTcti(scratch, connection);
    throw error;
  });
  scratch.wipe();
  return createContext(tss, scratch, connection, context);
}

/** Modules that a package manager has; a misspelt name is not one of them, and gets the loader's own words. */
const packaged = /^(device|swtpm|mssim|tabrmd|cmd|pcap)$/;

/** The loader's code does not tell a missing module from a name that is none. */
async function reasonFor(error: unknown, tcti: string): Promise<never> {
  const name = tcti.split(':', 1)[0] as string;
  if (packaged.test(name) && !(await hasTctiModule(name))) {
    const message = `the TCTI module ${name} of tpm2-tss not found: ${await installHintHere(name)}`;
    throw new TpmError(NO_RESPONSE, message, error);
  }
  if (!(error instanceof TpmError)) throw error;
  throw new TpmError(
    error.code,
    `nothing answers where the TCTI points, or there is no such TCTI: ${error.message}`,
    error,
  );
}

function createContext(tss: Tss, scratch: Scratch, connection: Pointer, context: Pointer): Context {
  const sessions = new Map<EsysHandle, SessionState>();
  let tail: Promise<unknown> = Promise.resolve();
  let ending: Promise<void> | undefined;
  let lost: { code: number; said: string } | undefined;

  const refuse = (name: string, code: number): TpmError => {
    const said = `${name.replace('Esys_', '')}: ${tss.explain(code)} (0x${code.toString(16)})`;
    if (isLost(code)) lost = { code, said };
    return new TpmError(code, said);
  };

  const enqueue = <T>(run: () => Promise<T>): Promise<T> => {
    const done = tail.then(run);
    tail = done.catch(() => undefined);
    return done;
  };

  const exclusively = <T>(run: (io: Io) => Promise<T>): Promise<T> => {
    if (ending) return Promise.reject(new TpmError(NO_RESPONSE, 'the context is closed'));
    return enqueue(async () => {
      if (lost) throw new TpmError(lost.code, `the connection to the TPM is lost, open another context: ${lost.said}`);
      const { io, after } = createIo(tss, scratch, context, sessions, refuse);
      try {
        return await run(io);
      } catch (error) {
        if (error instanceof TpmError) throw error;
        throw new TpmError(NO_RESPONSE, 'an argument was refused before it reached the TPM', error);
      } finally {
        after();
        scratch.wipe();
      }
    });
  };

  const close = (): Promise<void> => {
    ending ??= enqueue(async () => {
      await tss.closeContext(scratch, context);
      await tss.closeTcti(scratch, connection);
      scratch.wipe();
      sessions.clear();
    });
    return ending;
  };
  return { exclusively, sessions, close };
}

/**
 * After an error of the transport (TCTI layer) an ESAPI context refuses every command with BAD_SEQUENCE for ever. The queue
 * makes sure that nothing else leads to that code, so both say that this context is at its end.
 */
function isLost(code: number): boolean {
  return (code & 0xff0000) === 0x0a0000 || code === 0x070007;
}

function createIo(
  tss: Tss,
  scratch: Scratch,
  context: Pointer,
  known: Map<EsysHandle, SessionState>,
  refuse: (name: string, code: number) => TpmError,
): { io: Io; after: () => void } {
  const results: Uint8Array[] = [];
  const withAuth: EsysHandle[] = [];
  const once: EsysHandle[] = [];

  const setAuth = (object: EsysHandle, value: Uint8Array): number =>
    tss.quick(scratch, context, 'Esys_TR_SetAuth', [object, io.input('TPM2B_AUTH', sized(value))]);

  const prepare = (session: EsysHandle, can: Encryptable): EsysHandle => {
    const state = known.get(session);
    if (!state) return session;
    const flags = (state.continueSession ? CONTINUE : 0) | (state.encrypt ? encryption(can) : 0);
    io.quick('Esys_TRSess_SetAttributes', session, flags, CONTINUE | DECRYPT | ENCRYPT);
    if (!state.continueSession) once.push(session);
    return session;
  };

  const io: Io = {
    input(structure, wire) {
      if (!(wire instanceof Uint8Array)) throw new TypeError(`the bytes of a ${structure} are a Uint8Array`);
      if (wire.length > SLOT_BYTES) throw new RangeError(`too many bytes for a ${structure}`);
      const into = scratch.slot();
      scratch.wire.set(wire);
      const code = tss.unmarshal(scratch, structure, wire.length, into);
      scratch.wire.fill(0, 0, wire.length);
      if (code !== 0) throw refuse(structure, code);
      return into;
    },
    cell: scratch.cell,
    handle(handle) {
      const cell = scratch.cell();
      writeNumber(cell, handle);
      return cell;
    },
    result() {
      const cell = scratch.cell();
      results.push(cell);
      return cell;
    },
    output(structure, result) {
      const { code, length } = tss.marshal(scratch, structure, readPointer(result));
      const wire = scratch.wire.slice(0, length);
      scratch.wire.fill(0, 0, length);
      if (code !== 0) throw refuse(structure, code);
      return wire;
    },
    sessions(can, auths, encryptWith) {
      const used = auths.map(({ object, auth }) => {
        if (auth?.authValue?.length) {
          const code = setAuth(object, auth.authValue);
          if (code !== 0) throw refuse('TR_SetAuth', code);
          withAuth.push(object);
        }
        return auth?.session === undefined ? PASSWORD : prepare(auth.session, can);
      });
      if (encryptWith !== undefined && !used.includes(encryptWith)) used.push(prepare(encryptWith, can));
      return [used[0] ?? NONE, used[1] ?? NONE, used[2] ?? NONE];
    },
    async call(name, ...args) {
      const code = await tss.command(scratch, context, name, args);
      if (code !== 0) throw refuse(name, code);
      for (const session of once) known.delete(session); // the TPM has ended them
    },
    quick(name, ...args) {
      const code = tss.quick(scratch, context, name, args);
      if (code !== 0) throw refuse(name, code);
    },
  };

  const after = (): void => {
    for (const result of results) {
      const pointer = readPointer(result);
      if (pointer !== 0n) tss.free(pointer);
    }
    scratch.wipe();
    for (const object of withAuth) setAuth(object, new Uint8Array(0));
  };
  return { io, after };
}

function encryption(can: Encryptable): number {
  return (can.command ? DECRYPT : 0) | (can.response ? ENCRYPT : 0);
}
