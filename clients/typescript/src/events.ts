/** What a client is told: typed events, plain objects told apart by `type`, in the order in which they are to be applied. */

import type { TidingsError } from "./errors.js";
import type { ConversationKind, ConversationSettings, Member, MemberRole } from "./models.js";

/** One durable change at one position of a log. */
export interface LogEntry {
  /** The conversation that it is about. */
  readonly conversationId: string;
  /** The log in which it stands: the conversation's id, or "inbox:" followed by the own user id. */
  readonly log: string;
  /** Its position in the log: 1, 2, 3 and so on, without gaps. */
  readonly seq: number;
  /** The number of messages in the log up to and including it. */
  readonly ordinal: number;
  /** When it was committed, by the server's clock. It never goes back along a log. */
  readonly time: Date;
  /** Who made the change. */
  readonly userId: string;
  /** The id that its sender gave it; the message id of messages. */
  readonly entryId: string;
}

/** How many users have reacted with what. */
export interface ReactionCount {
  readonly reaction: string;
  readonly count: number;
}

/**
 * What later entries made of a message. It stands in no log.
 *
 * It holds from the first entry up to `asOf`: entries about the message at or before that are in it, those behind it are
 * still to be applied. `MessageFold` does all of that.
 */
export interface MessageState {
  readonly type: "messageState";
  readonly conversationId: string;
  /** The position of the message. */
  readonly seq: number;
  /** The position up to which it is folded. */
  readonly asOf: number;
  /** What the message says now; null when it was never edited, or is deleted. */
  readonly text: string | null;
  /** The id of the message that it replies to now. */
  readonly replyTo: string | null;
  /** The positions of the entries that edited it, ascending. */
  readonly editSeqs: readonly number[];
  /** When it was last edited. */
  readonly editTime: Date | null;
  /** Whether it was deleted for all. */
  readonly deleted: boolean;
  /** How many users have reacted with what, the largest counts first. */
  readonly reactions: readonly ReactionCount[];
  /** The own reaction, empty for none. */
  readonly ownReaction: string;
}

/** A message was posted. */
export interface Message extends LogEntry {
  readonly type: "message";
  /** The text, exactly as it was sent. */
  readonly text: string;
  /** The id of the message that it replies to. */
  readonly replyTo: string | null;
  /** Whether the own user sent it, from whichever device. */
  readonly own: boolean;
  /**
   * What became of it, when it was fetched and something happened to it; otherwise null. On the stream it is null: what
   * happens to the message follows.
   */
  readonly state: MessageState | null;
  /** Whether its content is gone, because it was deleted for all. The text is empty then. */
  readonly erased: boolean;
}

/** A message was edited by its sender. */
export interface MessageEdited extends LogEntry {
  readonly type: "messageEdited";
  /** The position of the message. It may be one that was never seen here. */
  readonly messageSeq: number;
  /** What it says from here on. */
  readonly text: string;
  /** The id of the message that it replies to from here on. */
  readonly replyTo: string | null;
  /** Whether its content is gone, because the message was deleted for all. The text is empty then. */
  readonly erased: boolean;
}

/** A message was deleted for all: what is kept of its content, and that of its edits, is to be dropped. */
export interface MessageDeleted extends LogEntry {
  readonly type: "messageDeleted";
  /** The position of the message. It may be one that was never seen here. */
  readonly messageSeq: number;
}

/** A user has reacted to a message, or taken that back. A user has at most one reaction to each message. */
export interface ReactionSet extends LogEntry {
  readonly type: "reactionSet";
  /** The position of the message. It may be one that was never seen here. */
  readonly messageSeq: number;
  /** The reaction, empty when it was taken back. */
  readonly reaction: string;
  /** The reaction of the same user before, empty for none. */
  readonly replaced: string;
  /** Whether the own user did it, from whichever device. */
  readonly own: boolean;
}

/** The conversation was created: the entry at position 1. */
export interface ConversationCreated extends LogEntry {
  readonly type: "conversationCreated";
  readonly kind: ConversationKind;
  readonly title: string;
  readonly members: readonly Member[];
}

/** Users became members. */
export interface MembersAdded extends LogEntry {
  readonly type: "membersAdded";
  readonly members: readonly Member[];
}

/** A membership ended; the user left when it is also who made the change. It is the last entry that the user gets. */
export interface MemberRemoved extends LogEntry {
  readonly type: "memberRemoved";
  readonly removedUserId: string;
}

/** Settings of the conversation were changed; those that aren't named were not. */
export interface ConversationUpdated extends LogEntry {
  readonly type: "conversationUpdated";
  readonly settings: ConversationSettings;
}

/** The own user became a member of a conversation (an entry of the inbox). */
export interface ConversationJoined extends LogEntry {
  readonly type: "conversationJoined";
  readonly kind: ConversationKind;
  /** The title at the time of joining. */
  readonly title: string;
  /** The position in the conversation from which on the user may read. */
  readonly joinSeq: number;
  readonly role: MemberRole;
  /** In direct conversations the other user, otherwise empty. */
  readonly peerUserId: string;
}

/** The own user is no longer a member of a conversation (an entry of the inbox). */
export interface ConversationLeft extends LogEntry {
  readonly type: "conversationLeft";
  /** The last position in the conversation that the user may read. */
  readonly lastSeq: number;
}

