/** Every adapter, with the servers of both MCP SDKs behind it: the same table. */
import { describeAdapter } from '../support/adapter-suite.ts';
import { adapters, listen } from '../support/adapters.ts';

for (const [name, adapter] of Object.entries(adapters)) {
  const joined = /^(?:node:http|Worker)/.test(name);
  describeAdapter(name, { listen: async (options) => listen(await adapter(options)), joined });
}
