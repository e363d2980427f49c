/**
 * `attested/integrations/opentelemetry`: an agent's warnings and events as spans and metrics, a server's refusals as a counter.
 *
 * Telemetry goes to a third party as a rule, and one that sees all servers of an agent can follow it from one to the next. So
 * server names and key thumbprints stay out of it unless they are asked for; tokens, keys and claims never get in.
 */
import type { Agent, AgentEvent, AgentWarning } from '../agent/index.ts';
import type { AttestedError } from '../errors.ts';

/** Of `@opentelemetry/api`, by shape, as all types here. */
export type TelemetryAttributes = Record<string, string | number | string[]>;

export interface SpanLike {
  addEvent(name: string, attributes?: TelemetryAttributes): unknown;
  end(endTime?: Date): void;
}

export interface TracerLike {
  startSpan(name: string, options?: { startTime?: Date; attributes?: TelemetryAttributes }): SpanLike;
}

export interface MeterLike {
  createCounter(
    name: string,
    options?: { description?: string; unit?: string },
  ): { add(value: number, attributes?: TelemetryAttributes): void };
  createHistogram(
    name: string,
    options?: { description?: string; unit?: string },
  ): { record(value: number, attributes?: TelemetryAttributes): void };
}

export interface TraceAgentOptions {
  /** `trace.getTracer('attested')` */
  tracer?: TracerLike | undefined;
  /** `metrics.getMeter('attested')` */
  meter?: MeterLike | undefined;
  /**
   * `trace.getActiveSpan`: what happens during a request is then an event of that request's span, and no span of its own.
   * Getting an attestation takes time and always has one.
   */
  activeSpan?: (() => SpanLike | undefined) | undefined;
  /** Puts server names on spans: who has the spans then knows which servers the agent talks to. Never on metrics. */
  servers?: boolean | undefined;
  /** Puts key thumbprints on spans: who has the spans can then recognise the agent at its servers. Never on metrics. */
  thumbprints?: boolean | undefined;
}

/** One thing that happened, in the terms of telemetry. */
interface Happening {
  name: string;
  /** Harmless and of few values, so that they may be on metrics. */
  kind: TelemetryAttributes;
  servers: readonly string[];
  thumbprint: string | undefined;
  /** Milliseconds. */
  duration?: number;
}

/**
 * Traces and counts what an agent does, until the returned function is called.
 *
 * Spans: `attested.attestation`; and `attested.warning`, `attested.retry`, `attested.rotation`, `attested.identity` (span events
 * where there is an active span). Counters of the same names, with `attested.warning.code` and `attested.retry.reason`, and the
 * histogram `attested.attestation.duration` in seconds.
 */
export function traceAgent(agent: Pick<Agent, 'on'>, options: TraceAgentOptions): () => void {
  const { tracer, meter, activeSpan } = options;
  const count = countersOf(meter);
  const durations = meter?.createHistogram('attested.attestation.duration', {
    description: 'Time that getting a Client Attestation took',
    unit: 's',
  });

  function tell(happening: Happening): void {
    const { name, kind, duration } = happening;
    count(name, kind);
    if (duration !== undefined) durations?.record(duration / 1000);
    const attributes = attributesOf(happening, options);
    const around = duration === undefined ? activeSpan?.() : undefined;
    if (around !== undefined) {
      around.addEvent(name, attributes);
      return;
    }
    const end = new Date();
    const startTime = new Date(end.getTime() - (duration ?? 0));
    tracer?.startSpan(name, { startTime, attributes }).end(end);
  }

  const stops = [
    agent.on('warning', (warning) => tell(ofWarning(warning))),
    agent.on('event', (event) => tell(ofEvent(event))),
  ];
  return () => {
    for (const stop of stops) stop();
  };
}

/**
 * A listener for `onRefusal` of the server's side, which counts refusals by code and rule in `attested.refusal`.
 *
 * @param options.meter `metrics.getMeter('attested')`
 */
export function countRefusals(options: { meter: MeterLike }): (error: Pick<AttestedError, 'code' | 'rule'>) => void {
  const count = countersOf(options.meter);
  return ({ code, rule }) =>
    count('attested.refusal', {
      'attested.refusal.code': code,
      ...(rule !== undefined && { 'attested.refusal.rule': rule }),
    });
}

const DESCRIPTIONS: Readonly<Record<string, string>> = {
  'attested.attestation': 'Client Attestations obtained',
  'attested.identity': 'Identities made, or found again',
  'attested.refusal': 'Requests refused for their client attestation',
  'attested.retry': 'Requests sent once more for a challenge, nonce or attestation that the server asked for',
  'attested.rotation': 'Keys replaced',
  'attested.warning': 'Warnings to the operator',
};

function countersOf(meter: MeterLike | undefined): (name: string, attributes: TelemetryAttributes) => void {
  const counters = new Map<string, ReturnType<MeterLike['createCounter']>>();
  return (name, attributes) => {
    let counter = counters.get(name);
    if (counter === undefined && meter !== undefined) {
      counter = meter.createCounter(name, { description: DESCRIPTIONS[name] as string });
      counters.set(name, counter);
    }
    counter?.add(1, attributes);
  };
}

function ofWarning({ code, servers = [], thumbprint }: AgentWarning): Happening {
  // its message and its links name servers and keys
  return { name: 'attested.warning', kind: { 'attested.warning.code': code }, servers, thumbprint };
}

function ofEvent(event: AgentEvent): Happening {
  const { type, server, thumbprint } = event;
  return {
    name: `attested.${type}`,
    kind: type === 'retry' ? { 'attested.retry.reason': event.reason } : {},
    // `*` is the identity of all of them, and names none
    servers: server === '*' ? [] : [server],
    thumbprint,
    ...(type === 'attestation' && { duration: event.duration }),
  };
}

function attributesOf({ kind, servers, thumbprint }: Happening, options: TraceAgentOptions): TelemetryAttributes {
  return {
    ...kind,
    ...(options.servers === true && servers.length > 0 && { 'attested.servers': [...servers] }),
    ...(options.thumbprints === true && thumbprint !== undefined && { 'attested.thumbprint': thumbprint }),
  };
}
