/** Own messages: queued, made durable, sealed, sent, refused, and what is told of that. No I/O, no clock. */

import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { msOf } from "./convert.js";
import { Code, codeOf, TidingsError } from "./errors.js";
import type { MessageFailed, MessagePending, MessageSent } from "./events.js";
import type { Entry } from "./gen/tidings/v1/entry_pb.js";
import {
  type MessageContent,
  MessageContentSchema,
  type SendMessageResponse,
} from "./gen/tidings/v1/message_pb.js";
import { type IdMaker, idTimeMs, type ServerClock } from "./ids.js";
import type { Outbox, Outgoing } from "./outbox.js";
import type { EventQueue } from "./queue.js";
import type { StoredMessage } from "./state.js";
import type { Unsaved } from "./unsaved.js";

/**
 * An id further ahead of the server's time is made anew before its first sending; of ids over 10 s ahead the server takes
 * few.
 */
const MAX_AHEAD_MS = 5_000;
const DISCARDED = "DISCARDED";

/** What those who hold a handle of a message want to know. */
export type Outcome = MessageSent | MessageFailed | MessagePending;

/** The messages of the outbox, with what is told and kept of them. */
export class Sends {
  /** What happened, for those who wait for one message; the shell takes it. */
  outcomes: Outcome[] = [];

  constructor(
    readonly outbox: Outbox,
    private readonly ids: IdMaker,
    private readonly clock: ServerClock,
    private readonly events: EventQueue,
    private readonly unsaved: Unsaved,
  ) {}

  /** Take a message that an earlier process or page left. */
  restore(message: StoredMessage): void {
    if (message.failure?.reason === DISCARDED) {
      this.unsaved.remove(message.messageId);
      return;
    }
    this.outbox.restore(message);
    // The application may not have heard of it, or of the id that it has now, before its process ended.
    this.events.put(pendingOf(message, { restored: true }));
    if (message.failure !== undefined) {
      this.#failed(message);
    }
  }

  /** Make a message, to be made durable by the caller and then given to `stored`, or else dropped. */
  enqueue(conversationId: string, content: Uint8Array, now: number): Outgoing {
    const timeMs = this.clock.nowMs(now);
    return this.outbox.add({
      position: this.outbox.nextPosition(),
      conversationId,
      messageId: this.ids.make(timeMs),
      content,
      timeMs,
      // An id made by the server's time needs no second look.
      sealed: this.clock.known,
    });
  }

  /** The server has told its time: the ids of what was never sent are made final. */
  sealAll(now: number): void {
    for (const item of this.outbox.unsealed()) {
      this.#seal(item, now);
    }
  }

  /** A message is stored as was asked for: it goes on, or has failed. */
  updated(message: StoredMessage): void {
    const item = this.outbox.get(message.messageId);
    if (item?.state !== "held") {
      return;
    }
    if (message.failure !== undefined) {
      this.outbox.fail(item);
      this.#failed(item.message);
    } else {
      this.outbox.stored(item);
    }
  }

  /** The server has answered for a message. */
  onResult(item: Outgoing, answer: SendMessageResponse | TidingsError, now: number): void {
    if (item.state !== "in flight") {
      return;
    }
    if (!(answer instanceof TidingsError)) {
      this.#sent(item, Number(answer.seq), msOf(answer.createTime));
    } else if (this.outbox.mayBeTakenLater(item, answer)) {
      this.outbox.retry(item, answer, now);
    } else {
      this.#refused(item, answer);
    }
  }

  /** A message is durable. */
  stored(item: Outgoing, now: number): void {
    if (item.state !== "held") {
      return;
    }
    this.events.put(pendingOf(item.message));
    if (item.message.sealed || !this.clock.known) {
      this.outbox.stored(item);
    } else {
      this.#seal(item, now);
    }
  }

  /** A message is to be taken out: hold it until what is returned is stored, then call `discarded`. */
  discarding(item: Outgoing): StoredMessage {
    this.outbox.hold(item);
    const failure = { code: Code.CANCELLED, reason: DISCARDED, field: "", message: "discarded" };
    return { ...item.message, failure };
  }

  /** It is durable that a message isn't to be sent. */
  discarded(item: Outgoing): void {
    this.outbox.drop(item);
    this.unsaved.remove(item.message.messageId);
  }

  /** The application knows that a message has failed. */
  forgetFailed(messageId: string): void {
    const item = this.outbox.get(messageId);
    if (item?.state === "failed") {
      this.outbox.drop(item);
      this.unsaved.remove(messageId);
    }
  }

  /** An own message in its log is the best proof that it was taken. */
  noteOwn(entry: Entry): void {
    const item = this.outbox.get(entry.id);
    if (item === undefined || item.message.conversationId !== entry.conversationId) {
      return;
    }
    const same =
      entry.body.case === "message" && sameContent(entry.body.value, item.message.content);
    if (entry.erased || same) {
      this.#sent(item, Number(entry.seq), msOf(entry.createTime));
    }
  }

  /** Make an id final that was made before the server had told its time. */
  #seal(item: Outgoing, now: number): void {
    const old = item.message;
    const serverMs = this.clock.nowMs(now);
    const messageId =
      idTimeMs(old.messageId) > serverMs + MAX_AHEAD_MS ? this.ids.make(serverMs) : old.messageId;
    this.outbox.hold(item);
    const message = this.outbox.seal(item, messageId);
    this.unsaved.update(old.messageId, message);
    if (messageId !== old.messageId) {
      const pending = pendingOf(message, { replaces: old.messageId });
      this.events.put(pending);
      this.outcomes.push(pending);
    }
  }

  #sent(item: Outgoing, seq: number, timeMs: number): void {
    this.outbox.accepted(item);
    const { conversationId, messageId } = item.message;
    this.unsaved.remove(messageId);
    this.#tell({
      type: "messageSent",
      conversationId,
      messageId,
      seq,
      time: new Date(timeMs),
    });
  }

  /** A message is refused for good. Those behind it wait until that is durable, or a crash could bring it back. */
  #refused(item: Outgoing, error: TidingsError): void {
    this.outbox.hold(item);
    const { code, reason, field, detail } = error;
    item.message = { ...item.message, failure: { code, reason, field, message: detail } };
    this.unsaved.update(item.message.messageId, item.message);
  }

  #failed(message: StoredMessage): void {
    const failure = message.failure;
    if (failure === undefined) {
      return;
    }
    const { conversationId, messageId, text, replyTo } = pendingOf(message);
    const error = new TidingsError(codeOf(failure.code), failure.message, {
      reason: failure.reason,
      field: failure.field,
    });
    this.#tell({ type: "messageFailed", conversationId, messageId, text, replyTo, error });
  }

  #tell(outcome: MessageSent | MessageFailed): void {
    this.events.put(outcome);
    this.outcomes.push(outcome);
  }
}

function pendingOf(
  message: StoredMessage,
  how: { restored?: boolean; replaces?: string } = {},
): MessagePending {
  const content = fromBinary(MessageContentSchema, message.content);
  return {
    type: "messagePending",
    conversationId: message.conversationId,
    messageId: message.messageId,
    text: content.text,
    replyTo: content.replyToMessageId || null,
    time: new Date(message.timeMs),
    restored: how.restored ?? false,
    replaces: how.replaces ?? null,
  };
}

/** Whether a message says what is kept serialised: written by one writer, equal messages are equal bytes. */
function sameContent(message: MessageContent, kept: Uint8Array): boolean {
  const written = (content: MessageContent) => toBinary(MessageContentSchema, content).join();
  return written(message) === written(fromBinary(MessageContentSchema, kept));
}
