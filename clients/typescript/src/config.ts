/** The settings of a client. */

import { Backoff } from "./backoff.js";

/** The settings of a client. Times are in milliseconds. */
export interface ClientConfig {
  /**
   * Whether asking for the next event marks the one before as applied. Without it the application calls
   * `client.applied(event)` once it has stored what the event brought.
   */
  autoApply: boolean;
  /** The most entries on their way or not yet applied. From 1 to 8,192. */
  window: number;
  /** The most missed entries sent for one conversation; more come as a Gap. From 1 to 10,000. */
  catchUpLimit: number;
  /** How long connecting may take, up to the server's Welcome. */
  connectTimeout: number;
  /** How long a unary operation may take, its retries included. */
  callTimeout: number;
  /** How long closing waits for what is being written. */
  closeTimeout: number;
  /** How long applied positions are gathered before they are stored and acknowledged. */
  applyDelay: number;
  /** The longest wait before the second attempt to connect or to send; it doubles with each attempt. */
  backoffBase: number;
  /** The longest wait before any attempt. */
  backoffCap: number;
  /** How often the server is taken to send beacons until it has told. */
  beaconInterval: number;
  /** The most messages in the outbox; more are refused. */
  maxQueuedMessages: number;
  /**
   * The most events that wait for an application that doesn't ask for them. Beyond it the oldest local events (echoes,
   * receipts, states) are dropped; entries never are, since the window bounds them.
   */
  maxQueuedEvents: number;
  /** A name and version for the server's logs, at most 128 bytes. */
  clientName: string;
}

const DEFAULTS: ClientConfig = {
  autoApply: true,
  window: 1024,
  catchUpLimit: 10_000,
  connectTimeout: 10_000,
  callTimeout: 30_000,
  closeTimeout: 2_000,
  applyDelay: 100,
  backoffBase: 500,
  backoffCap: 30_000,
  beaconInterval: 30_000,
  maxQueuedMessages: 100_000,
  maxQueuedEvents: 50_000,
  clientName: "tidings-typescript",
};

function demand(holds: boolean, what: string): void {
  if (!holds) {
    throw new RangeError(what);
  }
}

/** The settings given, and the defaults for the rest. Throws RangeError, which names the setting. */
export function configOf(given: Partial<ClientConfig> = {}): ClientConfig {
  const config = { ...DEFAULTS, ...given };
  const inRange = (value: number, most: number) =>
    Number.isInteger(value) && value >= 1 && value <= most;
  demand(inRange(config.window, 8192), "window must be from 1 to 8192");
  demand(inRange(config.catchUpLimit, 10_000), "catchUpLimit must be from 1 to 10000");
  demand(
    new TextEncoder().encode(config.clientName).length <= 128,
    "clientName must be at most 128 bytes of UTF-8",
  );
  for (const name of ["connectTimeout", "callTimeout", "backoffBase", "backoffCap"] as const) {
    demand(config[name] > 0, `${name} must be positive`);
  }
  for (const name of [
    "closeTimeout",
    "applyDelay",
    "maxQueuedMessages",
    "maxQueuedEvents",
  ] as const) {
    demand(config[name] >= 0, `${name} must not be negative`);
  }
  return config;
}

/** The waiting times of repeated attempts. */
export function backoffOf(config: ClientConfig): Backoff {
  return new Backoff(config.backoffBase, config.backoffCap);
}
