/** Telemetry as OpenTelemetry's own SDK receives it. */
import { type Meter, type Span, type Tracer, trace } from '@opentelemetry/api';
import {
  AggregationTemporality,
  InMemoryMetricExporter,
  MeterProvider,
  PeriodicExportingMetricReader,
} from '@opentelemetry/sdk-metrics';
import { InMemorySpanExporter, SimpleSpanProcessor, TracerProvider } from '@opentelemetry/sdk-trace';
import { describe, expect, onTestFinished, test } from 'vitest';
import { AttestedError } from '../../src/errors.ts';
import { countRefusals, type TraceAgentOptions, traceAgent } from '../../src/integrations/opentelemetry.ts';
import { asked, json, newAgent, startFakeAs, tokenRequest } from '../agent/support.ts';

const A = 'https://a.secret.example/mcp';
const B = 'https://b.secret.example/mcp';

function telemetry() {
  const spans = new InMemorySpanExporter();
  const tracers = new TracerProvider({ spanProcessors: [new SimpleSpanProcessor({ exporter: spans })] });
  const exporter = new InMemoryMetricExporter(AggregationTemporality.CUMULATIVE);
  const reader = new PeriodicExportingMetricReader({ exporter, exportIntervalMillis: 3_600_000 });
  const meters = new MeterProvider({ readers: [reader] });
  onTestFinished(async () => {
    await tracers.shutdown();
    await meters.shutdown();
  });
  const tracer: Tracer = tracers.getTracer('attested');
  const meter: Meter = meters.getMeter('attested');
  return {
    tracer,
    meter,
    spans: async () => {
      await tracers.forceFlush();
      return spans.getFinishedSpans();
    },
    /** `name{attributes}` to its value, or the number of measurements. */
    metrics: async () => {
      await meters.forceFlush();
      const all = exporter
        .getMetrics()
        .at(-1)!
        .scopeMetrics.flatMap(({ metrics }) => metrics);
      const points = all.flatMap(({ descriptor, dataPoints }) =>
        dataPoints.map(({ attributes, value }) => {
          const counted = typeof value === 'number' ? value : value.count;
          return [`${descriptor.name} ${Object.values(attributes).join(' ')}`.trim(), counted] as const;
        }),
      );
      return { values: Object.fromEntries(points), text: JSON.stringify(all) };
    },
  };
}

/** An agent that shares its key between two servers, is asked for another challenge once, and rotates. */
async function eventfulDay(options: (sinks: ReturnType<typeof telemetry>) => Partial<TraceAgentOptions> = () => ({})) {
  const as = await startFakeAs((_request, response) =>
    asked(as, '/token').length === 1
      ? json(response, { error: 'use_attestation_challenge' }, 400, { 'oauth-client-attestation-challenge': 'c2' })
      : json(response, { access_token: 'secret-token', token_type: 'Bearer' }),
  );
  const { agent } = await newAgent({ tracking: 'warn' });
  await agent.fetch(`${as.issuer}/`).then((response) => response.text());
  const sinks = telemetry();
  const { tracer, meter } = sinks;
  const stop = traceAgent(agent, { tracer, meter, ...options(sinks) });
  await tokenRequest(agent, as.issuer, { resource: A });
  await tokenRequest(agent, as.issuer, { resource: B });
  await agent.rotate();
  return { ...sinks, agent, as, stop };
}

describe('traceAgent', () => {
  test('a span and a count for each thing that happens', async () => {
    const { spans, metrics } = await eventfulDay();
    const found = await spans();
    expect(found.map(({ name }) => name)).toEqual([
      'attested.identity',
      'attested.attestation',
      'attested.retry',
      'attested.warning',
      'attested.identity',
      'attested.attestation',
      'attested.rotation',
    ]);
    expect(found[2]?.attributes).toEqual({ 'attested.retry.reason': 'use_attestation_challenge' });
    expect(found[3]?.attributes).toEqual({ 'attested.warning.code': 'tracking' });
    expect((await metrics()).values).toEqual({
      'attested.identity': 2,
      'attested.attestation': 2,
      'attested.attestation.duration': 2,
      'attested.retry use_attestation_challenge': 1,
      'attested.warning tracking': 1,
      'attested.rotation': 1,
    });
  });

  test('PRIV-1: names no server, no key and no token, unless asked to', async () => {
    const { spans, metrics, agent, as } = await eventfulDay();
    const text = JSON.stringify((await spans()).map(({ name, attributes, events }) => ({ name, attributes, events })));
    const telling = ['secret', new URL(as.issuer).host, ...agent.identities().map(({ thumbprint }) => thumbprint)];
    for (const word of telling) {
      expect(text).not.toContain(word);
      expect((await metrics()).text).not.toContain(word);
    }
  });

  test('servers and thumbprints, by option: on spans, and not on metrics', async () => {
    const { spans, metrics, agent } = await eventfulDay(() => ({ servers: true, thumbprints: true }));
    const warning = (await spans()).find(({ name }) => name === 'attested.warning');
    const { thumbprint } = agent.identities()[0]!;
    expect(warning?.attributes).toMatchObject({ 'attested.servers': [A, B], 'attested.thumbprint': thumbprint });
    expect((await metrics()).text).not.toMatch(/secret/);
    expect((await metrics()).text).not.toContain(thumbprint);
  });

  test('inside a request, what happens is an event of the request’s span', async () => {
    let request: Span | undefined;
    const { spans } = await eventfulDay(({ tracer }) => {
      request = tracer.startSpan('request');
      return { activeSpan: () => request };
    });
    request!.end();
    const found = await spans();
    expect(found.map(({ name }) => name)).toEqual(['attested.attestation', 'attested.attestation', 'request']);
    const names = found[2]!.events.map(({ name }) => name);
    expect(names).toEqual([
      'attested.identity',
      'attested.retry',
      'attested.warning',
      'attested.identity',
      'attested.rotation',
    ]);
  });

  test('stops when told to; without a tracer and a meter nothing happens; trace.getActiveSpan fits', async () => {
    const { stop, agent, as, spans } = await eventfulDay();
    const before = (await spans()).length;
    stop();
    traceAgent(agent, { activeSpan: trace.getActiveSpan })();
    traceAgent(agent, {});
    await agent.rotate();
    expect((await tokenRequest(agent, as.issuer, { resource: A })).status).toBe(200);
    expect(await spans()).toHaveLength(before);
  });
});

test('countRefusals: by code and rule', async () => {
  const { meter, metrics } = telemetry();
  const onRefusal = countRefusals({ meter });
  for (const rule of ['VER-3', 'VER-3', undefined]) {
    onRefusal(new AttestedError('invalid_client_attestation', 'secret', rule === undefined ? {} : { rule }));
  }
  const { values, text } = await metrics();
  expect(values).toEqual({
    'attested.refusal invalid_client_attestation VER-3': 2,
    'attested.refusal invalid_client_attestation': 1,
  });
  expect(text).not.toContain('secret');
});
