/** What unary operations return: conversations, members, receipts, presence, as plain values. */

/** How a conversation is made and who may join; "unspecified" for a kind newer than this SDK. */
export type ConversationKind = "direct" | "group" | "unspecified";

/**
 * What a member may do; "unspecified" for an ex-member, or a role newer than this SDK.
 *
 * From the bottom up: guest, member, moderator, admin, owner.
 */
export type MemberRole = "guest" | "member" | "moderator" | "admin" | "owner" | "unspecified";

/** How live a conversation is, by its number of members. */
export type ScaleClass = "small" | "group" | "channel" | "unspecified";

/** What a user says of being there. */
export type Availability = "available" | "away" | "doNotDisturb" | "unspecified";

/** The direction of a listing of history. */
export type HistoryOrder = "ascending" | "descending";

/** One user's membership of a conversation. */
export interface Member {
  readonly userId: string;
  readonly role: MemberRole;
  /** The position of the entry that made the user a member. */
  readonly joinSeq: number;
}

/** A conversation as its caller sees it. */
export interface Conversation {
  /** A UUID in lower-case text form. */
  readonly conversationId: string;
  readonly kind: ConversationKind;
  /** The title of a group, empty in direct conversations, and for ex-members if a setting was changed later. */
  readonly title: string;
  /** In direct conversations the other user, otherwise empty. */
  readonly peerUserId: string;
  readonly createTime: Date;
  /** When its newest entry was committed. */
  readonly updateTime: Date;
  /** The number of members now. */
  readonly memberCount: number;
  readonly scaleClass: ScaleClass;
  /** The newest position that the caller may read. */
  readonly headSeq: number;
  /** The caller's role, "unspecified" for an ex-member. */
  readonly role: MemberRole;
  /** The first position that the caller may read. */
  readonly joinSeq: number;
  /** How far the caller has read, over all devices; 0 when nothing was read. */
  readonly readSeq: number;
  /** The messages after readSeq. */
  readonly unreadCount: number;
  /** What it is for. */
  readonly description: string;
  /** A URL, or the id of a medium. */
  readonly picture: string;
  /** Data of an integrator. */
  readonly customData: string;
}

/** What can be changed about a group; what isn't named stays as it is. */
export interface ConversationSettings {
  /** At most 256 bytes of UTF-8. */
  readonly title?: string;
  /** What it is for, at most 1,024 bytes of UTF-8. */
  readonly description?: string;
  /** A URL or the id of a medium, at most 512 bytes of UTF-8. */
  readonly picture?: string;
  /** Data of an integrator, at most 2,048 bytes of UTF-8. */
  readonly customData?: string;
}

/** How far one member has got and read. */
export interface Receipt {
  readonly userId: string;
  /** The newest position delivered to a device of the member. */
  readonly deliveredSeq: number;
  /** The newest position read by the member. */
  readonly readSeq: number;
}

/** What is unread in one conversation. */
export interface UnreadCount {
  readonly conversationId: string;
  /** The messages after the read mark. */
  readonly unreadCount: number;
  /** The caller's read mark. */
  readonly readSeq: number;
}

/** What is unread over several conversations. */
export interface Unread {
  /** The sum over all the conversations asked for. */
  readonly total: number;
  /** One for each conversation with at least one unread message, by conversation id. */
  readonly counts: ReadonlyMap<string, UnreadCount>;
}

/** Who has reacted to a message, and with what. */
export interface Reaction {
  readonly userId: string;
  readonly reaction: string;
}

/** What is known of one user. */
export interface Presence {
  readonly userId: string;
  /** Whether a device is connected, or was within the last ten seconds. */
  readonly online: boolean;
  /** When a device was last connected; null while online or when never seen. */
  readonly lastSeenTime: Date | null;
  /** What the user says of being there. */
  readonly availability: Availability;
  /** A text of the user's own. */
  readonly statusText: string;
}
