/** Waiting before trying again: exponential, with full jitter, so that clients do not come back in step. */

import type { Random } from "./random.js";

export class Backoff {
  /**
   * @param base The longest wait before the second attempt, in milliseconds; it doubles with each attempt.
   * @param cap The longest wait of all, in milliseconds.
   */
  constructor(
    readonly base: number,
    readonly cap: number,
  ) {}

  /**
   * The milliseconds to wait after a number of failed attempts, 0 for the first failure.
   *
   * A wait that the server asked for (`atLeast`) is kept, and the jitter comes on top of it.
   */
  delay(attempt: number, random: Random, atLeast = 0): number {
    const ceiling = Math.min(this.cap, this.base * 2 ** Math.min(attempt, 60));
    return atLeast + random.fraction() * ceiling;
  }
}
