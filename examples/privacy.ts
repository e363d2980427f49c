// run: yes
// What an agent says when two servers could recognise it, to a listener and to OpenTelemetry.
import assert from 'node:assert/strict';
import { type AgentWarning, createAgent } from 'attested/agent';
import { openKeys } from 'attested/keys';
import { startWorld } from './support/world.ts';

const world = await startWorld('weather-agent');
const { attester, enrolmentToken } = world;
const keys = await openKeys('software');
const heard: AgentWarning[] = [];
const log = { warn: (_code: string, _message: string, warning: AgentWarning) => heard.push(warning) };

// #region warnings
const agent = await createAgent({ clientId: 'weather-agent', keys, attester, enrolmentToken, tracking: 'warn' });
agent.on('warning', (warning) => log.warn(warning.code, warning.message, warning));

// #endregion

// #region telemetry
import { metrics, trace } from '@opentelemetry/api';
import { traceAgent } from 'attested/integrations/opentelemetry';

traceAgent(agent, {
  tracer: trace.getTracer('attested'),
  meter: metrics.getMeter('attested'),
  activeSpan: trace.getActiveSpan,
});
// #endregion

const servers = ['https://weather.example/mcp', 'https://calendar.example/mcp'];
for (const server of servers) await agent.presenter(server).present();
const [identity] = agent.identities();
assert.deepEqual(
  heard.map(({ code, servers, thumbprint }) => ({ code, servers, thumbprint })),
  [{ code: 'tracking', servers, thumbprint: identity?.thumbprint }],
);
assert.deepEqual(
  agent.correlations().links.map(({ by, servers }) => ({ by, servers })),
  [{ by: 'key', servers }],
);

await agent.close();
await keys.close();
world.close();
