/**
 * The outbox: sends wait here until the server has them for good, in order, each under the one id. No I/O, no clock.
 *
 * Every conversation is a lane. The sends of a lane are pipelined, and each names its predecessor that isn't
 * acknowledged yet, so that the server keeps their order whatever is refused, lost or sent again.
 */

import type { Backoff } from "./backoff.js";
import { Code, type TidingsError } from "./errors.js";
import type { Random } from "./random.js";
import type { StoredMessage } from "./state.js";

/**
 * Where a message of the outbox is.
 *
 * - held: waiting for something about it to be durable here; those behind it in its conversation wait as well
 * - queued: to be sent
 * - in flight: sent on this connection, without a result yet
 * - failed: refused for good, until the application knows
 * - done: out of the outbox
 */
export type SendState = "held" | "queued" | "in flight" | "failed" | "done";

/** One message of the outbox. */
export class Outgoing {
  /** The predecessor named when it was last sent. */
  after: Outgoing | undefined;
  /** Whether an attempt before the one in flight may have reached a server. */
  sentBefore = false;

  constructor(
    public message: StoredMessage,
    public state: SendState,
  ) {}
}

class Lane {
  /** All that isn't acknowledged, in order. */
  readonly items: Outgoing[] = [];
  attempt = 0;
  notBefore = 0;
  ready = false;

  constructor(readonly conversationId: string) {}

  /** Where an item of a position stands, or would. */
  indexOf(position: number): number {
    let low = 0;
    let high = this.items.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.items[middle] as Outgoing).message.position < position) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }

  insert(item: Outgoing): void {
    this.items.splice(this.indexOf(item.message.position), 0, item);
  }

  discard(item: Outgoing): void {
    const index = this.indexOf(item.message.position);
    if (this.items[index] === item) {
      this.items.splice(index, 1);
    }
  }

  predecessor(item: Outgoing): Outgoing | undefined {
    return this.items[this.indexOf(item.message.position) - 1];
  }

  /** The first that may be sent; nothing overtakes one that is held. */
  head(): Outgoing | undefined {
    const first = this.items.find((item) => item.state !== "in flight");
    return first?.state === "queued" ? first : undefined;
  }
}

const RETRYABLE: ReadonlySet<Code> = new Set([
  Code.CANCELLED,
  Code.UNKNOWN,
  Code.DEADLINE_EXCEEDED,
  Code.RESOURCE_EXHAUSTED,
  Code.ABORTED,
  Code.INTERNAL,
  Code.UNAVAILABLE,
  Code.UNAUTHENTICATED,
]);
const RETRYABLE_REASONS: ReadonlySet<string> = new Set([
  "PREDECESSOR_MISSING",
  "HELLO_EXPECTED",
  "OUTCOME_UNKNOWN",
]);

/** Whether the same message may be taken later. */
export function isRetryable(error: TidingsError): boolean {
  if (error.reason === "TOO_LARGE") {
    return false;
  }
  return RETRYABLE.has(error.code) || RETRYABLE_REASONS.has(error.reason);
}

/** All messages that the server doesn't have for good. Moments are milliseconds of the clock that nobody sets. */
export class Outbox implements Iterable<Outgoing> {
  /** The number of messages that were sent and have no result. */
  inFlight = 0;
  readonly #items = new Map<string, Outgoing>();
  readonly #lanes = new Map<string, Lane>();
  readonly #ready: Lane[] = [];
  readonly #waiting = new Set<Lane>();
  #position = 1;

  constructor(
    private readonly backoff: Backoff,
    private readonly random: Random,
  ) {}

  get size(): number {
    return this.#items.size;
  }

