/** The events of a client, in order, for one reader at a time. */

import type { Clock } from "./clock.js";
import { ClientClosed, Code, TidingsError } from "./errors.js";
import type { Event } from "./events.js";
import type { Runner } from "./runner.js";

const EVENTS_IN_A_ROW = 64;

/** See `Client.events`. */
export class EventStream implements AsyncIterableIterator<Event> {
  #previous: Event | undefined;
  #asked = false;
  #inARow = 0;

  constructor(
    private readonly runner: Runner,
    private readonly clock: Clock,
  ) {}

  [Symbol.asyncIterator](): this {
    return this;
  }

  async next(): Promise<IteratorResult<Event, undefined>> {
    if (this.#asked) {
      throw new TidingsError(Code.FAILED_PRECONDITION, "somebody is waiting for events already");
    }
    this.#asked = true;
    try {
      return await this.#take();
    } finally {
      this.#asked = false;
    }
  }

  /** Leaving a loop says nothing of the event that was handed over last, and another loop goes on from there. */
  async return(): Promise<IteratorResult<Event, undefined>> {
    return { done: true, value: undefined };
  }

  async #take(): Promise<IteratorResult<Event, undefined>> {
    const runner = this.runner;
    if (this.#previous !== undefined && runner.config.autoApply) {
      runner.applied(this.#previous);
    }
    this.#previous = undefined;
    if (this.#inARow >= EVENTS_IN_A_ROW) {
      // A backlog must not keep acknowledgements and everybody else waiting.
      this.#inARow = 0;
      await this.clock.yield();
    }
    while (true) {
      const event = runner.core.nextEvent();
      if (event !== undefined) {
        this.#inARow += 1;
        this.#previous = event;
        return { done: false, value: event };
      }
      this.#inARow = 0;
      if (runner.ended instanceof ClientClosed) {
        return { done: true, value: undefined };
      }
      if (runner.ended !== undefined) {
        throw runner.ended;
      }
      await runner.changed();
    }
  }
}
