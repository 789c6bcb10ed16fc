/** What a client keeps over restarts: the port and its contract, and a store in memory. */

import { StateError } from "./errors.js";

/** Whose state it is, and of which store. */
export interface StoredSession {
  /** The user, empty before the first session. */
  readonly userId: string;
  /** The device, empty before the first session. */
  readonly deviceId: string;
  /** The incarnation of the server's store that the cursors belong to, empty before the first session. */
  readonly incarnation: string;
  /**
   * Whether the application knows of that incarnation. While it doesn't, the cursors are the positions that it is to be
   * told of.
   */
  readonly announced: boolean;
}

export const NO_SESSION: StoredSession = {
  userId: "",
  deviceId: "",
  incarnation: "",
  announced: true,
};

/** How far one log was applied. */
export interface StoredCursor {
  /** A conversation id, or "inbox:" followed by the user id. */
  readonly log: string;
  /** The newest position applied; 0 to keep nothing of the log. */
  readonly seq: number;
}

/** Why a message was refused for good; see TidingsError. */
export interface StoredFailure {
  readonly code: number;
  readonly reason: string;
  readonly field: string;
  readonly message: string;
}

/** One message in the outbox. */
export interface StoredMessage {
  /** Its place in the order of sending; larger is later. */
  readonly position: number;
  readonly conversationId: string;
  /** The UUIDv7 that names it. */
  readonly messageId: string;
  /** A serialised tidings.v1.MessageContent. It is sent as it is, always the same. */
  readonly content: Uint8Array;
  /** When it was queued, in milliseconds since the Unix epoch. */
  readonly timeMs: number;
  /** Whether its id is final: it may have been sent, and is never made anew. */
  readonly sealed: boolean;
  /** Why it was refused for good, until the application knows of it. */
  readonly failure?: StoredFailure;
}

/** All that a store holds; the messages by position. */
export interface StoredState {
  readonly session: StoredSession;
  readonly cursors: readonly StoredCursor[];
  readonly messages: readonly StoredMessage[];
}

/**
 * Where a client keeps its outbox and its cursors.
 *
 * Each call is atomic: it happens as a whole or not at all, and calls take effect in the order in which they were made,
 * also when several are awaited at once. Every failure is a StateError, and then nothing of the call was done. One client
 * uses a store at a time; `open` refuses a second one with StateError.
 *
 * "Durable" means that it survives the end of the process or tab at any moment. What is only "kept" may be gone after a
 * loss of power as if it had not been called: messages are then offered to the server again, which knows their ids, and
 * entries to the application again.
 */
export interface StateStore {
  /** Get hold of the store and read everything in it. Called first, and again after `close`. */
  open(): Promise<StoredState>;
  /** Add messages to the outbox. Durable when it returns: the network hears of a message only afterwards. */
  add(messages: readonly StoredMessage[]): Promise<void>;
  /** Replace messages, named by the id that they had, passing over those that aren't there. Durable. */
  update(messages: ReadonlyMap<string, StoredMessage>): Promise<void>;
  /** Remove messages from the outbox, passing over ids that aren't there. Kept. */
  remove(messageIds: readonly string[]): Promise<void>;
  /** Set the cursors of some logs, upwards or downwards; a cursor of 0 is forgotten. Kept. */
  saveCursors(cursors: readonly StoredCursor[]): Promise<void>;
  /** Set the session and, if cursors are given, put them in the place of all that there are. Durable. */
  saveSession(session: StoredSession, cursors?: readonly StoredCursor[]): Promise<void>;
  /** Let go of the store. Calls that were made before have taken effect. */
  close(): Promise<void>;
}

/** A state store in memory: it survives reconnects and the closing of a client, but not the process or tab. */
export class MemoryStateStore implements StateStore {
  session = NO_SESSION;
  readonly cursors = new Map<string, number>();
  readonly messages = new Map<string, StoredMessage>();
  #opened = false;

  async open(): Promise<StoredState> {
    if (this.#opened) {
      throw new StateError("the store is in use by another client");
    }
    this.#opened = true;
    return this.snapshot();
  }

  /** What it holds now. */
  snapshot(): StoredState {
    return {
      session: this.session,
      cursors: [...this.cursors].map(([log, seq]) => ({ log, seq })),
      messages: [...this.messages.values()].sort((a, b) => a.position - b.position),
    };
  }

  async add(messages: readonly StoredMessage[]): Promise<void> {
    for (const message of messages) {
      this.messages.set(message.messageId, message);
    }
  }

  async update(messages: ReadonlyMap<string, StoredMessage>): Promise<void> {
    for (const [oldId, message] of messages) {
      if (this.messages.delete(oldId)) {
        this.messages.set(message.messageId, message);
      }
    }
  }

  async remove(messageIds: readonly string[]): Promise<void> {
    for (const messageId of messageIds) {
      this.messages.delete(messageId);
    }
  }

  async saveCursors(cursors: readonly StoredCursor[]): Promise<void> {
    for (const { log, seq } of cursors) {
      if (seq) {
        this.cursors.set(log, seq);
      } else {
        this.cursors.delete(log);
      }
    }
  }

  async saveSession(session: StoredSession, cursors?: readonly StoredCursor[]): Promise<void> {
    this.session = session;
    if (cursors !== undefined) {
      this.cursors.clear();
      await this.saveCursors(cursors);
    }
  }

  async close(): Promise<void> {
    this.#opened = false;
  }
}
