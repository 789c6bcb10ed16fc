/**
 * The session of a device as a pure state machine: frames in, events out, frames to send. No I/O, no clock.
 *
 * The shell (`runner`) carries frames and time: it calls `connected`, `receive`, `nextFrame` and `disconnected`, does what
 * the returned actions say, and saves what `takeUnsaved` gives. The application's side is `nextEvent` and `apply`.
 *
 * Moments are milliseconds of a clock that nobody sets.
 */

import { create, fromBinary } from "@bufbuild/protobuf";
import type { Action, Reconnect } from "./actions.js";
import { backoffOf, type ClientConfig } from "./config.js";
import { entryOf, errorOf, msOf, stateOf } from "./convert.js";
import { Code, StateError, TidingsError } from "./errors.js";
import type { Event, Gap, Skipped } from "./events.js";
import {
  type ChatRequest,
  ChatRequestSchema,
  type ChatResponse,
  type Command,
  CommandSchema,
  type Hello,
  HelloSchema,
} from "./gen/tidings/v1/chat_service_pb.js";
import type * as pb from "./gen/tidings/v1/event_pb.js";
import { MessageContentSchema, SendMessageResponseSchema } from "./gen/tidings/v1/message_pb.js";
import { IdMaker, ServerClock } from "./ids.js";
import { assumed, type Limits, told } from "./limits.js";
import { type Log, LogTable } from "./logs.js";
import { Outbox, Outgoing } from "./outbox.js";
import { EventQueue } from "./queue.js";
import type { Random } from "./random.js";
import { Sends } from "./sends.js";
import type { StoredSession, StoredState } from "./state.js";
import { type Batch, Unsaved } from "./unsaved.js";

const MAX_HELLO_CURSORS = 10_000;
const MAX_FRAME_COMMANDS = 1_000;
const MAX_FRAME_ACKS = 5_000;
const MAX_FRAME_BYTES = 256 * 1024;
const AFTER_HELLO: ReadonlySet<string> = new Set([
  "entry",
  "messageState",
  "skipped",
  "gap",
  "syncComplete",
]);

type EventBody = pb.Event["event"];
type Taken = Action | undefined;

/** Positions, outbox and connection of one device. */
export class SessionCore {
  session: StoredSession;
  readonly clock: ServerClock;
  readonly ids: IdMaker;
  readonly logs: LogTable;
  readonly outbox: Outbox;
  readonly events: EventQueue;
  readonly sends: Sends;
  limits: Limits;
  /** When the token of the session runs out, by the server's clock. */
  tokenExpireMs: number | undefined;
  welcomed = false;
  synced = false;
  readonly #unsaved = new Unsaved();
  /** Whether positions aren't saved: the application doesn't know yet of the incarnation that they belong to. */
  #withheld: boolean;
  /** While they differ nothing is handed on: positions have gone back, and that is to be durable first. */
  #gate = 0;
  #openGate = 0;
  // The connection.
  #alive = false;
  #greeted = false;
  #hello: Hello | undefined;
  #control: Command[] = [];
  #commands = new Map<bigint, Outgoing | "hello" | "refreshToken">();
  #nextCommand = 1n;
  #acks = new Map<string, number>();
  #nextSession: StoredSession | undefined;

