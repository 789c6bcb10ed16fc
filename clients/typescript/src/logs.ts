/** The positions of the logs that a device follows: received, handed on, applied, and their digest. No I/O, no clock. */

import { sha256 } from "./sha256.js";
import type { StoredCursor } from "./state.js";

const INBOX_PREFIX = "inbox:";
const DIGEST_BITS = 64;

/** What positions mean to a log. */
export type Step = "next" | "old" | "missed";

/** What one log adds to the digest of a beacon. */
export function digestOf(log: string, seq: number): bigint {
  const [high = 0, low = 0] = sha256(new TextEncoder().encode(`${log}:${seq}`));
  return (BigInt(high) << 32n) | BigInt(low);
}

/**
 * One log: acked ≤ saved ≤ applied ≤ handed ≤ received.
 *
 * received is the newest position that has come in order, handed the newest that the application was given, applied the
 * newest that it has dealt with, saved the newest of which that is kept, acked the newest of which the server was told
 * that. seen is the newest that the server has sent on this connection: after a reconnect it sends again what wasn't
 * saved, and an acknowledgement of what it hasn't sent yet would be lost. toldStates tells whether states of messages
 * have come behind received.
 */
export class Log {
  received = 0;
  handed = 0;
  applied = 0;
  saved = 0;
  acked = 0;
  seen = 0;
  suspect = false;
  toldStates = false;
  #skips: [number, number][] = [];
  #digestSeq = -1;
  #digestValue = 0n;

  constructor(
    readonly name: string,
    seq = 0,
  ) {
    this.reset(seq);
  }

  /** What it adds to the digest of a beacon. */
  digest(): bigint {
    if (this.received !== this.#digestSeq) {
      this.#digestSeq = this.received;
      this.#digestValue = digestOf(this.name, this.received);
    }
    return this.#digestValue;
  }

  /** Receive the positions from one to another, both included. */
  advance(fromSeq: number, toSeq: number): Step {
    this.seen = Math.max(this.seen, toSeq);
    if (toSeq <= this.received) {
      return "old";
    }
    if (fromSeq > this.received + 1) {
      return "missed";
    }
    this.received = toSeq;
    this.toldStates = false;
    return "next";
  }

  /** Receive positions that nobody needs to be told of. */
  skip(fromSeq: number, toSeq: number): Step {
    const step = this.advance(fromSeq, toSeq);
    if (step === "next") {
      this.#skips.push([fromSeq, toSeq]);
      this.#passSkips();
    }
    return step;
  }

  /** The application is given everything up to a position. */
  hand(seq: number): void {
    this.handed = Math.max(this.handed, seq);
  }

  /** The application has dealt with everything up to a position. */
  apply(seq: number): void {
    // What was never handed on can't have been applied.
    this.applied = Math.max(this.applied, Math.min(seq, this.handed));
    this.#passSkips();
  }

  #passSkips(): void {
    while (this.#skips[0] !== undefined && this.#skips[0][0] <= this.applied + 1) {
      this.applied = Math.max(this.applied, this.#skips[0][1]);
      this.#skips.shift();
    }
    this.handed = Math.max(this.handed, this.applied);
  }

  /** The position to acknowledge now, or 0; it counts as acked. */
  toAck(): number {
    const seq = Math.min(this.saved, this.seen);
    if (seq <= this.acked) {
      return 0;
    }
    this.acked = seq;
    return seq;
  }

  /** Forget what was received and not handed on: it is to come again. */
  rewind(): void {
    this.received = this.handed;
    this.toldStates = false;
    this.#skips = this.#skips.filter(([, last]) => last <= this.handed);
  }

  /** Everything up to a position is dealt with, and nothing beyond it was ever received. */
  reset(seq: number): void {
    this.received = this.handed = this.applied = this.saved = this.acked = this.seen = seq;
    this.#skips = [];
  }
}

/** All the logs of a device. */
export class LogTable implements Iterable<Log> {
  readonly #logs = new Map<string, Log>();
  readonly #unsaved = new Set<Log>();
  unsavedPositions = 0;

  constructor(cursors: Iterable<StoredCursor> = []) {
    for (const { log, seq } of cursors) {
      this.#logs.set(log, new Log(log, seq));
    }
  }

  [Symbol.iterator](): Iterator<Log> {
    return this.#logs.values();
  }

  /** The log of a name, made if need be. */
  get(name: string): Log {
    let log = this.#logs.get(name);
    if (log === undefined) {
      log = new Log(name);
      this.#logs.set(name, log);
    }
    return log;
  }

  /** See Log.skip. */
  skip(log: Log, fromSeq: number, toSeq: number): Step {
    const before = log.applied;
    const step = log.skip(fromSeq, toSeq);
    if (log.applied !== before) {
      this.touch(log);
    }
    return step;
  }

  /** See Log.apply. A log that isn't known is passed over. */
  apply(name: string, seq: number): void {
    const log = this.#logs.get(name);
    if (log !== undefined) {
      const before = log.applied;
      log.apply(seq);
      if (log.applied !== before) {
        this.touch(log, log.applied - before);
      }
    }
  }

  /** See Log.rewind. */
  rewind(): void {
    for (const log of this) {
      log.rewind();
    }
  }

  /** Go back to what hello named, in every log. Nothing may have come since. */
  resetToNamed(): void {
    for (const log of this) {
      log.reset(log.acked);
    }
    this.#unsaved.clear();
    this.unsavedPositions = 0;
  }

  /** The saved positions to name in hello, at most `limit`: those that matter most first. They count as acked. */
  hello(limit: number): StoredCursor[] {
    let named: Log[] = [];
    for (const log of this) {
      log.acked = log.seen = 0;
      if (log.received) {
        named.push(log);
      }
    }
    if (named.length > limit) {
      const rank = (log: Log) =>
        (log.suspect ? 0 : 2) + (log.name.startsWith(INBOX_PREFIX) ? 0 : 1);
      named = named.sort((a, b) => rank(a) - rank(b)).slice(0, limit);
    }
    for (const log of named) {
      log.acked = log.seen = log.saved;
    }
    return named.map((log) => ({ log: log.name, seq: log.saved }));
  }

  /** The digest of the logs of which anything was received, and their number. */
  digest(): { digest: bigint; conversations: number } {
    let total = 0n;
    let conversations = 0;
    for (const log of this) {
      if (log.received) {
        total += log.digest();
        conversations += 1;
      }
    }
    return { digest: BigInt.asUintN(DIGEST_BITS, total), conversations };
  }

  // What is to be saved

  /** A log's applied position is to be saved; so many positions more are. */
  touch(log: Log, positions = 1): void {
    this.#unsaved.add(log);
    this.unsavedPositions += positions;
  }

  /** The applied positions of all logs. */
  stored(): StoredCursor[] {
    return [...this]
      .filter((log) => log.applied)
      .map((log) => ({ log: log.name, seq: log.applied }));
  }

  /** Whether an applied position is to be saved. */
  get hasUnsaved(): boolean {
    return this.#unsaved.size > 0;
  }

  /** The logs whose applied position is to be saved, and as what. They aren't told again unless they move. */
  takeUnsaved(): [Log, StoredCursor][] {
    const taken = [...this.#unsaved].map((log): [Log, StoredCursor] => [
      log,
      { log: log.name, seq: log.applied },
    ]);
    this.#unsaved.clear();
    this.unsavedPositions = 0;
    return taken;
  }
}
