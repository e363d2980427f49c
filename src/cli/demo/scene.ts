/** Who plays, and what has been learnt so far: each step adds what later ones and the attacks start from. */
import type { Processes, Remote } from './processes.ts';
import type {
  AgentRole,
  AttesterRole,
  Caller,
  KeyChoice,
  KeyPlace,
  McpServerRole,
  OtherMachineRole,
  RecordedRequest,
  ServerRole,
  World,
} from './protocol.ts';
import type { SoftwareTpm, SoftwareTpms } from './software-tpm.ts';

export interface Cast {
  attester: Remote<AttesterRole>;
  authorizationServer: Remote<ServerRole>;
  mcp: Remote<McpServerRole>;
  otherMcp: Remote<McpServerRole>;
  agent: Remote<AgentRole>;
}

export interface Facts {
  cast: Cast;
  world: World;
  /** The demo's own TPM, in place of the machine's. */
  softwareTpm: SoftwareTpm;
  /** Where the agent's keys are. */
  place: KeyPlace;
  otherMachine: Remote<OtherMachineRole>;
  /** How the MCP servers saw the agent, its second key, its key for the second server, and the second client. */
  caller: Caller;
  rotated: Caller;
  other: Caller;
  worker: Caller;
  /** Copies of requests that worked. */
  agentToken: RecordedRequest;
  agentCall: RecordedRequest;
  otherCall: RecordedRequest;
  workerToken: RecordedRequest;
  workerCall: RecordedRequest;
}

/** How the demo was started. */
export interface DemoOptions {
  keep: boolean;
  keys: KeyChoice['kind'];
  /** A software TPM takes the place of the machine's. */
  softwareTpm: boolean;
  /** Certificates of TPM makers, PEM. */
  tpmRoots: readonly string[];
}

export interface Scene {
  processes: Processes;
  tpms: SoftwareTpms;
  directory: string;
  options: DemoOptions;
  keychainService: string;
  /** @throws Error when the step that should have found it has not */
  fact<K extends keyof Facts>(name: K): Facts[K];
  known<K extends keyof Facts>(name: K): Facts[K] | undefined;
  learn<K extends keyof Facts>(name: K, value: Facts[K]): void;
}

export function openScene(start: Omit<Scene, 'fact' | 'known' | 'learn'>): Scene {
  const facts: Partial<Facts> = {};
  return {
    ...start,
    fact: (name) => {
      const value = facts[name];
      if (value === undefined) throw new Error(`an earlier step did not get as far as ${name}`);
      return value as never;
    },
    known: (name) => facts[name],
    learn: (name, value) => {
      facts[name] = value;
    },
  };
}

/** Are the agent's keys in a TPM, and does the TPM prove it? */
export function provesTpm(scene: Scene): boolean {
  const key = scene.known('place')?.endorsementKey;
  return key !== undefined && 'hash' in key;
}
