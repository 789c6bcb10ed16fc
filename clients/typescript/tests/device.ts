/** A core, and a server that says what the test tells it to. */

import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { expect } from "vitest";
import type { Action } from "../src/actions.js";
import { configOf } from "../src/config.js";
import { SessionCore } from "../src/core.js";
import type { Event } from "../src/events.js";
import {
  type ChatRequest,
  ChatResponseSchema,
  type Hello,
} from "../src/gen/tidings/v1/chat_service_pb.js";
import type { EventSchema } from "../src/gen/tidings/v1/event_pb.js";
import type { StoredCursor, StoredSession } from "../src/state.js";
import type { Batch } from "../src/unsaved.js";
import { seeded } from "./seeded.js";

export type Sent = MessageInitShape<typeof EventSchema>;

export const SESSION: StoredSession = {
  userId: "alice",
  deviceId: "phone",
  incarnation: "one",
  announced: true,
};

export class Device {
  time = 0;
  readonly core: SessionCore;

  constructor(cursors: Record<string, number> = {}, session = SESSION) {
    const stored: StoredCursor[] = Object.entries(cursors).map(([log, seq]) => ({ log, seq }));
    this.core = new SessionCore(
      { session, cursors: stored, messages: [] },
      configOf({ window: 8 }),
      () => 10 ** 12,
      seeded(1),
    );
  }

  connect(): Hello {
    this.core.connected();
    const [frame, ...more] = this.frames();
    expect(more).toEqual([]);
    const [command] = frame?.commands ?? [];
    expect([command?.commandId, command?.command.case]).toEqual([1n, "hello"]);
    return command?.command.value as Hello;
  }

  /** What hello names. */
  named(): Record<string, number> {
    const hello = this.connect();
    return Object.fromEntries(hello.cursors.map((one) => [one.conversationId, Number(one.seq)]));
  }

  frames(): ChatRequest[] {
    const found: ChatRequest[] = [];
    for (
      let frame = this.core.nextFrame(this.time);
      frame;
      frame = this.core.nextFrame(this.time)
    ) {
      found.push(frame);
    }
    return found;
  }

  acks(): Record<string, number> {
    const acks = this.frames().flatMap((frame) => frame.acks);
    return Object.fromEntries(acks.map((ack) => [ack.conversationId, Number(ack.seq)]));
  }

  get(...events: Sent[]): Action[] {
    return this.core.receive(create(ChatResponseSchema, { events }), this.time);
  }

  greet(incarnation = "one", refused: Record<string, number> = {}): Action[] {
    const refusedCursors = Object.entries(refused).map(([conversationId, seq]) => ({
      conversationId,
      seq: BigInt(seq),
    }));
    return this.get(
      {
        event: {
          case: "welcome",
          value: {
            userId: "alice",
            deviceId: "phone",
            incarnation,
            serverTime: { seconds: 10n ** 9n },
          },
        },
      },
      {
        event: {
          case: "result",
          value: { commandId: 1n, outcome: { case: "hello", value: { refusedCursors } } },
        },
      },
    );
  }

  open(): void {
    this.connect();
    expect(this.greet()).toEqual([]);
  }

  take(): Event[] {
    const found: Event[] = [];
    for (let event = this.core.nextEvent(); event; event = this.core.nextEvent()) {
      found.push(event);
    }
    return found;
  }

  apply(): Event[] {
    const events = this.take();
    for (const event of events) {
      this.core.apply(event);
    }
    return events;
  }

  save(): Batch {
    const unsaved = this.core.takeUnsaved();
    this.core.saved(unsaved);
    return unsaved;
  }
}

export const cursorsOf = (batch: Batch) =>
  Object.fromEntries(batch.cursors.map(([, { log, seq }]) => [log, seq]));

export function entry(log: string, seq: number, userId = "bob", text = `${log}${seq}`): Sent {
  const value = {
    conversationId: log,
    seq: BigInt(seq),
    userId,
    id: `${log}-${seq}`,
    body: { case: "message" as const, value: { text } },
  };
  return { event: { case: "entry", value } };
}

export function entries(log: string, first: number, last: number): Sent[] {
  return Array.from({ length: last - first + 1 }, (_, n) => entry(log, first + n));
}

const range = (log: string, first: number, last: number) => ({
  conversationId: log,
  fromSeq: BigInt(first),
  toSeq: BigInt(last),
});

export const skipped = (log: string, first: number, last: number): Sent => ({
  event: { case: "skipped", value: range(log, first, last) },
});

export const gap = (log: string, first: number, last: number): Sent => ({
  event: { case: "gap", value: range(log, first, last) },
});

export const state = (log: string, seq: number, asOf: number): Sent => ({
  event: {
    case: "messageState",
    value: { conversationId: log, seq: BigInt(seq), asOf: BigInt(asOf) },
  },
});

export const result = (commandId: number, code: number, reason: number, field = ""): Sent => ({
  event: {
    case: "result",
    value: {
      commandId: BigInt(commandId),
      outcome: { case: "error", value: { code, reason, field, message: "refused" } },
    },
  },
});

export function seqs(events: Event[]): number[] {
  return events.flatMap((event) => ("log" in event ? [event.seq] : []));
}

export const types = (events: Event[]) => events.map((event) => event.type);
