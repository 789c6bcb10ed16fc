/** The unary operations, typed: requests made, pages turned, answers converted. */

import type {
  DescMessage,
  DescMethodUnary,
  MessageInitShape,
  MessageShape,
} from "@bufbuild/protobuf";
import * as convert from "./convert.js";
import { Code, TidingsError } from "./errors.js";
import type { Entry, Gap, MessageEdited } from "./events.js";
import { ConversationKind } from "./gen/tidings/v1/conversation_pb.js";
import {
  ConversationService,
  type CreateConversationRequestSchema,
} from "./gen/tidings/v1/conversation_service_pb.js";
import {
  HistoryOrder as HistoryOrderPb,
  type ListHistoryResponse,
  MessageService,
} from "./gen/tidings/v1/message_service_pb.js";
import { PresenceService } from "./gen/tidings/v1/presence_service_pb.js";
import { ReceiptService } from "./gen/tidings/v1/receipt_service_pb.js";
import type * as models from "./models.js";

const HISTORY_PAGE = 200;
const CONVERSATION_PAGE = 100;
const MEMBER_PAGE = 500;

/** How to list. */
export interface Paging {
  /** How many are fetched at a time. */
  pageSize?: number;
}

/** A change that can be named. */
export interface Named {
  /** A UUIDv7 that names the request, to repeat it over restarts without doing it twice; made here if not given. */
  requestId?: string;
}

/** Which entries to list. */
export interface HistoryRange extends Paging {
  /** Where to begin, itself included; by default the newest when descending and the oldest when ascending. */
  fromSeq?: number;
  /** Where to end, itself included; by default the end of the log. */
  until?: number;
  /** The direction; by default descending. */
  order?: models.HistoryOrder;
}

/**
 * What can be asked of the server besides the stream.
 *
 * Every operation throws TidingsError. Where that may pass (UNAVAILABLE) it is tried again, with the same ids, until
 * `callTimeout` is over; so an operation that failed with UNAVAILABLE or DEADLINE_EXCEEDED may have been carried out.
 */