  constructor(
    state: StoredState,
    readonly config: ClientConfig,
    wallMs: () => number,
    random: Random,
  ) {
    this.session = state.session;
    this.clock = new ServerClock(wallMs);
    this.ids = new IdMaker(random);
    this.logs = new LogTable(state.cursors);
    this.outbox = new Outbox(backoffOf(config), random);
    this.events = new EventQueue(config.maxQueuedEvents);
    this.sends = new Sends(this.outbox, this.ids, this.clock, this.events, this.#unsaved);
    this.limits = assumed(config.window, config.beaconInterval);
    this.#withheld = !state.session.announced;
    if (this.#withheld) {
      this.#announce();
    }
    for (const message of state.messages) {
      this.sends.restore(message);
    }
  }

  // The application's side

  /** The next event for the application, handed on from now on. */
  nextEvent(): Event | undefined {
    return this.hasEvents ? this.events.take(this.session.userId) : undefined;
  }

  /** Whether `nextEvent` has one. */
  get hasEvents(): boolean {
    return this.events.size > 0 && this.#gate === this.#openGate;
  }

  /** The application has dealt with an event, and with all that were handed on before it in the same log. */
  apply(event: Event): void {
    if (event.type === "incarnationChanged") {
      if (this.#withheld && event.incarnation === this.session.incarnation) {
        this.#withheld = false;
        this.session = { ...this.session, announced: true };
        this.#unsaved.session(this.session);
      }
    } else if (event.type === "messageFailed") {
      this.sends.forgetFailed(event.messageId);
    } else if (this.#withheld) {
      // It was handed on before the incarnation changed: its position means something else now.
    } else if (event.type === "gap" || event.type === "skipped") {
      this.logs.apply(event.conversationId, event.toSeq);
    } else if ("log" in event) {
      this.logs.apply(event.log, event.seq);
    }
  }

  // Saving

  /** Whether something is to be saved at once: the window is a quarter used, or a message waits for it. */
  get savingDue(): boolean {
    // Positions that are withheld aren't taken: whoever saves what is due would never come to an end.
    const quarter = this.logs.unsavedPositions * 4 >= this.limits.window;
    return this.#unsaved.urgent || (quarter && !this.#withheld);
  }

  /** Whether something is to be saved soon. */
  get hasUnsaved(): boolean {
    return this.#unsaved.any || (this.logs.hasUnsaved && !this.#withheld);
  }

  /** What is to be saved. The caller saves it, however often that takes, before it asks for more. */
  takeUnsaved(): Batch {
    const batch = this.#unsaved.take();
    // Positions of a new incarnation aren't mixed with those of the old one.
    if (!this.#withheld) {
      batch.cursors = this.logs.takeUnsaved();
    }
    batch.gate = this.#gate;
    return batch;
  }

  /** What was taken is saved: acknowledge it to the server, and let go on what waited for it. */
  saved(batch: Batch): void {
    this.#openGate = Math.max(this.#openGate, batch.gate);
    for (const [log, cursor] of batch.cursors) {
      // Both may have gone back meanwhile.
      log.saved = Math.max(log.saved, Math.min(cursor.seq, log.applied));
      this.#ack(log);
    }
    for (const message of batch.updated.values()) {
      this.sends.updated(message);
    }
  }

  #ack(log: Log): void {
    const seq = this.welcomed ? log.toAck() : 0;
    if (seq) {
      this.#acks.set(log.name, seq);
    }
  }

