/** Finds and loads tpm2-tss, and calls its functions with arguments that were checked against their prototypes. */
import { type Argument, check } from './arguments.ts';
import { readPointer, writePointer } from './cells.ts';
import { NO_RESPONSE, TpmError } from './error.ts';
import { installHintHere } from './install.ts';
import {
  type EsysCommand,
  esysCommands,
  type Kind,
  kinds,
  type LibraryName,
  libraryFiles,
  type Structure,
  structures,
} from './prototypes.ts';
import type { Scratch } from './scratch.ts';

/** What koffi makes of a C function. `.async` runs it on a thread of koffi's own. */
interface NativeFunction {
  (...args: unknown[]): unknown;
  async(...args: unknown[]): void;
}

/** A pointer that the library gave. */
export type Pointer = bigint;

export interface Tss {
  /** A TCTI by its name and configuration; gives the TSS2_TCTI_CONTEXT. */
  openTcti(scratch: Scratch, tcti: string): Promise<Pointer>;
  closeTcti(scratch: Scratch, tcti: Pointer): Promise<void>;
  openContext(scratch: Scratch, tcti: Pointer): Promise<Pointer>;
  closeContext(scratch: Scratch, context: Pointer): Promise<void>;
  /** On a thread of its own, because a TPM may take its time. Gives the TSS2_RC. */
  command(scratch: Scratch, context: Pointer, name: EsysCommand, args: readonly Argument[]): Promise<number>;
  /** At once; for the functions that ask the TPM nothing. */
  quick(scratch: Scratch, context: Pointer, name: EsysCommand, args: readonly Argument[]): number;
  /** Wire bytes → C structure. `length` bytes of the scratch's wire; `into` must be zeroed. */
  unmarshal(scratch: Scratch, structure: Structure, length: number, into: Uint8Array): number;
  /** C structure → wire bytes, in the scratch's wire. */
  marshal(scratch: Scratch, structure: Structure, from: Pointer): { code: number; length: number };
  free(pointer: Pointer): void;
  /** A response code in words. */
  explain(code: number): string;
}

let loaded: Promise<Tss> | undefined;

/** @throws TpmError with what to install, where koffi or the libraries are missing */
export function loadTss(): Promise<Tss> {
  loaded ??= load();
  loaded.catch(() => {
    loaded = undefined; // somebody may install it
  });
  return loaded;
}

// ESAPI and OpenSSL below it were written for a thread's usual stack; koffi gives an asynchronous call 128 KiB.
const ASYNC_STACK_BYTES = 1 << 20;

async function load(): Promise<Tss> {
  // The libraries would write every refusal of the TPM to the standard error; they read this once, when they load.
  process.env.TSS2_LOG ??= 'all+NONE';
  const koffi = await import('koffi').catch((cause: unknown) => {
    throw new TpmError(NO_RESPONSE, 'koffi, through which tpm2-tss is called, does not load on this platform', cause);
  });
  try {
    koffi.config({ async_stack_size: ASYNC_STACK_BYTES });
  } catch {
    // Somebody in this process has loaded a library through koffi already, and has settled the sizes for all.
  }
  const libraries = new Map<LibraryName, ReturnType<typeof koffi.load>>();
  const failures: unknown[] = [];
  for (const name of ['mu', 'esys', 'tctildr', 'rc'] as const) {
    for (const file of filesOf(name)) {
      try {
        libraries.set(name, koffi.load(file));
        break;
      } catch (cause) {
        failures.push(cause);
      }
    }
  }
  const missing = (['mu', 'esys', 'tctildr'] as const).filter((name) => !libraries.has(name));
  if (missing.length > 0) {
    const names = missing.map((name) => filesOf(name)[0]).join(', ');
    throw new TpmError(NO_RESPONSE, `tpm2-tss not found (${names}): ${await installHintHere()}`, failures[0]);
  }
  const declare = (library: LibraryName, name: string, result: string, parameters: readonly Kind[]): NativeFunction => {
    const types = parameters.map((kind) => kinds[kind]);
    return libraries.get(library)?.func(name, result, types) as NativeFunction;
  };
  return bind(declare, libraries.has('rc'));
}

function filesOf(library: string): readonly string[] {
  return (libraryFiles[process.platform as 'linux'] ?? libraryFiles.linux)(library);
}

/** Whether a TCTI module of this name can be loaded, as the TCTI loader would look for it. */
export async function hasTctiModule(name: string): Promise<boolean> {
  const koffi = await import('koffi');
  return filesOf(`tcti-${name}`).some((file) => {
    try {
      koffi.load(file);
      return true;
    } catch {
      return false;
    }
  });
}

