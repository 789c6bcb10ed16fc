/** The core, event by event. */

import { createHash } from "node:crypto";
import { create, toBinary } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { StateError } from "../src/errors.js";
import { ChatRequestSchema, HelloSchema } from "../src/gen/tidings/v1/chat_service_pb.js";
import { ErrorReason } from "../src/gen/tidings/v1/error_pb.js";
import { MessageContentSchema } from "../src/gen/tidings/v1/message_pb.js";
import { digestOf } from "../src/logs.js";
import {
  cursorsOf,
  Device,
  entries,
  entry,
  gap,
  result,
  SESSION,
  type Sent,
  seqs,
  skipped,
  state,
  types,
} from "./device.js";

const content = (text: string) =>
  toBinary(MessageContentSchema, create(MessageContentSchema, { text }));

function enqueue(device: Device, conversation = "a", text = "x") {
  const item = device.core.sends.enqueue(conversation, content(text), device.time);
  device.core.sends.stored(item, device.time);
  return item;
}

// Hello

test("hello names what is saved", () => {
  const device = new Device({ a: 5, "inbox:alice": 2 });
  const hello = device.connect();
  expect([hello.incarnation, hello.window, hello.catchUpLimit]).toEqual(["one", 8, 10_000]);
  device.greet();
  device.get(...entries("a", 6, 9));
  device.apply();
  expect(device.named()).toEqual({ a: 5, "inbox:alice": 2 });
  device.save();
  expect(device.named()).toEqual({ a: 9, "inbox:alice": 2 });
});

test("hello names ten thousand logs at most, and the inbox among them", () => {
  const many = Object.fromEntries(Array.from({ length: 10_500 }, (_, n) => [`c${n}`, 1]));
  const device = new Device({ ...many, "inbox:alice": 7 });
  const hello = device.connect();
  expect(hello.cursors.length).toBe(10_000);
  expect(toBinary(HelloSchema, hello).length).toBeLessThan(1 << 20);
  expect(hello.cursors[0]?.conversationId).toBe("inbox:alice");
  device.greet();
  // A log that wasn't named and then had something missing comes first the next time.
  expect(device.get(entry("c10499", 3))).toMatchObject([{ type: "reconnect" }]);
  expect(device.connect().cursors[0]?.conversationId).toBe("c10499");
});

test("nothing but hello is sent before welcome", () => {
  const device = new Device();
  enqueue(device);
  device.connect();
  expect(device.frames()).toEqual([]);
});

test.each([
  ["an entry", entry("a", 1)],
  ["a gap", gap("a", 1, 2)],
  ["skipped positions", skipped("a", 1, 2)],
  ["a state", state("a", 1, 2)],
])("%s before the result of hello is not taken", (_, event) => {
  const device = new Device();
  device.connect();
  expect(device.get(event)).toMatchObject([{ type: "reconnect" }]);
  expect(device.take()).toEqual([]);
});

test.each([
  [3, ErrorReason.INVALID_FIELD, "end"],
  [16, ErrorReason.TOKEN_INVALID, "end"],
  [14, ErrorReason.STORE_UNAVAILABLE, "reconnect"],
  [8, ErrorReason.TOO_LARGE, "reconnect"],
])("a hello refused with %i %i: %s", (code, reason, type) => {
  const device = new Device();
  device.connect();
  expect(device.get(result(1, code, reason))).toMatchObject([{ type }]);
});

// Positions

test("old positions are dropped and missing ones noticed", () => {
  const device = new Device({ a: 5 });
  device.open();
  expect(device.get(...entries("a", 4, 7), ...entries("a", 6, 7))).toEqual([]);
  expect(seqs(device.take())).toEqual([6, 7]);
  const hole = device.get(entry("a", 8), entry("a", 10), entry("a", 11));
  expect(hole).toMatchObject([{ type: "reconnect" }]);
  // What came before the hole wasn't handed on yet: it comes again, and nothing is taken meanwhile.
  expect(device.get(entry("a", 9))).toEqual([]);
  expect(device.take()).toEqual([]);
  device.open();
  device.get(...entries("a", 6, 11));
  expect(seqs(device.take())).toEqual([8, 9, 10, 11]);
});

test.each([
  ["a gap", gap("a", 2, 3)],
  ["skipped positions", skipped("a", 2, 3)],
  ["an entry", entry("a", 2)],
])("a log begins at its first position, whatever comes: %s", (_, missing) => {
  const device = new Device();
  device.open();
  expect(device.get(missing)).toMatchObject([{ type: "reconnect" }]);
});

