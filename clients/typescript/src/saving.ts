/** Saves what the core wants kept, in order, and tries again for as long as the client is open. */

import { backoffOf } from "./config.js";
import type { SessionCore } from "./core.js";
import type { Parts } from "./runner.js";
import type { Batch } from "./unsaved.js";

export class Saver {
  #batch: Batch | undefined;
  #saving: Promise<void> | undefined;
  #cancelTimer: (() => void) | undefined;
  #wakeUp: (() => void) | undefined;
  #stopped = false;

  /** @param saved Called after each time that something was saved. */
  constructor(
    private readonly core: SessionCore,
    private readonly parts: Parts,
    private readonly saved: () => void,
  ) {}

  /** Save now what is due now, and soon what can wait. */
  saveIfDue(): void {
    if (this.core.savingDue) {
      this.#begin();
    } else if (this.#cancelTimer === undefined && this.core.hasUnsaved) {
      this.#cancelTimer = this.parts.clock.after(this.parts.config.applyDelay, () => this.#begin());
    }
  }

  /** Save until nothing is left. */
  async finish(): Promise<void> {
    while (!this.#stopped && (this.core.hasUnsaved || this.#batch !== undefined)) {
      this.#begin();
      await this.#saving;
    }
  }

  /** Save no more. */
  stop(): void {
    this.#stopped = true;
    this.#cancelTimer?.();
    this.#wakeUp?.();
  }

  #begin(): void {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    this.#saving ??= this.#save();
  }

  async #save(): Promise<void> {
    const backoff = backoffOf(this.parts.config);
    let attempt = 0;
    do {
      this.#batch ??= this.core.takeUnsaved();
      try {
        await this.#saveOne(this.#batch);
      } catch (error) {
        this.parts.warn("the state can't be saved", error);
        await this.#pause(backoff.delay(attempt, this.parts.random));
        attempt += 1;
        continue;
      }
      attempt = 0;
      const batch = this.#batch;
      this.#batch = undefined;
      this.core.saved(batch);
      this.saved();
    } while (!this.#stopped && (this.#batch !== undefined || this.core.savingDue));
    this.#saving = undefined;
  }

  /** Save once; repeating the whole after a failure does no harm. */
  async #saveOne(batch: Batch): Promise<void> {
    const { store } = this.parts;
    if (batch.updated.size > 0) {
      await store.update(batch.updated);
    }
    if (batch.session !== undefined) {
      await store.saveSession(batch.session, batch.allCursors);
    }
    if (batch.cursors.length > 0) {
      await store.saveCursors(batch.cursors.map(([, cursor]) => cursor));
    }
    if (batch.removed.length > 0) {
      await store.remove(batch.removed);
    }
  }

  #pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const cancel = this.parts.clock.after(ms, resolve);
      this.#wakeUp = () => {
        cancel();
        resolve();
      };
    });
  }
}