export abstract class Operations {
  /** Carry out one operation. */
  abstract call<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageInitShape<I>,
  ): Promise<MessageShape<O>>;

  /** The user of the token, known once the client was connected for the first time. */
  protected abstract ownUserId(): Promise<string>;

  /** A new UUIDv7. */
  protected abstract newId(): string;

  // Conversations

  /** The direct conversation with a user, created if need be. */
  createDirect(userId: string): Promise<models.Conversation> {
    return this.#createConversation({ kind: ConversationKind.DIRECT, userIds: [userId] });
  }

  /**
   * Create a group with the caller as its owner.
   *
   * @param title At most 256 bytes of UTF-8.
   * @param userIds The other members, at most 499.
   */
  createGroup(
    title = "",
    userIds: Iterable<string> = [],
    more: Named = {},
  ): Promise<models.Conversation> {
    return this.#createConversation({
      requestId: more.requestId ?? this.newId(),
      kind: ConversationKind.GROUP,
      title,
      userIds: [...userIds],
    });
  }

  async #createConversation(
    request: MessageInitShape<typeof CreateConversationRequestSchema>,
  ): Promise<models.Conversation> {
    const answer = await this.call(ConversationService.method.createConversation, request);
    return convert.conversationOf(answer.conversation);
  }

  /** One conversation, of which the caller is or was a member. */
  async getConversation(conversationId: string): Promise<models.Conversation> {
    const answer = await this.call(ConversationService.method.getConversation, { conversationId });
    return convert.conversationOf(answer.conversation);
  }

  /** All conversations of the caller, the latest active first; pages are fetched as they are needed. */
  async *conversations(paging: Paging = {}): AsyncGenerator<models.Conversation, void> {
    const pageSize = paging.pageSize ?? CONVERSATION_PAGE;
    for await (const page of pages((pageToken) =>
      this.call(ConversationService.method.listConversations, { pageSize, pageToken }),
    )) {
      yield* page.conversations.map(convert.conversationOf);
    }
  }

  /** All members of a conversation, by user id; pages are fetched as they are needed. */
  async *members(conversationId: string, paging: Paging = {}): AsyncGenerator<models.Member, void> {
    const pageSize = paging.pageSize ?? MEMBER_PAGE;
    for await (const page of pages((pageToken) =>
      this.call(ConversationService.method.listMembers, { conversationId, pageSize, pageToken }),
    )) {
      yield* page.members.map((member) => convert.memberOf(member));
    }
  }

  /**
   * Add users to a group that the caller owns.
   *
   * @param members User ids, or users with their roles; from 1 to 500.
   * @returns The position of the entry, 0 when all were members already.
   */
  async addMembers(
    conversationId: string,
    members: Iterable<string | Pick<models.Member, "userId" | "role">>,
    more: Named = {},
  ): Promise<number> {
    const answer = await this.call(ConversationService.method.addMembers, {
      conversationId,
      requestId: more.requestId ?? this.newId(),
      members: [...members].map((member) =>
        typeof member === "string"
          ? { userId: member }
          : { userId: member.userId, role: convert.roleNumber(member.role) },
      ),
    });
    return Number(answer.seq);
  }

  /** Change settings of a group; returns the position of the entry, 0 when all was so already. */
  async updateConversation(
    conversationId: string,
    settings: models.ConversationSettings,
    more: Named = {},
  ): Promise<number> {
    const answer = await this.call(ConversationService.method.updateConversation, {
      conversationId,
      requestId: more.requestId ?? this.newId(),
      settings,
      updateMask: { paths: convert.maskOf(settings) },
    });
    return Number(answer.seq);
  }

  /** Remove a member from a group that the caller owns; returns the entry's position, 0 when it was no member. */
  async removeMember(conversationId: string, userId: string, more: Named = {}): Promise<number> {
    const answer = await this.call(ConversationService.method.removeMember, {
      conversationId,
      requestId: more.requestId ?? this.newId(),
      userId,
    });
    return Number(answer.seq);
  }

  /** Leave a group; returns the position of the entry, the last that the caller may read. */
  async leave(conversationId: string, more: Named = {}): Promise<number> {
    const answer = await this.call(ConversationService.method.leaveConversation, {
      conversationId,
      requestId: more.requestId ?? this.newId(),
    });
    return Number(answer.seq);
  }

  // Messages

  /**
   * The entries of a log; pages are fetched as they are needed.
   *
   * @param conversationId The conversation, or "inbox:" followed by the caller's user id.
   */
  async *history(conversationId: string, range: HistoryRange = {}): AsyncGenerator<Entry, void> {
    const userId = await this.ownUserId();
    const { fromSeq, until } = range;
    const ascending = range.order === "ascending";
    const request = {
      conversationId,
      fromSeq: BigInt(fromSeq ?? 0),
      order: ascending ? HistoryOrderPb.ASCENDING : HistoryOrderPb.DESCENDING,
      pageSize: pageSizeOf(range),
    };
    const last = until ?? (ascending ? Number.MAX_SAFE_INTEGER : 0);
    for await (const page of pages((pageToken) =>
      this.call(MessageService.method.listHistory, { ...request, pageToken }),
    )) {
      for (const entry of entriesOf(page, userId)) {
        if (ascending ? entry.seq > last : entry.seq < last) {
          return;
        }
        yield entry;
      }
    }
  }

  /** The entries that a gap left out, the oldest first. */
  missed(gap: Gap, paging: Paging = {}): AsyncGenerator<Entry, void> {
    const { fromSeq, toSeq: until } = gap;
    return this.history(gap.conversationId, { ...paging, fromSeq, until, order: "ascending" });
  }

  /** One entry, by its position or by its id. */
  async getMessage(
    conversationId: string,
    which: { seq: number } | { messageId: string },
  ): Promise<Entry> {
    const userId = await this.ownUserId();
    const { entry, state } = await this.call(MessageService.method.getMessage, {
      conversationId,
      key:
        "seq" in which
          ? { case: "seq", value: BigInt(which.seq) }
          : { case: "messageId", value: which.messageId },
    });
    if (entry === undefined) {
      throw new TidingsError(Code.INTERNAL, "the server sent no entry");
    }
    return convert.entryOf(entry, userId, state);
  }

  /**
   * Give an own message another text; returns the position of the edit.
   *
   * @param text What it is to say, as in `send`.
   * @param more.replyTo The id of the message that it is to reply to: the edit replaces that as well.
   */
  async editMessage(
    conversationId: string,
    seq: number,
    text: string,
    more: Named & { replyTo?: string | null } = {},
  ): Promise<number> {
    const answer = await this.call(MessageService.method.editMessage, {
      conversationId,
      requestId: more.requestId ?? this.newId(),
      seq: BigInt(seq),
      content: { text, replyToMessageId: more.replyTo ?? "" },
    });
    return Number(answer.seq);
  }

  /**
   * Delete a message for all, an own one or, as an owner, any.
   *
   * @returns The position of the deletion, 0 when it was deleted before.
   */
  async deleteMessage(conversationId: string, seq: number, more: Named = {}): Promise<number> {
    const answer = await this.call(MessageService.method.deleteMessage, {
      conversationId,
      requestId: more.requestId ?? this.newId(),
      seq: BigInt(seq),
    });
    return Number(answer.seq);
  }

  /**
   * React to a message, in the place of what the caller reacted with before; empty: take it back.
   *
   * @returns The position of the change, 0 when it was so already.
   */
  async setReaction(
    conversationId: string,
    seq: number,
    reaction: string,
    more: Named = {},
  ): Promise<number> {
    const answer = await this.call(MessageService.method.setReaction, {
      conversationId,
      requestId: more.requestId ?? this.newId(),
      seq: BigInt(seq),
      reaction,
    });
    return Number(answer.seq);
  }

  /** Who has reacted to a message, and with what, by user id; pages are fetched as they are needed. */
  async *reactions(
    conversationId: string,
    seq: number,
    paging: Paging = {},
  ): AsyncGenerator<models.Reaction, void> {
    const request = {
      conversationId,
      seq: BigInt(seq),
      pageSize: paging.pageSize ?? MEMBER_PAGE,
    };
    for await (const page of pages((pageToken) =>
      this.call(MessageService.method.listReactions, { ...request, pageToken }),
    )) {
      yield* page.reactions.map(({ userId, reaction }) => ({ userId, reaction }));
    }
  }

  /** The edits of a message, the oldest first. What it said at first is in its own entry. */
  async edits(conversationId: string, seq: number): Promise<MessageEdited[]> {
    const message = await this.getMessage(conversationId, { seq });
    const found: MessageEdited[] = [];
    for (const editSeq of message.type === "message" ? (message.state?.editSeqs ?? []) : []) {
      const edit = await this.getMessage(conversationId, { seq: editSeq });
      if (edit.type === "messageEdited") {
        found.push(edit);
      }
    }
    return found;
  }

  // Receipts

  /** The caller has read everything up to a position; returns what is left unread. */
  async markRead(conversationId: string, seq: number): Promise<models.UnreadCount> {
    const answer = await this.call(ReceiptService.method.markRead, {
      conversationId,
      seq: BigInt(seq),
    });
    return {
      conversationId,
      unreadCount: Number(answer.unreadCount),
      readSeq: Number(answer.readSeq),
    };
  }

  /**
   * A device of the caller has got everything up to a position; returns the mark in force.
   *
   * Applied entries are marked as delivered by themselves.
   */
  async markDelivered(conversationId: string, seq: number): Promise<number> {
    const answer = await this.call(ReceiptService.method.markDelivered, {
      conversationId,
      seq: BigInt(seq),
    });
    return Number(answer.deliveredSeq);
  }

  /** The marks of all members who have one, by user id; pages are fetched as they are needed. */
  async *receipts(
    conversationId: string,
    paging: Paging = {},
  ): AsyncGenerator<models.Receipt, void> {
    const pageSize = paging.pageSize ?? MEMBER_PAGE;
    for await (const page of pages((pageToken) =>
      this.call(ReceiptService.method.listReceipts, { conversationId, pageSize, pageToken }),
    )) {
      yield* page.receipts.map(({ userId, deliveredSeq, readSeq }) => ({
        userId,
        deliveredSeq: Number(deliveredSeq),
        readSeq: Number(readSeq),
      }));
    }
  }

  /** What is unread in some conversations, at most 1,000, or without any in all of the caller's. */
  async unread(conversationIds: Iterable<string> = []): Promise<models.Unread> {
    const answer = await this.call(ReceiptService.method.getUnread, {
      conversationIds: [...conversationIds],
    });
    const counts = answer.counts.map(
      ({ conversationId, unreadCount, readSeq }): [string, models.UnreadCount] => [
        conversationId,
        { conversationId, unreadCount: Number(unreadCount), readSeq: Number(readSeq) },
      ],
    );
    return { total: Number(answer.total), counts: new Map(counts) };
  }

  // Presence

  /** What is known of some users, from 1 to 500; those with whom the caller shares nothing are left out. */
  async presence(userIds: Iterable<string>): Promise<Map<string, models.Presence>> {
    const answer = await this.call(PresenceService.method.getPresence, { userIds: [...userIds] });
    return new Map(answer.presences.map((one) => [one.userId, convert.presenceOf(one)]));
  }

  /** Set what the caller says of being there; the text is at most 256 bytes of UTF-8. */
  async setStatus(
    availability: models.Availability = "available",
    statusText = "",
  ): Promise<models.Presence> {
    const answer = await this.call(PresenceService.method.setStatus, {
      availability: convert.availabilityNumber(availability),
      statusText,
    });
    if (answer.presence === undefined) {
      throw new TidingsError(Code.INTERNAL, "the server sent no presence");
    }
    return convert.presenceOf(answer.presence);
  }
}

/** How many entries to fetch at a time: no more than are wanted. */
function pageSizeOf({ fromSeq, until, pageSize = HISTORY_PAGE }: HistoryRange): number {
  return fromSeq === undefined || until === undefined
    ? pageSize
    : Math.max(1, Math.min(pageSize, Math.abs(until - fromSeq) + 1));
}

/** All pages, each fetched when it is needed. */
async function* pages<T extends { nextPageToken: string }>(
  fetch: (pageToken: string) => Promise<T>,
): AsyncGenerator<T, void> {
  let pageToken = "";
  do {
    const page = await fetch(pageToken);
    yield page;
    pageToken = page.nextPageToken;
  } while (pageToken !== "");
}

/** The entries of a page of history, each with what became of it. */
function entriesOf(page: ListHistoryResponse, userId: string): Entry[] {
  const bodies = page.events.map(({ event }) => event);
  const states = new Map(
    bodies.flatMap((body) => (body.case === "messageState" ? [[body.value.seq, body.value]] : [])),
  );
  return bodies.flatMap((body) =>
    body.case === "entry" ? [convert.entryOf(body.value, userId, states.get(body.value.seq))] : [],
  );
}