test("a gap is handed on without what is known of it", () => {
  const device = new Device({ a: 5 });
  device.open();
  device.get(gap("a", 3, 8), gap("a", 2, 7), entry("a", 9));
  const [first, second] = device.take();
  expect(first).toEqual({
    type: "gap",
    conversationId: "a",
    fromSeq: 6,
    toSeq: 8,
    staleFromSeq: 3,
  });
  expect(second?.type).toBe("message");
  device.core.apply(first as NonNullable<typeof first>);
  expect(cursorsOf(device.save())).toEqual({ a: 8 });
});

test("skipped positions are applied with what comes before them", () => {
  const device = new Device();
  device.open();
  device.get(skipped("a", 1, 3), entry("a", 4), skipped("a", 5, 6), skipped("a", 7, 9));
  expect(cursorsOf(device.save())).toEqual({ a: 3 });
  expect(device.acks()).toEqual({ a: 3 });
  device.apply();
  expect(cursorsOf(device.save())).toEqual({ a: 9 });
  expect(device.acks()).toEqual({ a: 9 });
});

test("positions are skipped only once the states before them were applied", () => {
  const device = new Device({ a: 3 });
  device.open();
  device.get(state("a", 1, 5), state("a", 2, 6), skipped("a", 4, 6));
  expect(device.core.hasUnsaved).toBe(false);
  const events = device.take();
  expect(types(events)).toEqual(["messageState", "messageState", "skipped"]);
  for (const event of events.slice(0, 2)) {
    device.core.apply(event);
    expect(device.core.hasUnsaved, "or they would be lost with the next crash").toBe(false);
  }
  device.core.apply(events[2] as (typeof events)[0]);
  device.save();
  expect(device.acks()).toEqual({ a: 6 });
  // Where there was nothing to tell, nobody hears of it.
  device.get(skipped("a", 7, 8), entry("a", 9));
  expect(types(device.apply())).toEqual(["message"]);
  device.save();
  expect(device.acks()).toEqual({ a: 9 });
});

test("states come again with the positions behind them", () => {
  const device = new Device({ a: 3 });
  device.open();
  device.get(state("a", 1, 5));
  device.get(entry("b", 9));
  device.core.disconnected();
  expect(device.take()).toEqual([]);
  expect(device.named()).toEqual({ a: 3 });
  device.greet();
  device.get(state("a", 1, 5), gap("a", 4, 6));
  expect(types(device.apply())).toEqual(["messageState", "gap"]);
});

test("nothing is applied that was not handed on", () => {
  const device = new Device();
  device.open();
  device.get(...entries("a", 1, 5));
  const event = device.core.nextEvent();
  if (event?.type !== "message") {
    throw new Error("there is a message");
  }
  device.core.apply({ ...event, seq: 5 });
  expect(cursorsOf(device.save())).toEqual({ a: 1 });
});

// Acknowledging

test("only what is saved is acknowledged", () => {
  const device = new Device();
  device.open();
  device.get(...entries("a", 1, 3), entry("b", 1));
  device.apply();
  expect(device.acks()).toEqual({});
  device.save();
  expect(device.acks()).toEqual({ a: 3, b: 1 });
  expect(device.acks()).toEqual({});
});

test("it is time to save when a quarter of the window is used", () => {
  const device = new Device();
  device.open();
  device.save();
  device.get(...entries("a", 1, 2));
  for (const due of [false, true]) {
    device.core.apply(
      device.core.nextEvent() as NonNullable<ReturnType<typeof device.core.nextEvent>>,
    );
    expect(device.core.hasUnsaved).toBe(true);
    expect(device.core.savingDue).toBe(due);
  }
});

test("an acknowledgement waits until the server has sent it again", () => {
  const device = new Device();
  device.open();
  device.get(...entries("a", 1, 5));
  device.apply();
  const unsaved = device.core.takeUnsaved();
  device.open();
  // Saved only now: hello said 0, and the server would ignore an acknowledgement of 5.
  device.core.saved(unsaved);
  expect(device.acks()).toEqual({});
  device.get(...entries("a", 1, 3));
  expect(device.acks()).toEqual({ a: 3 });
  device.get(...entries("a", 4, 5));
  expect(device.acks()).toEqual({ a: 5 });
  expect(device.take()).toEqual([]);
});

// Restores

/** A device that had applied 5, been given 7, and received 9 when the store was restored to 3. */
function restored() {
  const device = new Device({ a: 5, b: 2, gone: 4 });
  device.open();
  device.get(...entries("a", 6, 9), ...entries("b", 3, 4));
  device.core.nextEvent();
  const handed = device.core.nextEvent();
  device.connect();
  device.greet("two", { a: 3, gone: 0 });
  return { device, handed: handed as NonNullable<typeof handed> };
}

