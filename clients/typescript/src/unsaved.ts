/** What the core has to keep over restarts and hasn't saved yet. */

import type { Log } from "./logs.js";
import type { StoredCursor, StoredMessage, StoredSession } from "./state.js";

/** What is to be saved, in this order, and then given to `saved`. */
export interface Batch {
  readonly updated: Map<string, StoredMessage>;
  session?: StoredSession;
  allCursors?: StoredCursor[];
  cursors: [Log, StoredCursor][];
  readonly removed: string[];
  gate: number;
}

const empty = (): Batch => ({ updated: new Map(), cursors: [], removed: [], gate: 0 });

/** Gathers what is to be saved until it is taken. */
export class Unsaved {
  /** Whether something waits for it. */
  urgent = false;
  #batch = empty();

  /** Whether there is something. */
  get any(): boolean {
    const { updated, session, removed } = this.#batch;
    return updated.size > 0 || session !== undefined || removed.length > 0;
  }

  /** What there is. */
  take(): Batch {
    const batch = this.#batch;
    this.#batch = empty();
    this.urgent = false;
    return batch;
  }

  /** A message waits until it is stored like this. */
  update(oldId: string, message: StoredMessage): void {
    this.#batch.updated.set(oldId, message);
    this.urgent = true;
  }

  /** A message is no longer needed. */
  remove(messageId: string): void {
    this.#batch.removed.push(messageId);
  }

  /** The session is to be set and, if given, the cursors are to replace all others. */
  session(session: StoredSession, allCursors?: StoredCursor[]): void {
    this.#batch.session = session;
    if (allCursors !== undefined) {
      this.#batch.allCursors = allCursors;
    }
    this.urgent = true;
  }
}
