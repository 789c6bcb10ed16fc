/** One suite for state stores, run whole by each: memory, and IndexedDB in a double of a browser's. */

import "fake-indexeddb/auto";
import { describe, expect, test } from "vitest";
import { StateError } from "../src/errors.js";
import { IndexedDbStateStore } from "../src/indexeddb.js";
import { MemoryStateStore, NO_SESSION, type StateStore, type StoredMessage } from "../src/state.js";

const SESSION = { userId: "alice", deviceId: "phone", incarnation: "one", announced: true };

function message(position: number, more: Partial<StoredMessage> = {}): StoredMessage {
  const messageId = `m${position}`;
  const content = new Uint8Array([1, 2, position]);
  const rest = { conversationId: "c", content, timeMs: 5, sealed: false };
  return { position, messageId, ...rest, ...more };
}

let databases = 0;
const kinds: [string, () => () => StateStore][] = [
  [
    "memory",
    () => {
      const store = new MemoryStateStore();
      return () => store;
    },
  ],
  [
    "IndexedDB",
    () => {
      databases += 1;
      const name = `state ${databases}`;
      return () => new IndexedDbStateStore(name);
    },
  ],
];

describe.each(kinds)("%s", (_, fresh) => {
  /** What is read by the next one that opens what this one leaves. */
  async function reopened(store: StateStore, again: () => StateStore) {
    await store.close();
    const next = again();
    const state = await next.open();
    await next.close();
    return state;
  }

  test("is empty at first", async () => {
    const again = fresh();
    const store = again();
    expect(await store.open()).toEqual({ session: NO_SESSION, cursors: [], messages: [] });
    await store.close();
  });

  test("keeps messages in the order of their positions", async () => {
    const again = fresh();
    const store = again();
    await store.open();
    await store.add([message(9), message(10)]);
    await store.add([message(2)]);
    const { messages } = await reopened(store, again);
    expect(messages).toEqual([message(2), message(9), message(10)]);
  });

  test("replaces messages by the id that they had, and only those that are there", async () => {
    const again = fresh();
    const store = again();
    await store.open();
    await store.add([message(1), message(2)]);
    const failure = { code: 7, reason: "RIGHT_MISSING", field: "", message: "no" };
    await store.update(
      new Map([
        ["m1", message(1, { messageId: "new", sealed: true })],
        ["m2", message(2, { failure })],
        ["gone", message(3, { messageId: "gone" })],
      ]),
    );
    const { messages } = await reopened(store, again);
    expect(messages).toEqual([
      message(1, { messageId: "new", sealed: true }),
      message(2, { failure }),
    ]);
  });

  test("removes messages, passing over what isn't there", async () => {
    const again = fresh();
    const store = again();
    await store.open();
    await store.add([message(1), message(2)]);
    await store.remove(["m1", "none"]);
    expect((await reopened(store, again)).messages).toEqual([message(2)]);
  });

  test("sets cursors up and down, and forgets those of 0", async () => {
    const again = fresh();
    const store = again();
    await store.open();
    await store.saveCursors([
      { log: "a", seq: 5 },
      { log: "b", seq: 6 },
      { log: "c", seq: 7 },
    ]);
    await store.saveCursors([
      { log: "a", seq: 2 },
      { log: "b", seq: 0 },
    ]);
    const { cursors } = await reopened(store, again);
    expect(cursors).toEqual([
      { log: "a", seq: 2 },
      { log: "c", seq: 7 },
    ]);
  });

  test("sets the session, and all cursors in the place of those there are if they are given", async () => {
    const again = fresh();
    const store = again();
    await store.open();
    await store.saveCursors([{ log: "a", seq: 5 }]);
    await store.saveSession(SESSION);
    const first = await reopened(store, again);
    expect(first).toMatchObject({ session: SESSION, cursors: [{ log: "a", seq: 5 }] });
    const next = again();
    await next.open();
    await next.saveSession({ ...SESSION, incarnation: "two" }, [{ log: "b", seq: 1 }]);
    const second = await reopened(next, again);
    expect(second.session.incarnation).toBe("two");
    expect(second.cursors).toEqual([{ log: "b", seq: 1 }]);
  });

  test("carries out calls in the order in which they were made", async () => {
    const again = fresh();
    const store = again();
    await store.open();
    const calls = [store.add([message(1)])];
    for (let seq = 1; seq <= 50; seq += 1) {
      calls.push(store.saveCursors([{ log: "a", seq }]));
    }
    calls.push(store.update(new Map([["m1", message(1, { sealed: true })]])));
    calls.push(store.remove(["m1"]), store.add([message(1, { messageId: "again" })]));
    await Promise.all(calls);
    const { cursors, messages } = await reopened(store, again);
    expect(cursors).toEqual([{ log: "a", seq: 50 }]);
    expect(messages).toEqual([message(1, { messageId: "again" })]);
  });

  test("is for one client at a time", async () => {
    const again = fresh();
    const store = again();
    await store.open();
    await expect(again().open()).rejects.toThrow(StateError);
    await store.add([message(1)]);
    expect((await reopened(store, again)).messages).toEqual([message(1)]);
  });
});

test("a call of IndexedDB that fails does nothing, and says so", async () => {
  const store = new IndexedDbStateStore("failing");
  await expect(store.add([message(1)])).rejects.toThrow(StateError);
  await store.open();
  await store.add([message(1)]);
  await expect(store.add([message(2), message(1)])).rejects.toThrow(StateError);
  await store.close();
  const next = new IndexedDbStateStore("failing");
  expect((await next.open()).messages).toEqual([message(1)]);
  await next.close();
});

test("a database of a newer version is left alone", async () => {
  const request = indexedDB.open("newer", 99);
  await new Promise((resolve) => {
    request.onsuccess = resolve;
  });
  request.result.close();
  await expect(new IndexedDbStateStore("newer").open()).rejects.toThrow(/newer version/);
});