test("after a restore nothing old is handed on, and what holds is told", () => {
  const { device, handed } = restored();
  device.get(...entries("a", 4, 5), entry("b", 3), skipped("c", 1, 2));
  // The new positions are saved first, or a crash could bring back the old ones.
  expect(device.take()).toEqual([]);
  const unsaved = device.save();
  expect(unsaved.session).toEqual({ ...SESSION, incarnation: "two", announced: false });
  expect(unsaved.allCursors).toEqual([
    { log: "a", seq: 3 },
    { log: "b", seq: 2 },
  ]);
  const [changed, ...rest] = device.take();
  const positions = new Map([
    ["a", 3],
    ["b", 2],
  ]);
  expect(changed).toEqual({ type: "incarnationChanged", incarnation: "two", positions });
  expect(seqs(rest)).toEqual([4, 5, 3]);
  // Positions of before mean nothing any more, and those of now are saved once the application knows of them.
  device.core.apply(handed);
  expect(device.save().cursors).toEqual([]);
  device.core.apply(changed as NonNullable<typeof changed>);
  const next = device.save();
  expect(next.session).toEqual({ ...SESSION, incarnation: "two" });
  expect(cursorsOf(next)).toEqual({ c: 2 });
  device.core.apply(rest[1] as NonNullable<(typeof rest)[1]>);
  expect(cursorsOf(device.save())).toEqual({ a: 5 });
});

test("a restore is told by the next client of the state if nobody heard of it", () => {
  const session = { ...SESSION, incarnation: "two", announced: false };
  const device = new Device({ a: 3 }, session);
  const [changed] = device.take();
  expect(changed).toMatchObject({ type: "incarnationChanged", positions: new Map([["a", 3]]) });
  device.core.apply(changed as NonNullable<typeof changed>);
  expect(device.save().session).toEqual({ ...session, announced: true });
});

test("a cursor refused without a restore is told", () => {
  const device = new Device({ a: 5, "none of ours": 2 });
  device.connect();
  device.greet("one", { a: 3, "none of ours": 0 });
  device.get(...entries("a", 4, 5));
  expect(device.take()).toEqual([]);
  expect(cursorsOf(device.save())).toEqual({ a: 3, "none of ours": 0 });
  const [lost, forgotten, ...rest] = device.take();
  expect(lost).toEqual({ type: "positionLost", conversationId: "a", seq: 3 });
  expect(forgotten).toEqual({ type: "positionLost", conversationId: "none of ours", seq: 0 });
  expect(seqs(rest)).toEqual([4, 5]);
  expect(device.named()).toEqual({ a: 3 });
});

// Beacons

function beacon(level: boolean, positions: Record<string, number>): Sent {
  const total = Object.entries(positions).reduce((sum, [log, seq]) => sum + digestOf(log, seq), 0n);
  const value = {
    level,
    digest: BigInt.asUintN(64, total),
    conversations: Object.keys(positions).length,
  };
  return { event: { case: "beacon", value } };
}

test("the digest is as the contract says", () => {
  const hash = createHash("sha256").update("inbox:alice:12").digest();
  expect(digestOf("inbox:alice", 12)).toBe(hash.readBigUInt64BE(0));
});

test("a digest is compared once level", () => {
  const device = new Device({ a: 5 });
  device.open();
  expect(device.get(beacon(true, { a: 9 }))).toEqual([]);
  const complete: Sent = { event: { case: "syncComplete", value: { conversations: 1 } } };
  expect(device.get(complete)).toEqual([]);
  expect(device.get(beacon(false, { a: 9 }))).toEqual([]);
  expect(device.get(beacon(true, { a: 5 }))).toEqual([]);
  device.get(entry("a", 6), entry("b", 1));
  // What was received counts, whether or not it was handed on.
  expect(device.get(beacon(true, { a: 6, b: 1 }))).toEqual([]);
  expect(device.get(beacon(true, { a: 6, b: 2 }))).toMatchObject([{ type: "reconnect" }]);
});

// The rest

test("the server's word becomes an action", () => {
  const device = new Device();
  device.open();
  const words = device.get(
    { event: { case: "tokenExpiring", value: { tokenExpireTime: { seconds: 5n } } } },
    { event: { case: "goingAway", value: { reconnectDelayMs: 1500 } } },
  );
  expect(words).toEqual([{ type: "refreshToken" }, { type: "goAway", delay: 1500 }]);
  expect(device.core.tokenExpireMs).toBe(5000);
  const error = { code: 10, reason: ErrorReason.INCARNATION_CHANGED };
  const [ended] = device.get(
    { event: { case: "sessionEnded", value: { error, reconnect: true } } },
    entry("a", 1),
  );
  expect(ended).toMatchObject({ type: "reconnect", error: { reason: "INCARNATION_CHANGED" } });
  expect(device.take()).toEqual([]);
});

test("an event newer than the SDK is passed over", () => {
  const device = new Device();
  device.open();
  expect(device.get({ event: { case: undefined } }, entry("a", 1))).toEqual([]);
  expect(seqs(device.take())).toEqual([1]);
});

