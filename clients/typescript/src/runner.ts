/** The shell around the core: connects, carries frames, waits, saves. It decides nothing about the protocol. */

import type { End, GoAway, Reconnect, RefreshToken } from "./actions.js";
import type { Backoff } from "./backoff.js";
import type { Clock } from "./clock.js";
import { backoffOf, type ClientConfig } from "./config.js";
import { SessionCore } from "./core.js";
import { ClientClosed, Code, ConnectionLost, TidingsError } from "./errors.js";
import type { ConnectionState, ConnectionStatus, Event } from "./events.js";
import { judge, Refusals } from "./judging.js";
import type { Outgoing } from "./outbox.js";
import type { Random } from "./random.js";
import { Saver } from "./saving.js";
import type { Outcome } from "./sends.js";
import type { StateStore } from "./state.js";
import type { TokenSource } from "./tokens.js";
import { type Connection, EndOfStream, type Transport } from "./transport.js";

const SILENT_BEACONS = 2.5;
const TOKEN_MARGIN_MS = 5_000;

/** What a client is made of. */
export interface Parts {
  readonly config: ClientConfig;
  readonly store: StateStore;
  readonly transport: Transport;
  readonly tokens: TokenSource;
  readonly clock: Clock;
  readonly random: Random;
  /** Told of faults that the client goes on with. */
  readonly warn: (what: string, error: unknown) => void;
}

/** Keeps one device connected until it is closed or the server says that there is no point. */
export class Runner {
  state: ConnectionState = { type: "connection", status: "connecting", retryIn: null, error: null };
  ended: TidingsError | undefined;
  onOutcome: (outcome: Outcome) => void = () => {};
  onEnd: () => void = () => {};
  #opened: SessionCore | undefined;
  #saver: Saver | undefined;
  readonly #backoff: Backoff;
  #waiters: (() => void)[] = [];
  readonly #kept = new Set<Promise<unknown>>();
  #connection: Connection | undefined;
  #writing: Promise<void> | undefined;
  #refreshing: Connection | undefined;
  #closing = false;
  #failures = 0;
  readonly #refusals = new Refusals();
  #syncedAt: number | undefined;
  /** Whether a connection of our own may stand at the server yet: an earlier page's, for all that is known. */
  #leftBehind = true;
  #goingAway: number | undefined;
  /** What the end of this connection means, when it was left from here. */
  #leaving: Reconnect | undefined;
  /** While connecting: ends that. */
  #giveUp: ((error: TidingsError) => void) | undefined;
  #deadlineAt = 0;
  #cancelDeadline: (() => void) | undefined;
  #cancelOutbox: (() => void) | undefined;
  #endPause: (() => void) | undefined;
  #lastFrameWall = 0;

  constructor(private readonly parts: Parts) {
    this.#backoff = backoffOf(parts.config);
  }

  get config(): ClientConfig {
    return this.parts.config;
  }

  /** The state machine. Throws ClientClosed before `start`. */
  get core(): SessionCore {
    if (this.#opened === undefined) {
      throw new ClientClosed("the client isn't open: call open() first");
    }
    return this.#opened;
  }

  now(): number {
    return this.parts.clock.now();
  }

  // Opening and closing

  /** Read the state and begin to connect. Throws StateError. */
  async start(): Promise<void> {
    const { store, config, clock, random } = this.parts;
    const state = await store.open();
    this.#opened = new SessionCore(state, config, () => clock.wall(), random);
    this.#saver = new Saver(this.#opened, this.parts, () => this.#afterCore());
    this.#opened.events.put(this.state);
    void this.#run();
  }

  /** Save and acknowledge what was applied, and let go of everything. */
  async stop(): Promise<void> {
    if (this.#closing) {
      return;
    }
    this.#closing = true;
    if (this.#saver !== undefined) {
      await this.#atMost(this.config.closeTimeout, this.#finishWriting(this.#saver));
      this.#saver.stop();
    }
    this.#cancelTimers();
    this.#endPause?.();
    const connection = this.#connection;
    this.#connection = undefined;
    await connection?.close(true);
    this.#giveUp?.(new ClientClosed());
    this.#end(new ClientClosed());
    await this.parts.transport.close();
    if (this.#opened !== undefined) {
      await this.parts.store.close();
    }
  }

  async #finishWriting(saver: Saver): Promise<void> {
    await Promise.allSettled(this.#kept);
    await saver.finish();
    this.#flush();
    await this.#writing;
  }

  // Waiting

  /** Wake whoever waits for events or for a state. */
  notify(): void {
    for (const wake of this.#waiters.splice(0)) {
      wake();
    }
  }

