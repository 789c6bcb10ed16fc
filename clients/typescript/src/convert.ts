/** From protobuf messages to the SDK's own types. */

import { toBinary } from "@bufbuild/protobuf";
import type { Duration, Timestamp } from "@bufbuild/protobuf/wkt";
import { codeOf, TidingsError } from "./errors.js";
import type * as events from "./events.js";
import type * as conversationPb from "./gen/tidings/v1/conversation_pb.js";
import type * as entryPb from "./gen/tidings/v1/entry_pb.js";
import { EntrySchema } from "./gen/tidings/v1/entry_pb.js";
import type * as errorPb from "./gen/tidings/v1/error_pb.js";
import { ErrorReasonSchema } from "./gen/tidings/v1/error_pb.js";
import type * as messagePb from "./gen/tidings/v1/message_pb.js";
import type * as presencePb from "./gen/tidings/v1/presence_service_pb.js";
import type * as models from "./models.js";

const KINDS: readonly models.ConversationKind[] = ["unspecified", "direct", "group"];
const ROLES: readonly models.MemberRole[] = [
  "unspecified",
  "member",
  "owner",
  "admin",
  "moderator",
  "guest",
];
const SCALES: readonly models.ScaleClass[] = ["unspecified", "small", "group", "channel"];
const AVAILABILITIES: readonly models.Availability[] = [
  "unspecified",
  "available",
  "away",
  "doNotDisturb",
];

/** The number of a role in the contract. */
export function roleNumber(role: models.MemberRole): conversationPb.MemberRole {
  return ROLES.indexOf(role);
}

/** The number of an availability in the contract. */
export function availabilityNumber(availability: models.Availability): presencePb.Availability {
  return AVAILABILITIES.indexOf(availability);
}

/** A protobuf time in milliseconds since the Unix epoch; 0 where there is none. */
export function msOf(timestamp: Timestamp | undefined): number {
  return timestamp === undefined
    ? 0
    : Number(timestamp.seconds) * 1000 + Math.floor(timestamp.nanos / 1_000_000);
}

function dateOf(timestamp: Timestamp | undefined): Date {
  return new Date(msOf(timestamp));
}

/** A protobuf duration in milliseconds. */
export function durationMs(duration: Duration): number {
  return Number(duration.seconds) * 1000 + duration.nanos / 1_000_000;
}

/** The error of a command. */
export function errorOf(error: errorPb.Error | undefined): TidingsError {
  // A reason newer than this SDK: its number is still something to search for.
  const reason = ErrorReasonSchema.value[error?.reason ?? 0]?.localName ?? String(error?.reason);
  return new TidingsError(codeOf(error?.code ?? 2), error?.message ?? "", {
    reason: reason === "UNSPECIFIED" ? "" : reason,
    field: error?.field ?? "",
    retryAfter: error?.retryDelay && durationMs(error.retryDelay),
    metadata: error?.metadata ?? {},
  });
}

/** A membership; an entry that made it needs not say at which position. */
export function memberOf(member: conversationPb.Member, joinSeq = 0): models.Member {
  return {
    userId: member.userId,
    role: ROLES[member.role] ?? "unspecified",
    joinSeq: Number(member.joinSeq) || joinSeq,
  };
}

/** A conversation. */
export function conversationOf(
  conversation: conversationPb.Conversation | undefined,
): models.Conversation {
  if (conversation === undefined) {
    throw new TidingsError(13, "the server sent no conversation");
  }
  return {
    conversationId: conversation.conversationId,
    kind: KINDS[conversation.kind] ?? "unspecified",
    title: conversation.title,
    peerUserId: conversation.peerUserId,
    createTime: dateOf(conversation.createTime),
    updateTime: dateOf(conversation.updateTime),
    memberCount: Number(conversation.memberCount),
    scaleClass: SCALES[conversation.scaleClass] ?? "unspecified",
    headSeq: Number(conversation.headSeq),
    role: ROLES[conversation.role] ?? "unspecified",
    joinSeq: Number(conversation.joinSeq),
    readSeq: Number(conversation.readSeq),
    unreadCount: Number(conversation.unreadCount),
    description: conversation.description,
    picture: conversation.picture,
    customData: conversation.customData,
  };
}

/** What is known of a user. */
export function presenceOf(presence: presencePb.Presence): models.Presence {
  return {
    userId: presence.userId,
    online: presence.online,
    lastSeenTime: presence.lastSeenTime ? dateOf(presence.lastSeenTime) : null,
    availability: AVAILABILITIES[presence.availability] ?? "unspecified",
    statusText: presence.statusText,
  };
}