/** An entry of a kind newer than this SDK. It counts as a position. */
export interface UnknownEntry extends LogEntry {
  readonly type: "unknownEntry";
  /** The entry as a serialised tidings.v1.Entry. */
  readonly raw: Uint8Array;
}

/**
 * Positions of a log that are not sent because too many were missed.
 *
 * They can be listed at any time: `client.missed(gap)`. Once the gap is applied they aren't offered again.
 */
export interface Gap {
  readonly type: "gap";
  /** The log: a conversation, or "inbox:" followed by the own user id. */
  readonly conversationId: string;
  /** The first position left out. */
  readonly fromSeq: number;
  /** The last position left out. */
  readonly toSeq: number;
  /**
   * What is held of messages from here up to `toSeq` is out of date: what became of them may be in the gap. It is at most
   * `fromSeq`, or 0 when it is the same.
   */
  readonly staleFromSeq: number;
}

/**
 * Positions of a log that the user may not see, such as those between a removal and a return.
 *
 * It comes only where something became of earlier messages meanwhile, behind the MessageState of each: once it is applied
 * they aren't offered again. There is nothing else to do.
 */
export interface Skipped {
  readonly type: "skipped";
  readonly conversationId: string;
  /** The first position passed over. */
  readonly fromSeq: number;
  /** The last position passed over. */
  readonly toSeq: number;
}

/**
 * The server's store was restored from a backup.
 *
 * Its newest entries may be lost, and their positions given to others. Of each log, what is kept beyond the position named
 * here is to be dropped; what holds comes again after this event.
 */
export interface IncarnationChanged {
  readonly type: "incarnationChanged";
  readonly incarnation: string;
  /** The newest position of each log that still holds; nothing holds of logs that aren't named. */
  readonly positions: ReadonlyMap<string, number>;
}

/**
 * The server has less of a log than was applied here, or nothing, without a restore.
 *
 * What is kept of the log beyond the position named here is to be dropped.
 */
export interface PositionLost {
  readonly type: "positionLost";
  /** The log: a conversation, or "inbox:" followed by the own user id. */
  readonly conversationId: string;
  /** The newest position that still holds; 0 when the log is none of the user's. */
  readonly seq: number;
}

/** Everything up to the heads at the time of connecting was sent. */
export interface SyncComplete {
  readonly type: "syncComplete";
  /** The number of logs of the session, the inbox included. */
  readonly conversations: number;
}

/** A member of a small conversation has got or read messages. The marks only grow. */
export interface ReceiptUpdate {
  readonly type: "receipt";
  readonly conversationId: string;
  readonly userId: string;
  /** The newest position delivered to a device of the member. */
  readonly deliveredSeq: number;
  /** The newest position read by the member. */
  readonly readSeq: number;
}

/** An own message is in the outbox, for local echo. */
export interface MessagePending {
  readonly type: "messagePending";
  readonly conversationId: string;
  /** The id of the message, the same as in the Message that follows. */
  readonly messageId: string;
  readonly text: string;
  /** The id of the message that it replies to. */
  readonly replyTo: string | null;
  /** When it was queued, by the server's clock as far as that is known. */
  readonly time: Date;
  /** Whether it was queued by an earlier process or page. */
  readonly restored: boolean;
  /**
   * The id that the message had before. An id made by a clock that was far ahead is made anew, once, before the message
   * is first sent.
   */
  readonly replaces: string | null;
}

/** An own message is durable at the server and has its position for ever. */
export interface MessageSent {
  readonly type: "messageSent";
  readonly conversationId: string;
  readonly messageId: string;
  readonly seq: number;
  /** When it was committed. */
  readonly time: Date;
}

/** An own message was refused for good and is not tried again. */
export interface MessageFailed {
  readonly type: "messageFailed";
  readonly conversationId: string;
  readonly messageId: string;
  readonly text: string;
  /** The id of the message that it replies to. */
  readonly replyTo: string | null;
  /** Why it was refused. */
  readonly error: TidingsError;
}

/**
 * How the client stands to the server: connecting, syncing (the session is open and missed entries come), online, offline
 * (it will be tried again), ended (it will not).
 */
export type ConnectionStatus = "connecting" | "syncing" | "online" | "offline" | "ended";

/** How the client stands to the server. */
export interface ConnectionState {
  readonly type: "connection";
  readonly status: ConnectionStatus;
  /** While offline, milliseconds until the next try, counted from this event; otherwise null. */
  readonly retryIn: number | null;
  /** Why the client is offline or ended. */
  readonly error: TidingsError | null;
}

/** What happens to a message: an entry that names the message as `messageSeq`. */
export type MessageChange = MessageEdited | MessageDeleted | ReactionSet;

/** What stands in a log, and so in history. */
export type Entry =
  | Message
  | MessageChange
  | ConversationCreated
  | MembersAdded
  | MemberRemoved
  | ConversationUpdated
  | ConversationJoined
  | ConversationLeft
  | UnknownEntry;

/** What `client.events()` yields. */
export type Event =
  | Entry
  | MessageState
  | Gap
  | Skipped
  | IncarnationChanged
  | PositionLost
  | SyncComplete
  | ReceiptUpdate
  | MessagePending
  | MessageSent
  | MessageFailed
  | ConnectionState;
