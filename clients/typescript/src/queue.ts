/** The events that wait for the application, bounded, whoever does or doesn't take them. No I/O, no clock. */

import type { Event, ReceiptUpdate } from "./events.js";
import type { Log } from "./logs.js";

/** What is never dropped for want of room. */
const KEPT: ReadonlySet<Event["type"]> = new Set([
  "incarnationChanged",
  "positionLost",
  "messageFailed",
]);

/** An event that stands in a log, or comes again with what follows it there; it is converted when it is handed on. */
interface InLog {
  readonly log: Log;
  /** The position up to which the application has the log once it has the event; 0 for none. */
  readonly upTo: number;
  readonly make: (userId: string) => Event;
}

/** A receipt that waits; a newer one of the same member takes its place. */
interface Waiting {
  receipt: ReceiptUpdate;
}

type Queued = InLog | Waiting | { readonly event: Event };

/**
 * Events in the order in which they are to be applied.
 *
 * What stands in logs is bounded by the server's window. Receipts are merged. Of the rest the oldest is dropped where
 * nobody takes it.
 */
export class EventQueue {
  #items: Queued[] = [];
  /** How many at the front were taken: taking one by one from the front of an array costs its length each time. */
  #taken = 0;
  readonly #receipts = new Map<string, Waiting>();

  constructor(private readonly maxEvents: number) {}

  get size(): number {
    return this.#items.length - this.#taken;
  }

  /** Queue an event that stands in no log. */
  put(event: Event): void {
    if (this.size >= this.maxEvents) {
      this.#makeRoom();
    }
    this.#items.push({ event });
  }

  /** Queue what stands in a log up to a position, or with 0 comes again with what follows it there. */
  putInLog(log: Log, upTo: number, make: (userId: string) => Event): void {
    this.#items.push({ log, upTo, make });
  }

  /** Queue a receipt, or raise the marks of one that waits. */
  putReceipt(receipt: ReceiptUpdate): void {
    const key = keyOf(receipt);
    const waiting = this.#receipts.get(key);
    if (waiting === undefined) {
      const fresh = { receipt };
      this.#receipts.set(key, fresh);
      this.#items.push(fresh);
      return;
    }
    waiting.receipt = {
      ...receipt,
      deliveredSeq: Math.max(receipt.deliveredSeq, waiting.receipt.deliveredSeq),
      readSeq: Math.max(receipt.readSeq, waiting.receipt.readSeq),
    };
  }

  /** The next event for the application of a user, handed on from now on. */
  take(userId: string): Event | undefined {
    const item = this.#items[this.#taken];
    if (item === undefined) {
      return undefined;
    }
    this.#taken += 1;
    if (this.#taken * 2 > this.#items.length) {
      this.#items = this.#items.slice(this.#taken);
      this.#taken = 0;
    }
    if ("log" in item) {
      item.log.hand(item.upTo);
      return item.make(userId);
    }
    if ("receipt" in item) {
      this.#receipts.delete(keyOf(item.receipt));
      return item.receipt;
    }
    return item.event;
  }

  /** Drop what stands in logs: it will come again. */
  dropLogs(): void {
    this.#keep((item) => !("log" in item));
  }

  /** Drop what stands in one log. */
  dropLog(log: Log): void {
    this.#keep((item) => !("log" in item && item.log === log));
  }

  /** Half of what stands in no log goes, the oldest first. */
  #makeRoom(): void {
    let spare = Math.floor(this.size / 2);
    this.#keep((item) => {
      if (spare === 0 || "log" in item || ("event" in item && KEPT.has(item.event.type))) {
        return true;
      }
      spare -= 1;
      if ("receipt" in item) {
        this.#receipts.delete(keyOf(item.receipt));
      }
      return false;
    });
  }

  #keep(test: (item: Queued) => boolean): void {
    this.#items = this.#items.slice(this.#taken).filter(test);
    this.#taken = 0;
  }
}

function keyOf(receipt: ReceiptUpdate): string {
  return `${receipt.conversationId} ${receipt.userId}`;
}
