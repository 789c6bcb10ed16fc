/** A state store in IndexedDB, for one tab at a time. */

import { StateError } from "./errors.js";
import {
  NO_SESSION,
  type StateStore,
  type StoredCursor,
  type StoredMessage,
  type StoredSession,
  type StoredState,
} from "./state.js";

const VERSION = 1;
const SESSION = "session";
const CURSORS = "cursors";
const MESSAGES = "messages";
const BY_ID = "messageId";

type Work = (transaction: IDBTransaction) => void;

/** A state store in IndexedDB; see StateStore for what it promises. A second client, in whichever tab, is refused. */
export class IndexedDbStateStore implements StateStore {
  #db: IDBDatabase | undefined;
  #release = () => {};

  /** @param name The name of the database, one for each device of each user. */
  constructor(readonly name: string) {}

  async open(): Promise<StoredState> {
    if (this.#db !== undefined || !(await this.#lock())) {
      throw new StateError(`${this.name} is in use by another client`);
    }
    try {
      const db = await opened(this.name);
      this.#db = db;
      // Another version of the page wants to change it: it is let go, and what is asked of it later fails.
      db.onversionchange = () => db.close();
      return await this.#read();
    } catch (error) {
      await this.close();
      throw error instanceof StateError ? error : new StateError(`${this.name}: ${error}`);
    }
  }

  /** The lock is held until `close`, and the browser lets go of it with the tab. */
  async #lock(): Promise<boolean> {
    if (globalThis.navigator?.locks === undefined) {
      throw new StateError(`${this.name}: pages keep state only where they came by https`);
    }
    return new Promise((resolve, reject) => {
      navigator.locks
        .request(`tidings-state:${this.name}`, { ifAvailable: true }, (lock) => {
          resolve(lock !== null);
          return (
            lock &&
            new Promise<void>((release) => {
              this.#release = release;
            })
          );
        })
        .catch(reject);
    });
  }

  async #read(): Promise<StoredState> {
    let read: StoredState = { session: NO_SESSION, cursors: [], messages: [] };
    await this.#transact("readonly", (transaction) => {
      const session = transaction.objectStore(SESSION).get(0);
      const cursors = transaction.objectStore(CURSORS).getAll();
      // By its key, the position.
      const messages = transaction.objectStore(MESSAGES).getAll();
      transaction.addEventListener("complete", () => {
        read = {
          session: session.result ?? NO_SESSION,
          cursors: cursors.result,
          messages: messages.result,
        };
      });
    });
    return read;
  }

  add(messages: readonly StoredMessage[]): Promise<void> {
    return this.#transact("strict", (transaction) => {
      for (const message of messages) {
        transaction.objectStore(MESSAGES).add(message);
      }
    });
  }

  update(messages: ReadonlyMap<string, StoredMessage>): Promise<void> {
    return this.#transact("strict", (transaction) => {
      const store = transaction.objectStore(MESSAGES);
      for (const [oldId, message] of messages) {
        const found = store.index(BY_ID).getKey(oldId);
        found.onsuccess = () => {
          if (found.result !== undefined) {
            store.put(message);
          }
        };
      }
    });
  }

  remove(messageIds: readonly string[]): Promise<void> {
    return this.#transact("relaxed", (transaction) => {
      const store = transaction.objectStore(MESSAGES);
      for (const messageId of messageIds) {
        const found = store.index(BY_ID).getKey(messageId);
        found.onsuccess = () => {
          if (found.result !== undefined) {
            store.delete(found.result);
          }
        };
      }
    });
  }

  saveCursors(cursors: readonly StoredCursor[]): Promise<void> {
    return this.#transact("relaxed", (transaction) => {
      const store = transaction.objectStore(CURSORS);
      for (const cursor of cursors) {
        if (cursor.seq) {
          store.put(cursor);
        } else {
          store.delete(cursor.log);
        }
      }
    });
  }

  saveSession(session: StoredSession, cursors?: readonly StoredCursor[]): Promise<void> {
    return this.#transact("strict", (transaction) => {
      transaction.objectStore(SESSION).put(session, 0);
      if (cursors !== undefined) {
        const store = transaction.objectStore(CURSORS);
        store.clear();
        for (const cursor of cursors) {
          store.put(cursor);
        }
      }
    });
  }

  async close(): Promise<void> {
    // It closes once the transactions that were begun are over.
    this.#db?.close();
    this.#db = undefined;
    this.#release();
    this.#release = () => {};
  }

  /** Do it all or nothing; "strict" is durable, "relaxed" is kept. */
  #transact(how: "readonly" | "strict" | "relaxed", work: Work): Promise<void> {
    return new Promise((resolve, reject) => {
      const fail = (error: unknown) => reject(new StateError(`${this.name}: ${error}`));
      if (this.#db === undefined) {
        fail("it isn't open");
        return;
      }
      try {
        const mode = how === "readonly" ? "readonly" : "readwrite";
        // All of them, so that calls take effect in the order in which they were made.
        const transaction = this.#db.transaction([SESSION, CURSORS, MESSAGES], mode, {
          durability: how === "strict" ? "strict" : "relaxed",
        });
        transaction.oncomplete = () => resolve();
        transaction.onabort = () => fail(transaction.error ?? "the transaction was given up");
        work(transaction);
      } catch (error) {
        fail(error);
      }
    });
  }
}

function opened(name: string): Promise<IDBDatabase> {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(name, VERSION);
    request.onupgradeneeded = () => {
      const db = request.result;
      db.createObjectStore(SESSION);
      db.createObjectStore(CURSORS, { keyPath: "log" });
      const messages = db.createObjectStore(MESSAGES, { keyPath: "position" });
      messages.createIndex(BY_ID, "messageId", { unique: true });
    };
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => {
      const newer = request.error?.name === "VersionError";
      const why = newer ? "it was written by a newer version of the SDK" : request.error;
      reject(new StateError(`${name}: ${why}`));
    };
  });
}
