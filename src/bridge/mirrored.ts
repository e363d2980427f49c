/**
 * Header fields that repeat what a request's body says, which protocol versions from 2026-07-28 on require over HTTP and stdio
 * does not have: version, method, name, and the arguments that a tool marks with `x-mcp-header`.
 */
import { isJsonObject, type JsonObject } from '../core/json.ts';
import { type Message, metaOf, type Request } from './message.ts';

const PROTOCOL_VERSION_META = 'io.modelcontextprotocol/protocolVersion';

/** The protocol version that a message names itself; undefined for older versions, which name it once, in `initialize`. */
export function versionIn(message: Message): string | undefined {
  return asVersion(metaOf(message)?.[PROTOCOL_VERSION_META]);
}

/** What is said to be a version, if a header field can carry it. */
export function asVersion(version: unknown): string | undefined {
  return typeof version === 'string' && /^[\x21-\x7e]{1,64}$/.test(version) ? version : undefined;
}

/** Which parameter `Mcp-Name` repeats. */
const NAMED_BY: Readonly<Record<string, string>> = {
  'tools/call': 'name',
  'prompts/get': 'name',
  'resources/read': 'uri',
  'tasks/get': 'taskId',
  'tasks/update': 'taskId',
  'tasks/cancel': 'taskId',
};

/** An argument of a tool that a header field repeats. */
interface MirroredArgument {
  path: readonly string[];
  field: string;
}

export interface Mirror {
  /** Sets the fields of one request that names its version. */
  apply(headers: Headers, request: Request, version: string): void;
  /** Takes in the tools of a `tools/list` result. */
  learn(result: unknown): void;
}

const MAX_TOOLS = 4096;
const MAX_DEPTH = 32;
const MARK = 'x-mcp-header';
const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,128}$/;

export function openMirror(): Mirror {
  const tools = new Map<string, readonly MirroredArgument[]>();

  return {
    apply(headers, { method, json }, version) {
      const params = isJsonObject(json.params) ? json.params : {};
      headers.set('mcp-protocol-version', version);
      if (/^[\x21-\x7e]+$/.test(method)) headers.set('mcp-method', method);
      const by = Object.hasOwn(NAMED_BY, method) ? NAMED_BY[method] : undefined;
      const name = by === undefined ? undefined : params[by];
      if (typeof name !== 'string') return;
      headers.set('mcp-name', fieldValue(name));
      if (method !== 'tools/call') return;
      for (const { path, field } of tools.get(name) ?? []) {
        const text = textOf(valueAt(params.arguments, path));
        if (text !== undefined) headers.set(`mcp-param-${field}`, fieldValue(text));
      }
    },
    learn(result) {
      if (!isJsonObject(result) || !Array.isArray(result.tools)) return;
      for (const tool of result.tools) {
        if (!isJsonObject(tool) || typeof tool.name !== 'string') continue;
        const found: MirroredArgument[] = [];
        collect(tool.inputSchema, [], found);
        tools.delete(tool.name);
        if (found.length > 0 && tools.size < MAX_TOOLS) tools.set(tool.name, found);
      }
    },
  };
}

/** Marks count only where a chain of `properties` leads to them; anywhere else the tool's definition is void. */
function collect(schema: unknown, path: readonly string[], found: MirroredArgument[]): void {
  if (!isJsonObject(schema) || path.length > MAX_DEPTH) return;
  const field = schema[MARK];
  if (path.length > 0 && typeof field === 'string' && TOKEN.test(field)) found.push({ path, field });
  if (!isJsonObject(schema.properties)) return;
  for (const [name, child] of Object.entries(schema.properties)) collect(child, [...path, name], found);
}

function valueAt(root: unknown, path: readonly string[]): unknown {
  let node = root;
  for (const name of path) {
    if (!isJsonObject(node) || !Object.hasOwn(node, name)) return undefined;
    node = (node as JsonObject)[name];
  }
  return node;
}

function textOf(value: unknown): string | undefined {
  if (typeof value === 'string') return value;
  if (typeof value === 'boolean') return String(value);
  if (typeof value !== 'number' || (Number.isInteger(value) && !Number.isSafeInteger(value))) return undefined;
  return String(value);
}

/** Text that a field cannot carry, or that would be taken for an encoded one, is encoded. */
function fieldValue(text: string): string {
  const plain = /^[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?$/.test(text) && !/^=\?base64\?.*\?=$/.test(text);
  return plain ? text : `=?base64?${Buffer.from(text, 'utf8').toString('base64')}?=`;
}
