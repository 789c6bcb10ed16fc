/** The limits in force: the server's, or what is assumed until it has told. */

import type { Limits as Told } from "./gen/tidings/v1/event_pb.js";

export interface Limits {
  readonly window: number;
  readonly maxTextBytes: number;
  readonly maxFrameBytes: number;
  readonly maxCommandsInFlight: number;
  /** Milliseconds between beacons. */
  readonly beaconInterval: number;
  readonly maxMembers: number;
}

/** What is assumed before the server has told. */
export function assumed(window: number, beaconInterval: number): Limits {
  return {
    window,
    maxTextBytes: 16_384,
    maxFrameBytes: 1 << 20,
    maxCommandsInFlight: 100,
    beaconInterval,
    maxMembers: 500,
  };
}

/** What the server has told, and what was known where it didn't. */
export function told(limits: Told | undefined, known: Limits): Limits {
  return {
    window: limits?.window || known.window,
    maxTextBytes: limits?.maxTextBytes || known.maxTextBytes,
    maxFrameBytes: limits?.maxFrameBytes || known.maxFrameBytes,
    maxCommandsInFlight: limits?.maxCommandsInFlight || known.maxCommandsInFlight,
    beaconInterval: limits?.beaconIntervalMs || known.beaconInterval,
    maxMembers: limits?.maxMembers || known.maxMembers,
  };
}
