/** The messages of a conversation as they are now: entries and states, folded in whatever order they come. */

import type { Event, Message, MessageChange, MessageState, ReactionCount } from "./events.js";

const MAX_WAITING = 10_000;

/** A message and what became of it. */
export interface FoldedMessage {
  /** Its entry. */
  readonly message: Message;
  /** What became of it, up to `state.asOf`. */
  readonly state: MessageState;
  /** What it says now; nothing when it is deleted. */
  readonly text: string;
  /** The id of the message that it replies to now. */
  readonly replyTo: string | null;
  /** Whether it was deleted for all. */
  readonly deleted: boolean;
  /** Whether it was edited. */
  readonly edited: boolean;
}

/**
 * What is held of the messages of one conversation.
 *
 * It takes the events of the stream and what is fetched from history, in any mixture: a change that is in a fetched state
 * already is passed over, and one that comes before its message waits for it. What lies in a gap has to be fetched.
 */
export class MessageFold implements Iterable<FoldedMessage> {
  #messages = new Map<number, FoldedMessage>();
  /** Changes of messages that aren't held, in their order. */
  readonly #waiting = new Map<number, MessageChange[]>();
  #waitingCount = 0;

  get size(): number {
    return this.#messages.size;
  }

  /** The messages, by position. */
  [Symbol.iterator](): Iterator<FoldedMessage> {
    return [...this.#messages.values()].sort((a, b) => a.message.seq - b.message.seq).values();
  }

  /** The message at a position, when it is held. */
  get(seq: number): FoldedMessage | undefined {
    return this.#messages.get(seq);
  }

  /** Take an event of the conversation; returns the position of the message that looks otherwise now, if one does. */
  take(event: Event): number | undefined {
    switch (event.type) {
      case "message":
        return this.#takeMessage(event);
      case "messageState":
        return this.#takeState(event);
      case "messageEdited":
      case "messageDeleted":
      case "reactionSet":
        return this.#takeChange(event);
      case "gap": {
        // What is held of it was never known to be applied: what became of it may be in the gap as well.
        const first = event.staleFromSeq || event.fromSeq;
        for (const seq of this.#messages.keys()) {
          if (first <= seq && seq <= event.toSeq) {
            this.forget(seq);
          }
        }
        return undefined;
      }
      default:
        return undefined;
    }
  }

  /** Hold the message at a position no more. */
  forget(seq: number): void {
    this.#messages.delete(seq);
  }

  /**
   * Nothing holds that was made beyond a position: drop it. See IncarnationChanged and PositionLost.
   *
   * Messages before the position that were changed beyond it are dropped too, and have to be fetched again.
   */
  drop(seq: number): void {
    for (const [at, held] of this.#messages) {
      if (at > seq || held.state.asOf > seq) {
        this.#messages.delete(at);
      }
    }
    this.#waiting.clear();
    this.#waitingCount = 0;
  }

  #takeMessage(message: Message): number | undefined {
    const held = this.#messages.get(message.seq);
    const state = message.state ?? untouched(message);
    if (held !== undefined && held.state.asOf >= state.asOf) {
      return undefined;
    }
    let folded = foldedOf({ ...message, state: null }, state);
    const waiting = this.#waiting.get(message.seq) ?? [];
    this.#waiting.delete(message.seq);
    this.#waitingCount -= waiting.length;
    for (const change of waiting) {
      folded = changed(folded, change);
    }
    this.#messages.set(message.seq, folded);
    return message.seq;
  }

  #takeState(state: MessageState): number | undefined {
    const held = this.#messages.get(state.seq);
    if (held === undefined || held.state.asOf >= state.asOf) {
      return undefined;
    }
    this.#messages.set(state.seq, foldedOf(held.message, state));
    return state.seq;
  }

  #takeChange(change: MessageChange): number | undefined {
    const held = this.#messages.get(change.messageSeq);
    if (held === undefined) {
      this.#wait(change);
      return undefined;
    }
    const folded = changed(held, change);
    if (folded === held) {
      return undefined;
    }
    this.#messages.set(change.messageSeq, folded);
    return change.messageSeq;
  }

  #wait(change: MessageChange): void {
    if (this.#waitingCount >= MAX_WAITING) {
      // Whoever fetches them later gets newer states than these changes.
      this.#waiting.clear();
      this.#waitingCount = 0;
    }
    const waiting = this.#waiting.get(change.messageSeq) ?? [];
    this.#waiting.set(change.messageSeq, [...waiting, change]);
    this.#waitingCount += 1;
  }
}

function untouched(message: Message): MessageState {
  return {
    type: "messageState",
    conversationId: message.conversationId,
    seq: message.seq,
    asOf: message.seq,
    text: null,
    replyTo: null,
    editSeqs: [],
    editTime: null,
    deleted: false,
    reactions: [],
    ownReaction: "",
  };
}

/** A message and its state, without its content when it is deleted. */
function foldedOf(whole: Message, state: MessageState): FoldedMessage {
  const message = state.deleted ? { ...whole, text: "", replyTo: null, erased: true } : whole;
  return {
    message,
    state,
    text: state.text ?? message.text,
    replyTo: state.text === null ? message.replyTo : state.replyTo,
    deleted: message.erased || state.deleted,
    edited: state.editSeqs.length > 0,
  };
}

/** A message after a change; the same one when the change is in it already. */
function changed(held: FoldedMessage, change: MessageChange): FoldedMessage {
  const state = held.state;
  const asOf = change.seq;
  if (asOf <= state.asOf) {
    return held;
  }
  switch (change.type) {
    case "messageEdited":
      return foldedOf(held.message, {
        ...state,
        asOf,
        text: change.text,
        replyTo: change.replyTo,
        editSeqs: [...state.editSeqs, change.seq],
        editTime: change.time,
      });
    case "reactionSet":
      return foldedOf(held.message, {
        ...state,
        asOf,
        reactions: counted(state.reactions, change.replaced, change.reaction),
        ownReaction: change.own ? change.reaction : state.ownReaction,
      });
    case "messageDeleted":
      return foldedOf(held.message, {
        ...state,
        asOf,
        text: null,
        replyTo: null,
        deleted: true,
        reactions: [],
        ownReaction: "",
      });
  }
}

/** Counts after a user has changed a reaction; either may be empty. */
function counted(counts: readonly ReactionCount[], old: string, now: string): ReactionCount[] {
  const all = new Map(counts.map(({ reaction, count }) => [reaction, count]));
  const before = all.get(old);
  if (before !== undefined) {
    all.set(old, before - 1);
  }
  if (now) {
    all.set(now, (all.get(now) ?? 0) + 1);
  }
  return [...all]
    .filter(([, count]) => count > 0)
    .map(([reaction, count]) => ({ reaction, count }))
    .sort((a, b) => b.count - a.count || (a.reaction < b.reaction ? -1 : 1));
}
