/** Who plays, and what has been learnt so far: each step adds what later ones and the attacks start from. */
import type { Processes, Remote } from './processes.ts';
import type { AgentRole, AttesterRole, Caller, McpServerRole, RecordedRequest, ServerRole, World } from './protocol.ts';

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

export interface Scene {
  processes: Processes;
  directory: string;
  keep: boolean;
  /** @throws Error when the step that should have found it has not */
  fact<K extends keyof Facts>(name: K): Facts[K];
  learn<K extends keyof Facts>(name: K, value: Facts[K]): void;
}

export function openScene(processes: Processes, directory: string, keep: boolean): Scene {
  const facts: Partial<Facts> = {};
  return {
    processes,
    directory,
    keep,
    fact: (name) => {
      const value = facts[name];
      if (value === undefined) throw new Error(`an earlier step did not get as far as ${name}`);
      return value as never;
    },
    learn: (name, value) => {
      facts[name] = value;
    },
  };
}