function bind(
  declare: (library: LibraryName, name: string, result: string, parameters: readonly Kind[]) => NativeFunction,
  hasRc: boolean,
): Tss {
  const initializeTcti = declare('tctildr', 'Tss2_TctiLdr_Initialize', 'uint32_t', ['text', 'cell']);
  const finalizeTcti = declare('tctildr', 'Tss2_TctiLdr_Finalize', 'void', ['cell']);
  const initialize = declare('esys', 'Esys_Initialize', 'uint32_t', ['cell', 'pointer', 'memoryOrNull']);
  const finalize = declare('esys', 'Esys_Finalize', 'void', ['cell']);
  const free = declare('esys', 'Esys_Free', 'void', ['pointer']);
  const decode = hasRc ? declare('rc', 'Tss2_RC_Decode', 'str', ['u32']) : undefined;
  const esys = Object.fromEntries(
    Object.entries(esysCommands).map(([name, parameters]) => [
      name,
      declare('esys', name, 'uint32_t', ['pointer', ...parameters]),
    ]),
  ) as Record<EsysCommand, NativeFunction>;
  const mu = Object.fromEntries(
    structures.map((name) => [
      name,
      {
        marshal: declare('mu', `Tss2_MU_${name}_Marshal`, 'uint32_t', ['pointer', 'memory', 'size', 'cell']),
        unmarshal: declare('mu', `Tss2_MU_${name}_Unmarshal`, 'uint32_t', ['memory', 'size', 'cell', 'memory']),
      },
    ]),
  ) as Record<Structure, { marshal: NativeFunction; unmarshal: NativeFunction }>;

  /** A context's functions take the address of their pointer, to make it NULL. */
  const end = async (scratch: Scratch, close: NativeFunction, pointer: Pointer): Promise<void> => {
    const cell = scratch.cell();
    writePointer(cell, pointer);
    await later(scratch, close, [cell]);
  };
  const start = async (
    scratch: Scratch,
    open: NativeFunction,
    args: (cell: Uint8Array) => unknown[],
  ): Promise<Pointer> => {
    const cell = scratch.cell();
    const code = Number(await later(scratch, open, args(cell)));
    const pointer = readPointer(cell);
    if (code !== 0) throw new TpmError(code, `${explain(code)} (0x${code.toString(16)})`);
    return pointer;
  };
  const explain = (code: number): string => (decode ? String(decode(code)) : 'refused');
  return {
    openTcti: (scratch, tcti) => start(scratch, initializeTcti, (cell) => [tcti, cell]),
    closeTcti: (scratch, tcti) => end(scratch, finalizeTcti, tcti),
    openContext: (scratch, tcti) => start(scratch, initialize, (cell) => [cell, tcti, null]),
    closeContext: (scratch, context) => end(scratch, finalize, context),
    async command(scratch, context, name, args) {
      check(scratch, name, args);
      return Number(await later(scratch, esys[name], [context, ...args]));
    },
    quick(scratch, context, name, args) {
      check(scratch, name, args);
      return Number(esys[name](context, ...args));
    },
    unmarshal(scratch, structure, length, into) {
      const offset = scratch.offset.fill(0);
      const code = Number(mu[structure].unmarshal(scratch.wire, length, offset, into));
      // The library stops where the structure ends and does not mind what follows.
      return code === 0 && Number(readPointer(offset)) !== length ? MU_BAD_SIZE : code;
    },
    marshal(scratch, structure, from) {
      const offset = scratch.offset.fill(0);
      const code = Number(mu[structure].marshal(from, scratch.wire, scratch.wire.length, offset));
      return { code, length: Number(readPointer(offset)) };
    },
    free: (pointer) => void free(pointer),
    explain,
  };
}

/** TSS2_MU_RC_BAD_SIZE */
const MU_BAD_SIZE = 0x90010;

// Held until the callback: koffi would let the garbage collector take the memory of a call that is under way.
const underWay = new Set<unknown>();

function later(scratch: Scratch, call: NativeFunction, args: readonly unknown[]): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const held = [scratch, args];
    underWay.add(held);
    try {
      call.async(...args, (error: unknown, result: unknown) => {
        underWay.delete(held);
        if (error) reject(new TpmError(NO_RESPONSE, 'the call into tpm2-tss failed', error));
        else resolve(result);
      });
    } catch (cause) {
      underWay.delete(held);
      reject(new TpmError(NO_RESPONSE, 'the call into tpm2-tss was not possible', cause));
    }
  });
}