  /** All messages, in order. */
  [Symbol.iterator](): Iterator<Outgoing> {
    return [...this.#items.values()]
      .sort((a, b) => a.message.position - b.message.position)
      .values();
  }

  /** The message of an id. */
  get(messageId: string): Outgoing | undefined {
    return this.#items.get(messageId);
  }

  /** The place of a new message: after all others. */
  nextPosition(): number {
    return this.#position++;
  }

  /** Take a message that is durable already. */
  restore(message: StoredMessage): Outgoing {
    this.#position = Math.max(this.#position, message.position + 1);
    if (message.failure !== undefined) {
      const item = new Outgoing(message, "failed");
      this.#items.set(message.messageId, item);
      return item;
    }
    const item = this.add(message);
    item.sentBefore = message.sealed;
    this.stored(item);
    return item;
  }

  /** Take a message that is being made durable; those behind it in its lane wait for it. */
  add(message: StoredMessage): Outgoing {
    const item = new Outgoing(message, "held");
    this.#items.set(message.messageId, item);
    let lane = this.#lanes.get(message.conversationId);
    if (lane === undefined) {
      lane = new Lane(message.conversationId);
      this.#lanes.set(message.conversationId, lane);
    }
    lane.insert(item);
    return item;
  }

  /** Something about a message is to be made durable first. A result that is under way doesn't count any more. */
  hold(item: Outgoing): void {
    if (item.state === "in flight") {
      this.#requeue(item);
    }
    item.state = "held";
  }

  /** It is durable, and the message may be sent. */
  stored(item: Outgoing): void {
    if (item.state === "held") {
      item.state = "queued";
      this.#makeReady(this.#laneOf(item));
    }
  }

  /** A message is out of the store, or couldn't be put there: those behind it go on without it. */
  drop(item: Outgoing): void {
    this.#settle(item, "done");
    this.#items.delete(item.message.messageId);
  }

  /** It is durable that a message was refused for good: those behind it go on without it. */
  fail(item: Outgoing): void {
    this.#settle(item, "failed");
  }

  /** The messages that were never sent and whose id isn't final. */
  unsealed(): Outgoing[] {
    return [...this].filter((item) => !item.message.sealed && item.state === "queued");
  }

  /** Make a message's id final, perhaps another one, before it is first sent; it is to be stored like this. */
  seal(item: Outgoing, messageId: string): StoredMessage {
    const old = item.message;
    item.message = { ...old, messageId, sealed: true };
    if (messageId !== old.messageId) {
      this.#items.delete(old.messageId);
      this.#items.set(messageId, item);
    }
    return item.message;
  }

  /** The next message to be sent, in flight from now on; `room` is how many may be in flight. */
  nextSend(now: number, room: number): Outgoing | undefined {
    for (let lane = this.#ready[0]; lane !== undefined; lane = this.#ready[0]) {
      if (this.inFlight >= room) {
        return undefined;
      }
      const item = lane.head();
      this.#ready.shift();
      if (item !== undefined && lane.notBefore <= now) {
        item.state = "in flight";
        item.after = lane.predecessor(item);
        this.inFlight += 1;
        // The other lanes get their turn: a long backlog in one conversation doesn't hold up the rest.
        this.#ready.push(lane);
        return item;
      }
      lane.ready = false;
      if (item !== undefined) {
        this.#waiting.add(lane);
      }
    }
    return undefined;
  }

  /** The server has a message for good. */
  accepted(item: Outgoing): void {
    const lane = this.#lanes.get(item.message.conversationId);
    if (lane !== undefined) {
      lane.attempt = 0;
      lane.notBefore = 0;
    }
    this.#settle(item, "done");
    this.#items.delete(item.message.messageId);
  }

  /**
   * Whether a message that was refused may be taken when it is sent again. An id that lies ahead of one server's clock
   * may not lie ahead of another's, where an attempt before may be committed yet: time decides.
   */
  mayBeTakenLater(item: Outgoing, error: TidingsError): boolean {
    return isRetryable(error) || (error.reason === "ID_AHEAD" && item.sentBefore);
  }

  /** The server didn't take a message that was in flight; it is sent again, after a while. */
  retry(item: Outgoing, error: TidingsError, now: number): void {
    const lane = this.#laneOf(item);
    this.#requeue(item);
    if (error.reason === "PREDECESSOR_MISSING" && item.after?.state !== "in flight") {
      // The predecessor is to be sent first, or is out of the way: nothing to wait for.
      this.#makeReady(lane);
      return;
    }
    const atLeast = error.retryAfter ?? 0;
    if (lane.notBefore <= now) {
      // One failure tells about the whole lane: the others of the same flight don't make it wait longer.
      lane.notBefore = now + this.backoff.delay(lane.attempt, this.random, atLeast);
      lane.attempt += 1;
    } else {
      lane.notBefore = Math.max(lane.notBefore, now + atLeast);
    }
    this.#waiting.add(lane);
  }

  /** The connection is gone: what was in flight is to be sent again, at once and in order. */
  reconnect(): void {
    for (const lane of this.#lanes.values()) {
      for (const item of lane.items) {
        if (item.state === "in flight") {
          this.#requeue(item);
        }
      }
      lane.notBefore = 0;
      this.#makeReady(lane);
    }
  }

  /** Let the lanes send that have waited long enough. */
  wake(now: number): void {
    for (const lane of [...this.#waiting]) {
      if (lane.notBefore <= now) {
        this.#makeReady(lane);
      }
    }
  }

  /** When the next lane has waited long enough. */
  wakeAt(): number | undefined {
    let soonest: number | undefined;
    for (const lane of this.#waiting) {
      soonest = Math.min(soonest ?? lane.notBefore, lane.notBefore);
    }
    return soonest;
  }

  #laneOf(item: Outgoing): Lane {
    const lane = this.#lanes.get(item.message.conversationId);
    if (lane === undefined) {
      throw new Error("the message isn't in the outbox");
    }
    return lane;
  }

  #requeue(item: Outgoing): void {
    item.state = "queued";
    item.sentBefore = true;
    this.inFlight -= 1;
  }

  /** Take a message out of its lane, which goes on without it. */
  #settle(item: Outgoing, state: "failed" | "done"): void {
    if (item.state === "in flight") {
      this.inFlight -= 1;
    }
    item.state = state;
    const lane = this.#lanes.get(item.message.conversationId);
    if (lane === undefined) {
      return;
    }
    lane.discard(item);
    if (lane.items.length === 0) {
      this.#waiting.delete(lane);
      this.#lanes.delete(lane.conversationId);
    } else {
      this.#makeReady(lane);
    }
  }

  #makeReady(lane: Lane): void {
    this.#waiting.delete(lane);
    if (!lane.ready) {
      lane.ready = true;
      this.#ready.push(lane);
    }
  }
}