  #closeGate(): void {
    this.#gate += 1;
    this.#unsaved.urgent = true;
  }

  // The connection

  /** A connection is there: the next frame is hello. */
  connected(): void {
    this.disconnected();
    this.#alive = true;
    const named = this.logs.hello(MAX_HELLO_CURSORS);
    this.#hello = create(HelloSchema, {
      incarnation: this.session.incarnation,
      cursors: named.map(({ log, seq }) => ({ conversationId: log, seq: BigInt(seq) })),
      window: this.config.window,
      catchUpLimit: this.config.catchUpLimit,
      client: this.config.clientName,
    });
  }

  /** The connection is gone. */
  disconnected(): void {
    this.#alive = this.welcomed = this.#greeted = this.synced = false;
    this.#hello = undefined;
    this.#nextSession = undefined;
    this.#control = [];
    this.#commands.clear();
    this.#nextCommand = 1n;
    this.#acks.clear();
    this.outbox.reconnect();
  }

  /** Give the session a new token. */
  refreshToken(token: string): void {
    if (this.welcomed) {
      this.#control.push(
        create(CommandSchema, { command: { case: "refreshToken", value: { token } } }),
      );
    }
  }

  /** The next frame to send. */
  nextFrame(now: number): ChatRequest | undefined {
    if (!this.#alive) {
      return undefined;
    }
    const request = create(ChatRequestSchema);
    if (this.#hello !== undefined) {
      const hello = create(CommandSchema, { command: { case: "hello", value: this.#hello } });
      this.#hello = undefined;
      this.#add(request, hello, "hello");
      return request;
    }
    if (!this.welcomed) {
      return undefined;
    }
    for (const command of this.#control.splice(0)) {
      this.#add(request, command, "refreshToken");
    }
    this.#addSends(request, now);
    for (const [conversationId, seq] of this.#acks) {
      if (request.acks.length >= MAX_FRAME_ACKS) {
        break;
      }
      request.acks.push({ $typeName: "tidings.v1.Ack", conversationId, seq: BigInt(seq) });
      this.#acks.delete(conversationId);
    }
    return request.commands.length > 0 || request.acks.length > 0 ? request : undefined;
  }

  /** When `nextFrame` has something to send without anything else happening. */
  wakeAt(): number | undefined {
    return this.welcomed ? this.outbox.wakeAt() : undefined;
  }

  #add(request: ChatRequest, command: Command, what: Outgoing | "hello" | "refreshToken"): void {
    command.commandId = this.#nextCommand;
    this.#commands.set(this.#nextCommand, what);
    this.#nextCommand += 1n;
    request.commands.push(command);
  }

  #addSends(request: ChatRequest, now: number): void {
    this.outbox.wake(now);
    const room = Math.max(1, Math.floor(this.limits.maxCommandsInFlight / 2));
    let budget = Math.min(MAX_FRAME_BYTES, this.limits.maxFrameBytes / 2);
    while (request.commands.length < MAX_FRAME_COMMANDS && budget > 0) {
      const item = this.outbox.nextSend(now, room);
      if (item === undefined) {
        break;
      }
      const { conversationId, messageId, content } = item.message;
      const command = create(CommandSchema, {
        command: {
          case: "sendMessage",
          value: {
            conversationId,
            messageId,
            content: fromBinary(MessageContentSchema, content),
            afterMessageId: item.after?.message.messageId ?? "",
          },
        },
      });
      this.#add(request, command, item);
      budget -= content.length + 200;
    }
  }

  /** Take a frame from the server; returns what the shell is to do, in order. */
  receive(frame: ChatResponse, now: number): Action[] {
    const actions: Action[] = [];
    for (const { event } of frame.events) {
      if (!this.#alive) {
        break;
      }
      if (!this.#greeted && AFTER_HELLO.has(event.case ?? "")) {
        actions.push(this.#leave(`the server sent ${event.case} before the result of hello`));
        break;
      }
      const action = this.#take(event, now);
      if (action !== undefined) {
        actions.push(action);
      }
    }
    return actions;
  }

  #take(event: EventBody, now: number): Taken {
    switch (event.case) {
      case "entry":
        return this.#onEntry(event.value);
      case "result":
        return this.#onResult(event.value, now);
      case "welcome":
        return this.#onWelcome(event.value, now);
      case "skipped":
        return this.#onSkipped(event.value);
      case "gap":
        return this.#onGap(event.value);
      case "messageState":
        return this.#onMessageState(event.value);
      case "syncComplete":
        this.synced = true;
        this.events.put({ type: "syncComplete", conversations: event.value.conversations });
        return undefined;
      case "receipt":
        this.#onReceipt(event.value);
        return undefined;
      case "beacon":
        return this.#onBeacon(event.value, now);
      case "tokenExpiring":
        this.tokenExpireMs = msOf(event.value.tokenExpireTime);
        return { type: "refreshToken" };
      case "goingAway":
        return { type: "goAway", delay: event.value.reconnectDelayMs };
      case "sessionEnded":
        return this.#onSessionEnded(event.value);
      default:
        // Newer than this SDK.
        return undefined;
    }
  }

  /** Stop taking anything from this connection, and have everything not handed on sent again on the next one. */
  #leave(why: string): Reconnect {
    this.#alive = false;
    this.events.dropLogs();
    this.logs.rewind();
    return { type: "reconnect", error: new TidingsError(Code.UNAVAILABLE, why) };
  }

  #onWelcome(welcome: pb.Welcome, now: number): Taken {
    const stored = this.session;
    const { userId, deviceId, incarnation } = welcome;
    if (stored.userId && (stored.userId !== userId || stored.deviceId !== deviceId)) {
      this.#alive = false;
      const error = new StateError(
        `the state belongs to user "${stored.userId}", device "${stored.deviceId}", ` +
          `and the token to user "${userId}", device "${deviceId}"`,
      );
      return { type: "end", error };
    }
    this.clock.set(msOf(welcome.serverTime), now);
    if (welcome.tokenExpireTime !== undefined) {
      this.tokenExpireMs = msOf(welcome.tokenExpireTime);
    }
    this.limits = told(welcome.limits, this.limits);
    this.welcomed = true;
    const session = { ...stored, userId, deviceId, incarnation };
    if (stored.incarnation && stored.incarnation !== incarnation) {
      this.#nextSession = { ...session, announced: false };
    } else if (stored.userId !== userId || stored.incarnation !== incarnation) {
      this.session = session;
      this.#unsaved.session(session);
    }
    this.sends.sealAll(now);
    return undefined;
  }

  #onEntry(entry: (EventBody & { case: "entry" })["value"]): Taken {
    const log = this.logs.get(entry.conversationId);
    const seq = Number(entry.seq);
    const step = log.advance(seq, seq);
    if (step === "next") {
      if (entry.userId === this.session.userId) {
        this.sends.noteOwn(entry);
      }
      this.events.putInLog(log, seq, (userId) => entryOf(entry, userId));
    }
    return this.#after(step, log, seq);
  }

  /** What positions that aren't the next mean: old ones were meant to be acknowledged, missed ones to be sent again. */
  #after(step: "next" | "old" | "missed", log: Log, seq: number): Taken {
    if (step === "missed") {
      log.suspect = true;
      return this.#leave(`${log.name} went from ${log.received} to ${seq}`);
    }
    if (step === "old") {
      this.#ack(log);
    }
    return undefined;
  }

  #onSkipped(skipped: pb.Skipped): Taken {
    const log = this.logs.get(skipped.conversationId);
    const fromSeq = Number(skipped.fromSeq);
    const toSeq = Number(skipped.toSeq);
    if (!log.toldStates) {
      return this.#after(this.logs.skip(log, fromSeq, toSeq), log, fromSeq);
    }
    // The application must have applied the states before these positions count as applied.
    const step = log.advance(fromSeq, toSeq);
    if (step === "next") {
      const event: Skipped = { type: "skipped", conversationId: log.name, fromSeq, toSeq };
      this.events.putInLog(log, toSeq, () => event);
    }
    return this.#after(step, log, fromSeq);
  }

  #onGap(gap: pb.Gap): Taken {
    const log = this.logs.get(gap.conversationId);
    const fromSeq = Number(gap.fromSeq);
    const toSeq = Number(gap.toSeq);
    const first = Math.max(fromSeq, log.received + 1);
    const step = log.advance(fromSeq, toSeq);
    if (step === "next") {
      const event: Gap = {
        type: "gap",
        conversationId: log.name,
        fromSeq: first,
        toSeq,
        staleFromSeq: fromSeq < first ? fromSeq : 0,
      };
      this.events.putInLog(log, toSeq, () => event);
    }
    return this.#after(step, log, fromSeq);
  }

  #onMessageState(state: (EventBody & { case: "messageState" })["value"]): Taken {
    const log = this.logs.get(state.conversationId);
    log.toldStates = true;
    this.events.putInLog(log, 0, () => stateOf(state));
    return undefined;
  }

  #onReceipt(receipt: pb.ReceiptUpdate): void {
    this.events.putReceipt({
      type: "receipt",
      conversationId: receipt.conversationId,
      userId: receipt.userId,
      deliveredSeq: Number(receipt.deliveredSeq),
      readSeq: Number(receipt.readSeq),
    });
  }

  #onBeacon(beacon: pb.Beacon, now: number): Taken {
    this.clock.set(msOf(beacon.serverTime), now);
    if (!beacon.level || !this.synced) {
      return undefined;
    }
    const { digest, conversations } = this.logs.digest();
    if (digest === beacon.digest && conversations === beacon.conversations) {
      return undefined;
    }
    return this.#leave("the digest of the positions differs from the server's");
  }

  #onSessionEnded(ended: pb.SessionEnded): Action {
    this.#alive = false;
    const error = errorOf(ended.error);
    return ended.reconnect
      ? { type: "reconnect", error, delay: error.retryAfter }
      : { type: "end", error };
  }

  #onResult(result: pb.CommandResult, now: number): Taken {
    const what = this.#commands.get(result.commandId);
    this.#commands.delete(result.commandId);
    const outcome = result.outcome;
    const error = outcome.case === "error" ? errorOf(outcome.value) : undefined;
    if (what instanceof Outgoing) {
      const answer =
        outcome.case === "sendMessage" ? outcome.value : create(SendMessageResponseSchema);
      this.sends.onResult(what, error ?? answer, now);
      return error?.code === Code.UNAUTHENTICATED ? { type: "refreshToken" } : undefined;
    }
    if (what === "hello") {
      if (error !== undefined) {
        return this.#onHelloRefused(error);
      }
      this.#onHelloTaken(outcome.case === "hello" ? outcome.value.refusedCursors : []);
    } else if (what === "refreshToken" && outcome.case === "refreshToken") {
      this.tokenExpireMs = msOf(outcome.value.tokenExpireTime);
    }
    return undefined;
  }

  #onHelloRefused(error: TidingsError): Action {
    this.#alive = false;
    const final: Code[] = [Code.INVALID_ARGUMENT, Code.PERMISSION_DENIED, Code.UNAUTHENTICATED];
    return final.includes(error.code)
      ? { type: "end", error }
      : { type: "reconnect", error, delay: error.retryAfter };
  }

  /** The session is open. Of some logs the server has less than was applied here: its position holds instead. */
  #onHelloTaken(refusals: readonly pb.CursorRefusal[]): void {
    this.#greeted = true;
    const session = this.#nextSession;
    this.#nextSession = undefined;
    if (session !== undefined) {
      // Another incarnation: only what was named in hello was compared with it.
      this.events.dropLogs();
      this.logs.resetToNamed();
    }
    for (const refusal of refusals) {
      const log = this.logs.get(refusal.conversationId);
      this.events.dropLog(log);
      log.reset(Number(refusal.seq));
      if (session === undefined) {
        this.logs.touch(log);
        this.#closeGate();
        this.events.put({ type: "positionLost", conversationId: log.name, seq: log.received });
      }
    }
    if (session !== undefined) {
      this.session = session;
      this.#withheld = true;
      this.#unsaved.session(session, this.logs.stored());
      this.#closeGate();
      this.#announce();
    }
  }

  #announce(): void {
    const positions = new Map<string, number>();
    for (const log of this.logs) {
      if (log.received) {
        positions.set(log.name, log.received);
      }
    }
    const incarnation = this.session.incarnation;
    this.events.put({ type: "incarnationChanged", incarnation, positions });
  }
}
