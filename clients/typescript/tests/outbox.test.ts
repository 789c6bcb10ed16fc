/** The outbox, message by message. */

import fc from "fast-check";
import { expect, test } from "vitest";
import { Backoff } from "../src/backoff.js";
import { Code, TidingsError } from "../src/errors.js";
import { isRetryable, Outbox, type Outgoing } from "../src/outbox.js";
import type { StoredFailure, StoredMessage } from "../src/state.js";
import { highest, seeded } from "./seeded.js";

const outbox = () => new Outbox(new Backoff(1000, 8000), highest);

function message(position: number, messageId: string, conversationId = "c"): StoredMessage {
  return {
    position,
    conversationId,
    messageId,
    content: new Uint8Array(),
    timeMs: 0,
    sealed: true,
  };
}

function add(box: Outbox, name: string, conversation = "c"): Outgoing {
  const item = box.add(message(box.nextPosition(), name, conversation));
  box.stored(item);
  return item;
}

/** What goes out now: each id with the predecessor that it names. */
function sendAll(box: Outbox, now = 0, room = 100): [string, string | undefined][] {
  box.wake(now);
  const sent: [string, string | undefined][] = [];
  for (let item = box.nextSend(now, room); item; item = box.nextSend(now, room)) {
    sent.push([item.message.messageId, item.after?.message.messageId]);
  }
  return sent;
}

const ids = (box: Outbox) => [...box].map((item) => item.message.messageId);

function refusal(code: Code, reason = "", retryAfter?: number): TidingsError {
  return new TidingsError(code, "refused", { reason, retryAfter });
}

const UNAVAILABLE = refusal(Code.UNAVAILABLE, "STORE_UNAVAILABLE");
const MISSING = refusal(Code.FAILED_PRECONDITION, "PREDECESSOR_MISSING");
const AHEAD = refusal(Code.INVALID_ARGUMENT, "ID_AHEAD");

test("only what was not sent before is refused for an id ahead", () => {
  const box = outbox();
  const item = add(box, "1");
  sendAll(box);
  expect(box.mayBeTakenLater(item, AHEAD)).toBe(false);
  box.reconnect();
  sendAll(box);
  // The attempt before may have reached a server whose clock is ahead, and be committed yet.
  expect(box.mayBeTakenLater(item, AHEAD)).toBe(true);
  expect(box.mayBeTakenLater(item, refusal(Code.PERMISSION_DENIED, "RIGHT_MISSING"))).toBe(false);
});

test("what a process before may have sent is not refused for an id ahead", () => {
  const box = outbox();
  const sealed = box.restore(message(1, "1", "a"));
  const unsealed = box.restore({ ...message(2, "2", "b"), sealed: false });
  sendAll(box);
  expect(box.mayBeTakenLater(sealed, AHEAD)).toBe(true);
  expect(box.mayBeTakenLater(unsealed, AHEAD)).toBe(false);
});

test("each names its predecessor in the same conversation", () => {
  const box = outbox();
  for (const [name, conversation] of ["1a", "2b", "3a", "4a", "5b"]) {
    add(box, name as string, conversation);
  }
  expect(sendAll(box).sort()).toEqual([
    ["1", undefined],
    ["2", undefined],
    ["3", "1"],
    ["4", "3"],
    ["5", "2"],
  ]);
  expect(box.inFlight).toBe(5);
});

test("an acknowledged predecessor is not named", () => {
  const box = outbox();
  const first = add(box, "1");
  const second = add(box, "2");
  sendAll(box);
  box.accepted(first);
  add(box, "3");
  expect(sendAll(box)).toEqual([["3", "2"]]);
  box.accepted(second);
  expect(ids(box)).toEqual(["3"]);
});

test("conversations take turns", () => {
  const box = outbox();
  for (let n = 0; n < 4; n += 1) {
    add(box, `a${n}`, "a");
  }
  add(box, "b0", "b");
  expect(sendAll(box, 0, 3).map(([name]) => name)).toEqual(["a0", "b0", "a1"]);
});

test("a refusal holds back those behind it until it is tried again", () => {
  const box = outbox();
  const [first, second, third] = [add(box, "1"), add(box, "2"), add(box, "3")];
  sendAll(box);
  box.retry(first, UNAVAILABLE, 10_000);
  box.retry(second, MISSING, 10_000);
  expect(sendAll(box, 10_500)).toEqual([]);
  expect(box.wakeAt()).toBe(11_000);
  expect(sendAll(box, 11_000)).toEqual([
    ["1", undefined],
    ["2", "1"],
  ]);
  expect(third.state).toBe("in flight");
  box.retry(third, MISSING, 11_000);
  // Its predecessor is in flight as well: it may overtake it once more, so there is a wait.
  expect(box.wakeAt()).toBe(13_000);
});

test("one failure of a flight counts once", () => {
  const box = outbox();
  const items = ["0", "1", "2", "3", "4"].map((name) => add(box, name));
  sendAll(box);
  for (const item of items) {
    box.retry(item, UNAVAILABLE, 0);
  }
  expect(box.wakeAt()).toBe(1000);
  sendAll(box, 1000);
  for (const item of items) {
    box.retry(item, UNAVAILABLE, 1000);
  }
  expect(box.wakeAt()).toBe(3000);
});

test("the wait that the server asks for is kept", () => {
  const box = outbox();
  const [first, second] = [add(box, "0"), add(box, "1")];
  sendAll(box);
  box.retry(first, UNAVAILABLE, 0);
  box.retry(second, refusal(Code.RESOURCE_EXHAUSTED, "", 20_000), 0);
  expect(box.wakeAt()).toBe(20_000);
});

