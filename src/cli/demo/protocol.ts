/** What the demo's processes can be asked. Every call goes over Node's IPC channel as JSON. */

/** Where everybody is, once every server listens. */
export interface World {
  attester: string;
  authorizationServer: string;
  /** Resource identifiers. */
  mcp: string;
  otherMcp: string;
  /** A directory that lives as long as the demo. */
  directory: string;
  /** Leave the keys where they are when the demo ends. */
  keep: boolean;
  keys: KeyChoice;
}

/** Where the agent is to keep its keys. */
export interface KeyChoice {
  kind: 'auto' | 'tpm' | 'keychain' | 'software';
  /** The demo's own software TPM; absent: the machine's. */
  tcti?: string;
  /** A keychain belongs to the user: no two demos, and nothing else of his, share this name in it. */
  keychainService: string;
}

/** Whose TPMs the demo's attester believes. PEM. */
export interface TpmBelief {
  roots: readonly string[];
  intermediates: readonly string[];
  /** Hashes of endorsement keys. */
  allowEk: readonly string[];
}

/** client_id by proof-of-possession method that the client is registered for. */
export const CLIENTS = { dpop_combined: 'demo-agent', attestation_pop_jwt: 'demo-worker' } as const;
export const SCOPE = 'mcp:tools';
/** The tool that demands keys in hardware. */
export const HARDWARE_TOOL = 'approve';

export interface AttesterRole {
  listen(): Promise<string>;
  configure(world: World): Promise<void>;
  /** From now on TPMs are believed, and agents of the first client have to bring their evidence. */
  believe(tpm: TpmBelief): Promise<void>;
  createEnrolmentToken(clientId: string): Promise<string>;
  /** By the thumbprint of any of the instance's keys. */
  revoke(thumbprint: string): Promise<boolean>;
  /** Instances that have enrolled so far. */
  countInstances(): Promise<number>;
  takeRefusals(): Promise<LoggedRefusal[]>;
}

/** A refusal as its server's operator sees it. */
export interface LoggedRefusal {
  code: string;
  rule: string | undefined;
  message: string;
}

export interface ServerRole {
  listen(): Promise<string>;
  configure(world: World): Promise<void>;
  /** What was refused since the last time it was asked. */
  takeRefusals(): Promise<LoggedRefusal[]>;
}

export interface McpServerRole extends ServerRole {
  /** @param which its own member of the world */
  configure(world: World, which?: 'mcp' | 'otherMcp'): Promise<void>;
}

export interface KeyPlace {
  kind: 'tpm' | 'keychain' | 'software';
  assurance: string;
  why: string;
  /** Of the TPM, where the keys are in one; or why it has none that can be used. */
  endorsementKey?: { hash: string; maker?: string; issuer?: string } | { unavailable: string };
}

/** One request for an attestation as it went over the wire, and its answer. */
export interface AttesterExchange {
  status: number;
  /** Kind of evidence. */
  evidence: string;
  withToken: boolean;
  withCertificate: boolean;
  /** The answer is a secret that only the TPM can open; this request brought what it opened. */
  asksActivation: boolean;
  bringsActivation: boolean;
  /** As the attestation says it. */
  keyStorage?: string;
  keyEvidence?: string;
}

/** What an MCP server says of its caller. */
export interface Caller {
  clientId: string;
  thumbprint: string;
  method: string;
  keyStorage: string;
  keyEvidence: string;
  attester: string;
  status: string;
  /** Seconds until the attestation expires. */
  expiresIn: number;
}

/** A request as it went over the wire, the kind of copy that a leaking proxy log holds. */
export interface RecordedRequest {
  url: string;
  method: string;
  headers: [string, string][];
  body: string;
}

export interface ProofOrder {
  /** Thumbprint of the key to use: one of the agent's own. */
  thumbprint: string;
  /** For a PoP JWT. */
  audience?: string;
  challenge?: string;
  /** For a DPoP proof. */
  method?: string;
  url?: string;
  nonce?: string;
  accessToken?: string;
}

export type ClientId = (typeof CLIENTS)[keyof typeof CLIENTS];

export interface AgentRole {
  configure(world: World): Promise<void>;
  openKeys(): Promise<KeyPlace>;
  /** Opens the client instance and has its first key, for the MCP server, attested. Gives that key's thumbprint. */
  enrol(clientId: ClientId, enrolmentToken: string): Promise<string>;
  /** Opens a client instance that enrolled in an earlier process. */
  resume(clientId: ClientId): Promise<void>;
  /** The process that comes after this one goes on with the keys: its end leaves them where they are. */
  handOver(): Promise<void>;
  /** What was asked of the attester since the last time this was asked. */
  takeExchanges(): Promise<AttesterExchange[]>;
  /** Connects an MCP client to a server, which takes an access token. Gives the token endpoint's view of it. */
  connect(clientId: ClientId, server: string): Promise<{ tokenType: string; authMethod: string }>;
  whoami(clientId: ClientId, server: string): Promise<Caller>;
  add(clientId: ClientId, server: string, a: number, b: number): Promise<number>;
  /** Calls {@link HARDWARE_TOOL}. */
  approve(clientId: ClientId, server: string): Promise<string>;
  /** A new key for a server; the old one is destroyed and its tokens are dropped. Gives the new thumbprint. */
  rotate(clientId: ClientId, server: string): Promise<string>;
  /** The last request to a URL that succeeded and had this in its body. */
  recorded(url: string, containing: string): Promise<RecordedRequest | undefined>;
  /** Misuse of its own keys: a proof of whatever it is asked for. */
  prove(order: ProofOrder): Promise<string>;
}

/** A machine of the attacker's, with another identity and another TPM, or none. */
export interface OtherMachineRole {
  /** @param own the TPM that it has, if any */
  configure(world: World, own: { tcti?: string }): Promise<void>;
  /** Opens a copy of the agent's directory as the agent would. Gives how many of the keys in it sign here. */
  useCopy(directory: string, kind: KeyPlace['kind']): Promise<number>;
  /** Enrols as the first client, with keys of its own of this kind. Gives the storage that the attestation says. */
  enrol(kind: 'tpm' | 'software', enrolmentToken: string): Promise<string>;
}

export interface Roles {
  attester: AttesterRole;
  'authorization-server': ServerRole;
  'mcp-server': McpServerRole;
  agent: AgentRole;
  'other-machine': OtherMachineRole;
}
export type RoleName = keyof Roles;

/** What a role does before its process ends, however it comes to that. It has about half a second. */
export interface Ending {
  end?(): Promise<void>;
}

export interface Order {
  id: number;
  command: string;
  input: unknown[];
}

export interface Answer {
  id: number;
  output?: unknown;
  error?: { message: string; code?: string | undefined; rule?: string | undefined };
}

/** The hidden first argument of the command that makes it one of the demo's processes. */
export const ROLE_ARGUMENT = '__demo-role';
