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
}

/** client_id by proof-of-possession method that the client is registered for. */
export const CLIENTS = { dpop_combined: 'demo-agent', attestation_pop_jwt: 'demo-worker' } as const;
export const SCOPE = 'mcp:tools';

export interface AttesterRole {
  listen(): Promise<string>;
  configure(world: World): Promise<void>;
  createEnrolmentToken(clientId: string): Promise<string>;
  /** By the thumbprint of any of the instance's keys. */
  revoke(thumbprint: string): Promise<boolean>;
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
  kind: string;
  assurance: string;
  why: string;
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
  /** Connects an MCP client to a server, which takes an access token. Gives the token endpoint's view of it. */
  connect(clientId: ClientId, server: string): Promise<{ tokenType: string; authMethod: string }>;
  whoami(clientId: ClientId, server: string): Promise<Caller>;
  add(clientId: ClientId, server: string, a: number, b: number): Promise<number>;
  /** A new key for a server; the old one is destroyed and its tokens are dropped. Gives the new thumbprint. */
  rotate(clientId: ClientId, server: string): Promise<string>;
  /** The last request to a URL that succeeded and had this in its body. */
  recorded(url: string, containing: string): Promise<RecordedRequest | undefined>;
  /** Misuse of its own keys: a proof of whatever it is asked for. */
  prove(order: ProofOrder): Promise<string>;
}

export interface Roles {
  attester: AttesterRole;
  'authorization-server': ServerRole;
  'mcp-server': McpServerRole;
  agent: AgentRole;
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