test("waits start anew after a success", () => {
  const box = outbox();
  const first = add(box, "1");
  for (const now of [0, 1000, 3000]) {
    sendAll(box, now);
    box.retry(first, UNAVAILABLE, now);
  }
  expect(box.wakeAt()).toBe(7000);
  sendAll(box, 7000);
  const second = add(box, "2");
  sendAll(box, 7000);
  box.accepted(first);
  box.retry(second, UNAVAILABLE, 8000);
  expect(box.wakeAt()).toBe(9000);
});

test("those behind a failure name the one before it", () => {
  const box = outbox();
  const [first, second, third] = [add(box, "1"), add(box, "2"), add(box, "3")];
  sendAll(box);
  box.hold(second);
  box.retry(third, MISSING, 0);
  // Until it is durable that the second failed, the third waits: a crash could bring the second back.
  expect(sendAll(box, 0)).toEqual([]);
  box.fail(second);
  expect(sendAll(box, 0)).toEqual([["3", "1"]]);
  expect(second.state).toBe("failed");
  expect(ids(box)).toEqual(["1", "2", "3"]);
  box.drop(second);
  expect(ids(box)).toEqual(["1", "3"]);
  box.accepted(first);
  box.accepted(third);
  expect(box.inFlight).toBe(0);
});

test("one that is being stored holds back those behind it", () => {
  const box = outbox();
  const first = box.add(message(box.nextPosition(), "1"));
  add(box, "2");
  add(box, "3", "other");
  expect(sendAll(box)).toEqual([["3", undefined]]);
  box.stored(first);
  expect(sendAll(box)).toEqual([
    ["1", undefined],
    ["2", "1"],
  ]);
});

test("one that could not be stored lets those behind it go", () => {
  const box = outbox();
  const first = box.add(message(box.nextPosition(), "1"));
  add(box, "2");
  box.drop(first);
  expect(sendAll(box)).toEqual([["2", undefined]]);
});

test("what was in flight is sent again in order after a reconnect", () => {
  const box = outbox();
  const items = ["0", "1", "2", "3"].map((name) => add(box, name));
  sendAll(box, 0, 3);
  box.retry(items[1] as Outgoing, UNAVAILABLE, 0);
  box.reconnect();
  expect(box.inFlight).toBe(0);
  expect(sendAll(box, 0)).toEqual([
    ["0", undefined],
    ["1", "0"],
    ["2", "1"],
    ["3", "2"],
  ]);
});

test("one accepted while it waits is not sent again", () => {
  const box = outbox();
  const first = add(box, "1");
  add(box, "2");
  sendAll(box);
  box.retry(first, UNAVAILABLE, 0);
  box.accepted(first);
  box.reconnect();
  expect(sendAll(box, 100_000)).toEqual([["2", undefined]]);
});

test("what is restored keeps its order and comes before what is new", () => {
  const box = outbox();
  const failure: StoredFailure = { code: 7, reason: "RIGHT_MISSING", field: "", message: "no" };
  box.restore(message(5, "5"));
  box.restore(message(9, "9"));
  const failed = box.restore({ ...message(7, "7"), failure });
  expect(failed.state).toBe("failed");
  add(box, "new");
  expect(sendAll(box)).toEqual([
    ["5", undefined],
    ["9", "5"],
    ["new", "9"],
  ]);
});

test.each([
  [Code.UNAVAILABLE, "OUTCOME_UNKNOWN", true],
  [Code.UNAVAILABLE, "STORE_UNAVAILABLE", true],
  [Code.UNAVAILABLE, "DRAINING", true],
  [Code.RESOURCE_EXHAUSTED, "TOO_MANY_IN_FLIGHT", true],
  [Code.RESOURCE_EXHAUSTED, "TOO_LARGE", false],
  [Code.ABORTED, "SESSION_REPLACED", true],
  [Code.FAILED_PRECONDITION, "PREDECESSOR_MISSING", true],
  [Code.FAILED_PRECONDITION, "HELLO_EXPECTED", true],
  [Code.FAILED_PRECONDITION, "DIRECT_FIXED", false],
  [Code.INTERNAL, "INTERNAL", true],
  [Code.UNAUTHENTICATED, "TOKEN_EXPIRED", true],
  [Code.INVALID_ARGUMENT, "INVALID_FIELD", false],
  [Code.INVALID_ARGUMENT, "ID_AHEAD", false],
  [Code.NOT_FOUND, "CONVERSATION_NOT_FOUND", false],
  [Code.PERMISSION_DENIED, "DENIED", false],
  [Code.ALREADY_EXISTS, "ID_REUSED", false],
])("what may pass: %i %s %s", (code, reason, expected) => {
  expect(isRetryable(refusal(code, reason))).toBe(expected);
});

test("waits are jittered in full and capped", () => {
  const atLeast = fc.double({ min: 0, max: 100_000, noNaN: true });
  fc.assert(
    fc.property(fc.nat(10_000), atLeast, fc.nat(), (attempt, least, seed) => {
      const delay = new Backoff(500, 30_000).delay(attempt, seeded(seed), least);
      expect(delay).toBeGreaterThanOrEqual(least);
      expect(delay).toBeLessThanOrEqual(
        least + Math.min(30_000, 500 * 2 ** Math.min(attempt, 100)),
      );
    }),
  );
});