/** What became of a message. */
export function stateOf(state: messagePb.MessageState): events.MessageState {
  return {
    type: "messageState",
    conversationId: state.conversationId,
    seq: Number(state.seq),
    asOf: Number(state.asOf),
    text: state.content?.text ?? null,
    replyTo: state.content?.replyToMessageId || null,
    editSeqs: state.editSeqs.map(Number),
    editTime: state.editTime ? dateOf(state.editTime) : null,
    deleted: state.deleted,
    reactions: state.reactions.map(({ reaction, count }) => ({ reaction, count: Number(count) })),
    ownReaction: state.ownReaction,
  };
}

/** An entry of a log, as the given user sees it; with what became of it, where that was fetched. */
export function entryOf(
  entry: entryPb.Entry,
  userId: string,
  state?: messagePb.MessageState,
): events.Entry {
  const seq = Number(entry.seq);
  const own = entry.userId === userId;
  const base: events.LogEntry = {
    conversationId: entry.conversationId,
    log: entry.conversationId,
    seq,
    ordinal: Number(entry.ordinal),
    time: dateOf(entry.createTime),
    userId: entry.userId,
    entryId: entry.id,
  };
  const body = entry.body;
  switch (body.case) {
    case "message":
      return {
        type: "message",
        ...base,
        text: body.value.text,
        replyTo: body.value.replyToMessageId || null,
        own,
        state: state ? stateOf(state) : null,
        erased: entry.erased,
      };
    case "messageEdited":
      return {
        type: "messageEdited",
        ...base,
        messageSeq: Number(body.value.seq),
        text: body.value.content?.text ?? "",
        replyTo: body.value.content?.replyToMessageId || null,
        erased: entry.erased,
      };
    case "messageDeleted":
      return { type: "messageDeleted", ...base, messageSeq: Number(body.value.seq) };
    case "reactionSet":
      return {
        type: "reactionSet",
        ...base,
        messageSeq: Number(body.value.seq),
        reaction: body.value.reaction,
        replaced: body.value.replaced,
        own,
      };
    default:
      return membershipOf(entry, base);
  }
}

function membershipOf(entry: entryPb.Entry, base: events.LogEntry): events.Entry {
  const body = entry.body;
  switch (body.case) {
    case "conversationCreated":
      return {
        type: "conversationCreated",
        ...base,
        kind: KINDS[body.value.kind] ?? "unspecified",
        title: body.value.title,
        members: body.value.members.map((member) => memberOf(member, base.seq)),
      };
    case "membersAdded":
      return {
        type: "membersAdded",
        ...base,
        members: body.value.members.map((member) => memberOf(member, base.seq)),
      };
    case "memberRemoved":
      return { type: "memberRemoved", ...base, removedUserId: body.value.userId };
    case "conversationUpdated":
      return { type: "conversationUpdated", ...base, settings: settingsOf(body.value) };
    case "conversationJoined":
      return {
        type: "conversationJoined",
        ...base,
        conversationId: body.value.conversationId,
        kind: KINDS[body.value.kind] ?? "unspecified",
        title: body.value.title,
        joinSeq: Number(body.value.seq),
        role: ROLES[body.value.role] ?? "unspecified",
        peerUserId: body.value.peerUserId,
      };
    case "conversationLeft":
      return {
        type: "conversationLeft",
        ...base,
        conversationId: body.value.conversationId,
        lastSeq: Number(body.value.seq),
      };
    default:
      return { type: "unknownEntry", ...base, raw: toBinary(EntrySchema, entry) };
  }
}

/** The names of settings in the contract's masks. */
const SETTINGS = {
  title: "title",
  description: "description",
  picture: "picture",
  customData: "custom_data",
} as const;

type Setting = keyof typeof SETTINGS;

/** The settings that a mask names. */
function settingsOf(updated: entryPb.ConversationUpdated): models.ConversationSettings {
  const named = new Set(updated.updateMask?.paths);
  const changed = (Object.keys(SETTINGS) as Setting[]).filter((name) => named.has(SETTINGS[name]));
  return Object.fromEntries(changed.map((name) => [name, updated.settings?.[name] ?? ""]));
}

/** The mask that names the settings given. */
export function maskOf(settings: models.ConversationSettings): string[] {
  return (Object.keys(SETTINGS) as Setting[])
    .filter((name) => settings[name] !== undefined)
    .map((name) => SETTINGS[name]);
}