  /** Wait for the next `notify`. */
  changed(): Promise<void> {
    return new Promise((resolve) => this.#waiters.push(resolve));
  }

  sleep(ms: number): Promise<void> {
    return new Promise((resolve) => {
      this.parts.clock.after(ms, resolve);
    });
  }

  async #atMost(ms: number, work: Promise<void>): Promise<void> {
    let cancel = () => {};
    const over = new Promise<void>((resolve) => {
      cancel = this.parts.clock.after(ms, resolve);
    });
    await Promise.race([work, over]);
    cancel();
  }

  #end(error: TidingsError): void {
    if (this.ended === undefined) {
      this.ended = error;
      this.onEnd();
    }
    this.notify();
  }

  // The outbox

  /** Put a message into the outbox; durable when it returns. `made` is told of it before. Throws StateError. */
  enqueue(
    conversationId: string,
    content: Uint8Array,
    made: (item: Outgoing) => void,
  ): Promise<void> {
    const item = this.core.sends.enqueue(conversationId, content, this.now());
    made(item);
    return this.#finish(this.#keep(item));
  }

  async #keep(item: Outgoing): Promise<void> {
    try {
      await this.parts.store.add([item.message]);
    } catch (error) {
      this.core.outbox.drop(item);
      this.#flush();
      throw error;
    }
    this.core.sends.stored(item, this.now());
    this.#afterCore();
  }

  /** Take a message out of the outbox; durable when it returns. Throws StateError. */
  discard(item: Outgoing): Promise<void> {
    return this.#finish(this.#takeOut(item));
  }

  async #takeOut(item: Outgoing): Promise<void> {
    const { sends, outbox } = this.core;
    const message = sends.discarding(item);
    try {
      // Removing alone isn't durable: a message that comes back after a loss of power must not be sent.
      await this.parts.store.update(new Map([[message.messageId, message]]));
    } catch (error) {
      outbox.stored(item);
      this.#afterCore();
      throw error;
    }
    sends.discarded(item);
    this.#afterCore();
  }

  /** The application knows that a message has failed. */
  forgetFailed(messageId: string): void {
    this.core.sends.forgetFailed(messageId);
    this.#saveIfDue();
  }

  /** The application has dealt with an event. */
  applied(event: Event): void {
    this.core.apply(event);
    this.#saveIfDue();
  }

  #saveIfDue(): void {
    if (!this.#closing) {
      this.#saver?.saveIfDue();
    }
  }

  /** Closing waits for it. */
  #finish<T>(work: Promise<T>): Promise<T> {
    this.#kept.add(work);
    const done = () => this.#kept.delete(work);
    work.then(done, done);
    return work;
  }

  // Connecting

  /** Something tells that connecting may succeed now: the network is there, or the page was looked at again. */
  wake(): void {
    if (this.#endPause !== undefined) {
      this.#failures = 0;
      this.#endPause();
    } else if (this.#connection !== undefined) {
      // Timers stand still in a sleeping tab or machine, and the connection may be a ghost by now.
      const silent = this.parts.clock.wall() - this.#lastFrameWall;
      if (silent > this.core.limits.beaconInterval * SILENT_BEACONS) {
        this.#leave(new ConnectionLost("nothing came from the server for too long"), 0);
      }
    }
  }

  /** The network is gone, or has changed: what goes by it now won't arrive. */
  lost(why: string): void {
    this.#leave(new ConnectionLost(why));
  }

  #leave(error: TidingsError, delay?: number): void {
    if (this.#giveUp === undefined && this.#connection === undefined) {
      return;
    }
    this.#leaving ??= { type: "reconnect", error, delay };
    this.#giveUp?.(error);
    void this.#connection?.close(false);
  }

  #setState(
    status: ConnectionStatus,
    retryIn: number | null = null,
    error: TidingsError | null = null,
  ): void {
    const was = this.state;
    if (status !== was.status || retryIn !== was.retryIn || error !== was.error) {
      this.state = { type: "connection", status, retryIn, error };
      this.core.events.put(this.state);
    }
    this.notify();
  }

  async #run(): Promise<void> {
    while (!this.#closing) {
      const action = await this.#runSession();
      if (this.#closing) {
        return;
      }
      if (action.type === "end") {
        this.#setState("ended", null, action.error);
        this.#end(action.error);
        return;
      }
      if (action.error.reason === "DRAINING") {
        // It goes on refusing sessions, and this connection leads nowhere else.
        this.parts.transport.renew();
      }
      const delay = action.delay ?? this.#nextDelay(action.error);
      this.#setState("offline", delay, action.error);
      await this.#pause(delay);
    }
  }

  #nextDelay(error: TidingsError): number {
    // Whether the session stood long enough for its end not to count as one failure more.
    if (this.#syncedAt !== undefined && this.now() - this.#syncedAt >= this.config.backoffCap) {
      this.#failures = 0;
    }
    const delay = this.#backoff.delay(this.#failures, this.parts.random, error.retryAfter);
    this.#failures += 1;
    return delay;
  }

  #pause(delay: number): Promise<void> {
    return new Promise((resolve) => {
      const cancel = this.parts.clock.after(delay, () => this.#endPause?.());
      this.#endPause = () => {
        cancel();
        this.#endPause = undefined;
        resolve();
      };
    });
  }

  /** Connect and stay connected; returns why it ended. */
  async #runSession(): Promise<Reconnect | End> {
    this.#syncedAt = this.#goingAway = this.#leaving = undefined;
    this.#setState("connecting");
    let token = "";
    let ended = false;
    let action: Reconnect | End;
    try {
      // The provider may ask a person: it takes as long as it takes.
      token = await this.token();
      action = await this.#read(await this.#connect(token));
    } catch (error) {
      ended = error instanceof EndOfStream;
      action = this.#leaving ?? this.#actionOf(error);
    }
    const left = this.#connection !== undefined && !ended;
    this.#disconnect();
    return this.#lay(this.#refusals.judge(action, token, this.parts.tokens), left);
  }

  async #connect(token: string): Promise<Connection> {
    const { transport } = this.parts;
    this.#setDeadline(this.now() + this.config.connectTimeout);
    const connecting = transport.connect(token);
    const given = new Promise<never>((_, reject) => {
      this.#giveUp = reject;
    });
    try {
      const connection = await Promise.race([connecting, given]);
      if (this.#closing) {
        throw new ClientClosed();
      }
      this.#connection = connection;
    } catch (error) {
      connecting.then(
        (late) => late.close(false),
        () => {},
      );
      throw error;
    } finally {
      this.#giveUp = undefined;
    }
    this.core.connected();
    this.#flush();
    return this.#connection;
  }

  /** What the end of a session means. */
  #actionOf(error: unknown): Reconnect | End {
    if (error instanceof EndOfStream || error instanceof ConnectionLost) {
      if (this.#goingAway !== undefined) {
        // It is gone before its time: there is nothing to wait for, and everybody who was on it comes now.
        return { type: "reconnect", error: away() };
      }
    }
    if (error instanceof EndOfStream) {
      const type = error.reconnect ? "reconnect" : "end";
      return error.reconnect === undefined ? judge(error.error) : { type, error: error.error };
    }
    if (error instanceof TidingsError) {
      return judge(error);
    }
    // A fault of the SDK's own must not end a device silently: it shows and tries again.
    this.parts.warn("the session failed", error);
    return { type: "reconnect", error: new TidingsError(Code.INTERNAL, String(error)) };
  }

  /**
   * What replaced this session may be a connection of our own that was left before, and whose hello came late: then it is
   * worth one more try.
   */
  #lay(action: Reconnect | End, left: boolean): Reconnect | End {
    if (action.error.reason !== "SESSION_REPLACED") {
      this.#leftBehind ||= left;
      return action;
    }
    const syncedFor = this.#syncedAt === undefined ? 0 : this.now() - this.#syncedAt;
    const ours = this.#leftBehind && syncedFor < this.core.limits.beaconInterval * SILENT_BEACONS;
    this.#leftBehind = false;
    return ours ? { type: "reconnect", error: action.error } : action;
  }

  /** The token to use now. Throws TidingsError when there is none. */
  async token(): Promise<string> {
    const { tokens } = this.parts;
    const core = this.core;
    if (core.tokenExpireMs !== undefined) {
      const left = core.tokenExpireMs - core.clock.nowMs(this.now());
      if (left < TOKEN_MARGIN_MS) {
        core.tokenExpireMs = undefined;
        return provided(tokens.renew());
      }
    }
    return provided(tokens.get());
  }

  #disconnect(): void {
    this.#cancelTimers();
    const connection = this.#connection;
    this.#connection = this.#writing = this.#refreshing = undefined;
    this.core.disconnected();
    void connection?.close(false);
  }

  // A connection

  /** Take frames until one of them ends it. The deadline moves with each, once the session is open. */
  async #read(connection: Connection): Promise<Reconnect | End> {
    const core = this.core;
    while (true) {
      const frame = await connection.receive();
      const now = this.now();
      this.#lastFrameWall = this.parts.clock.wall();
      const actions = core.receive(frame, now);
      this.#showProgress(now);
      for (const action of actions) {
        if (action.type === "reconnect" || action.type === "end") {
          this.#afterCore();
          return action;
        }
        this.#carryOut(action, now);
      }
      this.#afterCore();
      if (core.welcomed) {
        const silence = now + core.limits.beaconInterval * SILENT_BEACONS;
        this.#setDeadline(this.#goingAway ?? silence);
      }
    }
  }

  #showProgress(now: number): void {
    const core = this.core;
    if (core.welcomed && this.state.status === "connecting") {
      this.#refusals.clear();
      this.#setState("syncing");
    }
    if (core.synced && this.#syncedAt === undefined) {
      this.#syncedAt = now;
      this.#setState("online");
    }
  }

  #carryOut(action: GoAway | RefreshToken, now: number): void {
    if (action.type === "goAway") {
      this.#goingAway = now + action.delay;
    } else if (this.#refreshing === undefined && this.#connection !== undefined) {
      this.#refreshing = this.#connection;
      void this.#refresh(this.#connection);
    }
  }

  /** The timer isn't renewed with each frame: it looks again when it is due. */
  #setDeadline(at: number): void {
    const sooner = at < this.#deadlineAt;
    this.#deadlineAt = at;
    if (sooner || this.#cancelDeadline === undefined) {
      this.#cancelDeadline?.();
      this.#awaitDeadline();
    }
  }

  #awaitDeadline(): void {
    this.#cancelDeadline = this.parts.clock.after(
      Math.max(0, this.#deadlineAt - this.now()),
      () => {
        this.#cancelDeadline = undefined;
        if (this.now() < this.#deadlineAt) {
          this.#awaitDeadline();
        } else if (this.#goingAway !== undefined) {
          this.#leave(away(), 0);
        } else {
          this.#leave(new ConnectionLost("nothing came from the server for too long"));
        }
      },
    );
  }

  /** The core has changed: tell everyone whom it concerns. */
  #afterCore(): void {
    const core = this.core;
    for (const outcome of core.sends.outcomes.splice(0)) {
      this.onOutcome(outcome);
    }
    if (core.hasEvents) {
      this.notify();
    }
    this.#saveIfDue();
    this.#flush();
  }

  /** See to it that what is to be sent goes out. */
  #flush(): void {
    const connection = this.#connection;
    if (connection !== undefined && this.#writing === undefined) {
      this.#writing = this.#write(connection);
    }
  }

  async #write(connection: Connection): Promise<void> {
    // What is to be sent in the same turn goes together.
    await Promise.resolve();
    try {
      while (connection === this.#connection) {
        const frame = this.core.nextFrame(this.now());
        if (frame === undefined) {
          break;
        }
        await connection.send(frame);
      }
    } catch (error) {
      if (!(error instanceof ConnectionLost)) {
        this.parts.warn("a frame could not be sent", error);
        this.#leave(new ConnectionLost(String(error)));
      }
    }
    if (connection === this.#connection) {
      this.#writing = undefined;
      this.#wakeOutbox();
    }
  }

  #wakeOutbox(): void {
    this.#cancelOutbox?.();
    const wakeAt = this.core.wakeAt();
    this.#cancelOutbox =
      wakeAt === undefined
        ? undefined
        : this.parts.clock.after(Math.max(0, wakeAt - this.now()), () => this.#flush());
  }

  /** Get a new token for the session; on failure try again until the session ends. */
  async #refresh(connection: Connection): Promise<void> {
    for (let attempt = 0; connection === this.#connection; attempt += 1) {
      try {
        const token = await provided(this.parts.tokens.renew());
        if (connection === this.#connection) {
          this.#refreshing = undefined;
          this.core.refreshToken(token);
          this.#flush();
        }
        return;
      } catch (error) {
        this.parts.warn("the token can't be renewed", error);
        await this.sleep(this.#backoff.delay(attempt, this.parts.random));
      }
    }
  }

  #cancelTimers(): void {
    this.#cancelDeadline?.();
    this.#cancelOutbox?.();
    this.#cancelDeadline = this.#cancelOutbox = undefined;
  }
}

function away(): TidingsError {
  return new TidingsError(Code.UNAVAILABLE, "the server is going away", { reason: "DRAINING" });
}

/** It is the application's code: whatever it throws, it is asked again. */
async function provided(token: Promise<string>): Promise<string> {
  try {
    return await token;
  } catch (error) {
    if (error instanceof TidingsError) {
      throw error;
    }
    throw new TidingsError(Code.UNAVAILABLE, `no token: ${error}`);
  }
}