test("a state of another device is not used", () => {
  const device = new Device({}, { ...SESSION, deviceId: "laptop" });
  device.connect();
  const [end] = device.greet();
  expect(end).toMatchObject({ type: "end", error: expect.any(StateError) });
});

test("an own entry with other content is no proof", () => {
  const device = new Device();
  device.open();
  const { messageId } = enqueue(device, "a", "mine").message;
  const own = (log: string, seq: number, text: string): Sent => {
    const event = entry(log, seq, "alice", text).event;
    return event?.case === "entry"
      ? ({ event: { ...event, value: { ...event.value, id: messageId } } } as Sent)
      : {};
  };
  device.get(own("b", 1, "mine"), own("a", 1, "another's"));
  expect(device.core.outbox.size).toBe(1);
  device.get(own("a", 1, "mine"));
  expect(device.core.outbox.size, "an old position").toBe(1);
  device.get(own("a", 2, "mine"));
  expect(device.core.outbox.size).toBe(0);
  const sent = device.take().filter((event) => event.type === "messageSent");
  expect(sent).toMatchObject([{ messageId, seq: 2 }]);
});

test("frames are bounded", () => {
  const device = new Device();
  device.connect();
  device.greet();
  device.core.limits = { ...device.core.limits, maxCommandsInFlight: 4000 };
  for (let n = 0; n < 100; n += 1) {
    enqueue(device, "a", "x".repeat(16_000));
  }
  const frames = device.frames();
  expect(frames.flatMap((frame) => frame.commands).length).toBe(100);
  for (const frame of frames) {
    expect(toBinary(ChatRequestSchema, frame).length).toBeLessThan(300_000);
  }
  for (let n = 0; n < 1900; n += 1) {
    enqueue(device, "a", "");
  }
  const sizes = device.frames().map((frame) => frame.commands.length);
  expect(Math.max(...sizes)).toBeLessThanOrEqual(1000);
});

// Own messages

test("an id made by a clock far ahead is made anew before it is first sent, and told", () => {
  const device = new Device();
  // The device's clock stands in 2001, the server's too; this one was made a day ahead.
  device.time = 0;
  const item = device.core.sends.enqueue("a", content("x"), 0);
  item.message = { ...item.message, messageId: device.core.ids.make(10 ** 12 + 86_400_000) };
  device.core.outbox.drop(item);
  const restored = device.core.outbox.restore({ ...item.message, sealed: false });
  device.open();
  expect(restored.message.sealed).toBe(true);
  expect(device.frames(), "sealed first, or a crash could make another id").toEqual([]);
  device.save();
  const [command] = device.frames().flatMap((frame) => frame.commands);
  expect(command?.command).toMatchObject({
    case: "sendMessage",
    value: { messageId: restored.message.messageId },
  });
  const pending = device.take().filter((event) => event.type === "messagePending");
  expect(pending).toMatchObject([{ replaces: item.message.messageId }]);
});

test("a message refused for good fails once that is durable, and those behind it go on", () => {
  const device = new Device();
  device.open();
  const first = enqueue(device, "a", "first");
  const second = enqueue(device, "a", "second");
  const [frame] = device.frames();
  const after = frame?.commands.map(({ command }) =>
    command.case === "sendMessage" ? command.value.afterMessageId : "",
  );
  expect(after).toEqual(["", first.message.messageId]);
  device.get(
    result(2, 7, ErrorReason.RIGHT_MISSING),
    result(3, 9, ErrorReason.PREDECESSOR_MISSING),
  );
  expect(device.frames()).toEqual([]);
  expect(types(device.take())).toEqual(["messagePending", "messagePending"]);
  expect(device.save().updated.get(first.message.messageId)?.failure?.reason).toBe("RIGHT_MISSING");
  const [failed] = device.take();
  expect(failed).toMatchObject({ type: "messageFailed", text: "first", error: { code: 7 } });
  const [again] = device.frames().flatMap(({ commands }) => commands);
  expect(again?.command).toMatchObject({
    value: { messageId: second.message.messageId, afterMessageId: "" },
  });
  device.core.apply(failed as NonNullable<typeof failed>);
  expect(device.save().removed).toEqual([first.message.messageId]);
});

test("receipts that wait are merged, and local events give way where nobody takes them", () => {
  const device = new Device();
  device.open();
  const receipt = (user: string, delivered: number, read: number): Sent => ({
    event: {
      case: "receipt",
      value: {
        conversationId: "a",
        userId: user,
        deliveredSeq: BigInt(delivered),
        readSeq: BigInt(read),
      },
    },
  });
  device.get(receipt("bob", 5, 1), receipt("carol", 1, 1), receipt("bob", 4, 3));
  expect(device.take()).toMatchObject([
    { userId: "bob", deliveredSeq: 5, readSeq: 3 },
    { userId: "carol" },
  ]);
});
