/** The client: what an application holds. */

import {
  create,
  type DescMessage,
  type DescMethodUnary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import { type Clock, systemClock } from "./clock.js";
import { backoffOf, type ClientConfig, configOf } from "./config.js";
import { ClientClosed, Code, TidingsError } from "./errors.js";
import type { ConnectionState, Event } from "./events.js";
import { MessageContentSchema } from "./gen/tidings/v1/message_pb.js";
import { type HandleOwner, SendHandle } from "./handles.js";
import { Operations } from "./operations.js";
import { type Random, systemRandom } from "./random.js";
import { Runner } from "./runner.js";
import type { Outcome } from "./sends.js";
import { MemoryStateStore, type StateStore } from "./state.js";
import { EventStream } from "./stream.js";
import { type TokenProvider, TokenSource } from "./tokens.js";
import type { Transport } from "./transport.js";

/** What happens around a client: it tells of that, and returns what ends it. */
export type Environment = (told: {
  /** Connecting may succeed now, or the connection may be a ghost. */
  wake(): void;
  /** What goes by the network now won't arrive. */
  lost(why: string): void;
}) => () => void;

/** What a client is made of. */
export interface ClientParts {
  /** Gives the bearer token; called again when a token is refused or about to expire. */
  tokenProvider: TokenProvider;
  /** How to get to the server. */
  transport: Transport;
  /** Where the outbox and the positions are kept; without it, in memory for as long as the client lives. */
  state?: StateStore | undefined;
  /** The settings that aren't the defaults. */
  config?: Partial<ClientConfig> | undefined;
  /** What tells of the network and of sleep. */
  environment?: Environment | undefined;
  /** Told of faults that the client goes on with; by default they go to the console. */
  warn?: ((what: string, error: unknown) => void) | undefined;
  clock?: Clock | undefined;
  random?: Random | undefined;
}

/**
 * One device of one user.
 *
 * `open` reads the state and begins to connect, without waiting for it: what is sent before, or while offline, waits in
 * the outbox. `close` saves and acknowledges what was applied.
 */
export class CoreClient extends Operations implements HandleOwner {
  readonly config: ClientConfig;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #tokens: TokenSource;
  readonly #runner: Runner;
  readonly #stream: EventStream;
  readonly #handles = new Map<string, SendHandle>();
  #opening: Promise<void> | undefined;
  #leaveEnvironment = () => {};

  constructor(private readonly parts: ClientParts) {
    super();
    this.config = configOf(parts.config);
    this.#clock = parts.clock ?? systemClock;
    this.#random = parts.random ?? systemRandom;
    this.#tokens = new TokenSource(parts.tokenProvider);
    this.#runner = new Runner({
      config: this.config,
      store: parts.state ?? new MemoryStateStore(),
      transport: parts.transport,
      tokens: this.#tokens,
      clock: this.#clock,
      random: this.#random,
      // biome-ignore lint/suspicious/noConsole: what nobody asked to be told must still be seen somewhere
      warn: parts.warn ?? ((what, error) => console.warn(`tidings: ${what}:`, error)),
    });
    this.#runner.onOutcome = (outcome) => this.#onOutcome(outcome);
    this.#runner.onEnd = () => {
      for (const handle of this.#handles.values()) {
        handle.settle();
      }
    };
    this.#stream = new EventStream(this.#runner, this.#clock);
  }

  // Opening and closing

  /** Read the state and begin to connect; returns the client. Throws StateError when the state can't be used. */
  async open(): Promise<this> {
    if (this.#opening !== undefined) {
      throw new TidingsError(Code.FAILED_PRECONDITION, "a client is opened once; make another one");
    }
    this.#opening = this.#runner.start();
    await this.#opening;
    this.#leaveEnvironment =
      this.parts.environment?.({
        wake: () => this.#runner.wake(),
        lost: (why) => this.#runner.lost(why),
      }) ?? this.#leaveEnvironment;
    return this;
  }

  /** Save and acknowledge what was applied, and let go of everything. The outbox is kept by the state store. */
  async close(): Promise<void> {
    await this.#opening?.catch(() => {});
    this.#leaveEnvironment();
    await this.#runner.stop();
  }

  // The connection

  /** How the client stands to the server now. */
  get connection(): ConnectionState {
    return this.#runner.state;
  }

  /** Why the session is over for good, or the client closed. */
  get ended(): TidingsError | undefined {
    return this.#runner.ended;
  }

  /** The user of the token, known after the first connection. */
  get userId(): string | undefined {
    return this.#runner.core.session.userId || undefined;
  }

  /** The device of the token, known after the first connection. */
  get deviceId(): string | undefined {
    return this.#runner.core.session.deviceId || undefined;
  }

  /** What is to be added to the device's clock to get the server's, in milliseconds; 0 until it is known. */
  get clockOffsetMs(): number {
    return this.#runner.core.clock.offsetMs(this.#runner.now());
  }

  /** Wait until the client is online, whatever happens meanwhile. Throws why the session ended, if it does. */
  async waitOnline(): Promise<void> {
    while (this.#runner.state.status !== "online") {
      if (this.#runner.ended !== undefined) {
        throw this.#runner.ended;
      }
      await this.#runner.changed();
    }
  }

  // Events

  /**
   * The events, for one reader at a time: `for await (const event of client.events())`.
   *
   * Asking for the next event says that the one before was applied: its position is then stored, acknowledged to the
   * server and not offered again. An event that was handed over and not followed by another is offered again to the next
   * client of the state. With `autoApply: false` the application says so itself, by `applied`.
   *
   * The iteration ends when the client is closed, and throws TidingsError when the session ended for good.
   */
  events(): AsyncIterableIterator<Event> {
    return this.#stream;
  }

  /** Say that an event was applied durably, and with it all events before it. For `autoApply: false`. */
  applied(event: Event): void {
    this.#runner.applied(event);
  }

  // Sending

  /**
   * Queue a message; it returns once the message is durable in the outbox and so will be sent, once and in order.
   *
   * @param text From 1 to 16,384 bytes of UTF-8; delivered exactly as it is.
   * @throws TidingsError INVALID_ARGUMENT: the text is empty or too long, or no valid Unicode; RESOURCE_EXHAUSTED: the
   *   outbox is full. StateError: the outbox can't be written. ClientClosed. Or why the session has ended for good.
   */
  async send(
    conversationId: string,
    text: string,
    more: { replyTo?: string | null } = {},
  ): Promise<SendHandle> {
    const { core } = this.#runner;
    if (this.#runner.ended !== undefined) {
      throw this.#runner.ended;
    }
    check(conversationId !== "", "conversation_id", "a conversation is required");
    // The encoder would put U+FFFD in the place of half a character.
    check(!/\p{Surrogate}/u.test(text), "text", "the text is no valid Unicode");
    const size = new TextEncoder().encode(text).length;
    const most = core.limits.maxTextBytes;
    check(
      size >= 1 && size <= most,
      "text",
      `the text has ${size} bytes; from 1 to ${most} are allowed`,
    );
    if (core.outbox.size >= this.config.maxQueuedMessages) {
      throw new TidingsError(
        Code.RESOURCE_EXHAUSTED,
        `the outbox holds ${core.outbox.size} messages already`,
      );
    }
    const content = create(MessageContentSchema, { text, replyToMessageId: more.replyTo ?? "" });
    return this.#enqueue(conversationId, toBinary(MessageContentSchema, content));
  }

  async #enqueue(conversationId: string, content: Uint8Array): Promise<SendHandle> {
    let made: SendHandle | undefined;
    try {
      await this.#runner.enqueue(conversationId, content, (item) => {
        made = new SendHandle(this, item);
        this.#handles.set(made.messageId, made);
      });
    } catch (error) {
      this.#handles.delete(made?.messageId ?? "");
      throw error;
    }
    return made as unknown as SendHandle;
  }

  /** The messages that wait in the outbox, those of earlier clients of the state included, in order. */
  pending(): SendHandle[] {
    const found: SendHandle[] = [];
    for (const item of this.#runner.core.outbox) {
      if (item.state !== "failed") {
        const { messageId } = item.message;
        const handle = this.#handles.get(messageId) ?? new SendHandle(this, item);
        this.#handles.set(messageId, handle);
        found.push(handle);
      }
    }
    return found;
  }

  /** Take a message out of the outbox, also a failed one. See SendHandle.cancel. Throws StateError. */
  async discard(messageId: string): Promise<boolean> {
    const item = this.#runner.core.outbox.get(messageId);
    if (item === undefined || item.state === "held") {
      return false;
    }
    if (item.state === "failed") {
      this.#runner.forgetFailed(messageId);
      return true;
    }
    await this.#runner.discard(item);
    const handle = this.#handles.get(messageId);
    this.#handles.delete(messageId);
    if (handle !== undefined) {
      handle.error = new TidingsError(Code.CANCELLED, "the message was taken out of the outbox");
      handle.settle();
    }
    return true;
  }

  /** The application knows that a message has failed. @internal */
  forgetFailed(messageId: string): void {
    this.#runner.forgetFailed(messageId);
  }

  #onOutcome(outcome: Outcome): void {
    const before = outcome.type === "messagePending" ? outcome.replaces : outcome.messageId;
    const handle = this.#handles.get(before ?? "");
    if (handle === undefined) {
      return;
    }
    this.#handles.delete(before ?? "");
    if (outcome.type === "messagePending") {
      handle.messageId = outcome.messageId;
      this.#handles.set(outcome.messageId, handle);
    } else if (outcome.type === "messageSent") {
      handle.seq = outcome.seq;
      handle.settle();
    } else {
      handle.error = outcome.error;
      handle.settle();
    }
  }

  // Unary operations

  /**
   * Carry out any unary operation of the contract, with the client's token; the services are exported as `v1`. It is tried
   * again while the server can't be reached, until `callTimeout` is over.
   */
  async call<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageInitShape<I>,
  ): Promise<MessageShape<O>> {
    const deadline = this.#clock.now() + this.config.callTimeout;
    const message = create(method.input, request);
    let renewed = false;
    for (let attempt = 0; ; attempt += 1) {
      const token = await this.#tokenFor(method.name, deadline);
      try {
        const left = Math.max(1, deadline - this.#clock.now());
        return await this.parts.transport.call(method, message, token, left);
      } catch (error) {
        if (!(error instanceof TidingsError)) {
          throw error;
        }
        if (error.code === Code.UNAUTHENTICATED && !renewed) {
          this.#tokens.refused(token);
          renewed = true;
          continue;
        }
        await this.#mayPass(error, attempt, deadline);
      }
    }
  }

  async #tokenFor(what: string, deadline: number): Promise<string> {
    if (this.#runner.ended instanceof ClientClosed) {
      throw this.#runner.ended;
    }
    return this.#within(deadline, this.#runner.token(), `${what}: no token came in time`);
  }

  /** Wait until a call may be tried again; throws the error where that doesn't help or is too late. */
  async #mayPass(error: TidingsError, attempt: number, deadline: number): Promise<void> {
    const delay = backoffOf(this.config).delay(attempt, this.#random, error.retryAfter);
    const passing =
      error.code === Code.UNAVAILABLE ||
      (error.code === Code.RESOURCE_EXHAUSTED && error.retryAfter !== undefined);
    if (!passing || this.#clock.now() + delay >= deadline) {
      throw error;
    }
    await this.#runner.sleep(delay);
  }

  async #within<T>(deadline: number, work: Promise<T>, what: string): Promise<T> {
    let cancel = () => {};
    const over = new Promise<never>((_, reject) => {
      cancel = this.#clock.after(Math.max(0, deadline - this.#clock.now()), () =>
        reject(new TidingsError(Code.DEADLINE_EXCEEDED, what)),
      );
    });
    try {
      return await Promise.race([work, over]);
    } finally {
      cancel();
    }
  }

  protected async ownUserId(): Promise<string> {
    const deadline = this.#clock.now() + this.config.callTimeout;
    while (this.userId === undefined) {
      if (this.#runner.ended !== undefined) {
        throw this.#runner.ended;
      }
      await this.#within(
        deadline,
        this.#runner.changed(),
        "the client has never been connected yet",
      );
    }
    return this.userId;
  }

  protected newId(): string {
    const { ids, clock } = this.#runner.core;
    return ids.make(clock.nowMs(this.#runner.now()));
  }
}

function check(holds: boolean, field: string, what: string): void {
  if (!holds) {
    throw new TidingsError(Code.INVALID_ARGUMENT, what, { field });
  }
}
