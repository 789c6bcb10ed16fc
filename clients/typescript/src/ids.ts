/** Ids of messages and requests (UUIDv7), and the server's time as far as it is known. */

import type { Random } from "./random.js";

const MS_MASK = 0xffff_ffff_ffffn;
const RANDOM_BITS = 74;
const RANDOM_MASK = (1n << BigInt(RANDOM_BITS)) - 1n;

/** Makes UUIDv7 (RFC 9562) in lower-case text form that ascend, whatever the clock does. */
export class IdMaker {
  #ms = -1;
  #random = 0n;

  constructor(private readonly source: Random) {}

  /**
   * A new id of a time in milliseconds since the Unix epoch.
   *
   * Ids made within one millisecond, or after the clock was set back by less than a second, take the last time and count
   * on, so that they sort as they were made.
   */
  make(nowMs: number): string {
    const now = Math.floor(nowMs);
    if (this.#ms - 1000 < now && now <= this.#ms) {
      this.#random += 1n + this.source.bits(32);
      if (this.#random > RANDOM_MASK) {
        this.#ms += 1;
        this.#random &= RANDOM_MASK;
      }
    } else {
      this.#ms = now;
      // The highest bit stays free so that counting on doesn't run over.
      this.#random = this.source.bits(RANDOM_BITS - 1);
    }
    let value =
      ((BigInt(this.#ms) & MS_MASK) << 80n) | (0x7n << 76n) | ((this.#random >> 62n) << 64n);
    value |= (0b10n << 62n) | (this.#random & 0x3fff_ffff_ffff_ffffn);
    const text = value.toString(16).padStart(32, "0");
    return `${text.slice(0, 8)}-${text.slice(8, 12)}-${text.slice(12, 16)}-${text.slice(16, 20)}-${text.slice(20)}`;
  }
}

/** The time of a UUIDv7 in text form, in milliseconds since the Unix epoch. */
export function idTimeMs(messageId: string): number {
  return Number.parseInt(messageId.slice(0, 8) + messageId.slice(9, 13), 16);
}

/**
 * The server's time: its last word plus what has passed since by a clock that nobody sets.
 *
 * Until the server has spoken it is the device's own clock.
 */
export class ServerClock {
  #anchor: { serverMs: number; at: number } | undefined;

  constructor(private readonly wallMs: () => number) {}

  /** Whether the server has told its time in this process. */
  get known(): boolean {
    return this.#anchor !== undefined;
  }

  /** Take the server's time at a moment of the clock that nobody sets (milliseconds). */
  set(serverMs: number, now: number): void {
    this.#anchor = { serverMs, at: now };
  }

  /** The server's time in milliseconds since the Unix epoch. */
  nowMs(now: number): number {
    return this.#anchor === undefined
      ? this.wallMs()
      : this.#anchor.serverMs + Math.floor(now - this.#anchor.at);
  }

  /** What is to be added to the device's own clock to get the server's; 0 until that is known. */
  offsetMs(now: number): number {
    return this.#anchor === undefined ? 0 : this.nowMs(now) - this.wallMs();
  }
}
