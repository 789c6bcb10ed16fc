"""The unary operations, typed: requests made, pages turned, failures tried again, answers converted."""

from __future__ import annotations

import abc
from collections.abc import AsyncIterator, Iterable, Sequence

from . import _convert, events, models
from ._conversation_calls import ConversationOperations
from .errors import InvalidArgument
from .mentions import Mention, to_wire
from .v1 import (
    message_pb2,
    message_service_pb2,
    presence_service_pb2,
    receipt_service_pb2,
)

_MESSAGES = "tidings.v1.MessageService"
_RECEIPTS = "tidings.v1.ReceiptService"
_PRESENCE = "tidings.v1.PresenceService"

_HISTORY_PAGE = 200
_MEMBER_PAGE = 500


class Operations(ConversationOperations):
    """What can be asked of the server besides the stream.

    Every operation raises TidingsError. Where that may pass (UNAVAILABLE) it is tried again, with the same ids, until
    `call_timeout` is over; so an operation that failed with UNAVAILABLE or DEADLINE_EXCEEDED may have been carried out.
    """

    @abc.abstractmethod
    async def _own_user_id(self) -> str:
        """The user of the token, known once the client was connected for the first time."""

    # Messages

    async def history(
        self,
        conversation_id: str,
        from_seq: int | None = None,
        *,
        order: models.HistoryOrder = models.HistoryOrder.DESCENDING,
        until: int | None = None,
        page_size: int = _HISTORY_PAGE,
    ) -> AsyncIterator[events.Entry]:
        """The entries of a log, from a position on; pages are fetched as they are needed.

        Args:
            conversation_id: The conversation, or "inbox:" followed by the caller's user id.
            from_seq: Where to begin, itself included; None for the newest when descending and the oldest when
                ascending.
            order: The direction.
            until: Where to end, itself included; None for the end of the log.
            page_size: How many are fetched at a time, at most 1,000.
        """
        user_id = await self._own_user_id()
        ascending = order is models.HistoryOrder.ASCENDING
        request = message_service_pb2.ListHistoryRequest(
            conversation_id=conversation_id,
            from_seq=from_seq or 0,
            order=(
                message_service_pb2.HISTORY_ORDER_ASCENDING
                if ascending
                else message_service_pb2.HISTORY_ORDER_DESCENDING
            ),
            page_size=page_size,
        )
        if until is not None and from_seq is not None:
            request.page_size = max(1, min(page_size, abs(until - from_seq) + 1))
        while True:
            answer = await self._call(
                f"{_MESSAGES}/ListHistory",
                request,
                message_service_pb2.ListHistoryResponse.FromString,
            )
            for entry in _convert.entries_of(answer.events, user_id):
                if until is not None and (entry.seq > until if ascending else entry.seq < until):
                    return
                yield entry
            if not answer.next_page_token:
                return
            request.page_token = answer.next_page_token

    def missed(
        self, gap: events.Gap, *, page_size: int = _HISTORY_PAGE
    ) -> AsyncIterator[events.Entry]:
        """The entries that a gap left out, the oldest first."""
        return self.history(
            gap.conversation_id,
            gap.from_seq,
            order=models.HistoryOrder.ASCENDING,
            until=gap.to_seq,
            page_size=page_size,
        )

    async def get_message(
        self, conversation_id: str, *, seq: int | None = None, message_id: str | None = None
    ) -> events.Entry:
        """One entry, by its position or by its id."""
        if (seq is None) == (message_id is None):
            raise InvalidArgument("give either seq or message_id", field="key")
        user_id = await self._own_user_id()
        request = message_service_pb2.GetMessageRequest(conversation_id=conversation_id)
        if seq is not None:
            request.seq = seq
        elif message_id is not None:
            request.message_id = message_id
        answer = await self._call(
            f"{_MESSAGES}/GetMessage", request, message_service_pb2.GetMessageResponse.FromString
        )
        state = answer.state if answer.HasField("state") else None
        return _convert.entry_of(answer.entry, user_id, state)

    async def edit_message(
        self,
        conversation_id: str,
        seq: int,
        text: str,
        *,
        reply_to: str | None = None,
        mentions: Sequence[Mention] = (),
        request_id: str | None = None,
    ) -> int:
        """Give an own message another text; returns the position of the edit.

        Args:
            conversation_id: The conversation.
            seq: The position of the message.
            text: What it is to say, as in `Client.send`.
            reply_to: The id of the message that it is to reply to: the edit replaces that as well.
            mentions: Who is mentioned in it: the edit replaces them as well.
            request_id: A UUIDv7 that names the request, to repeat it over restarts; made here if not given.
        """
        answer = await self._call(
            f"{_MESSAGES}/EditMessage",
            message_pb2.EditMessageRequest(
                conversation_id=conversation_id,
                request_id=request_id or self._new_id(),
                seq=seq,
                content=message_pb2.MessageContent(
                    text=text,
                    reply_to_message_id=reply_to or "",
                    mentions=to_wire(text, mentions),
                ),
            ),
            message_pb2.EditMessageResponse.FromString,
        )
        return answer.seq

    async def delete_message(
        self, conversation_id: str, seq: int, *, request_id: str | None = None
    ) -> int:
        """Delete a message for all, an own one or, as an owner, any.

        Returns the position of the deletion, 0 when it was deleted before.
        """
        answer = await self._call(
            f"{_MESSAGES}/DeleteMessage",
            message_pb2.DeleteMessageRequest(
                conversation_id=conversation_id, request_id=request_id or self._new_id(), seq=seq
            ),
            message_pb2.DeleteMessageResponse.FromString,
        )
        return answer.seq

    async def set_reaction(
        self, conversation_id: str, seq: int, reaction: str, *, request_id: str | None = None
    ) -> int:
        """React to a message, in the place of what the caller reacted with before; empty: take it back.

        Returns the position of the change, 0 when it was so already.
        """
        answer = await self._call(
            f"{_MESSAGES}/SetReaction",
            message_pb2.SetReactionRequest(
                conversation_id=conversation_id,
                request_id=request_id or self._new_id(),
                seq=seq,
                reaction=reaction,
            ),
            message_pb2.SetReactionResponse.FromString,
        )
        return answer.seq

    async def reactions(
        self, conversation_id: str, seq: int, *, page_size: int = _MEMBER_PAGE
    ) -> AsyncIterator[tuple[str, str]]:
        """Who has reacted to a message, and with what, by user id; pages are fetched as they are needed."""
        request = message_service_pb2.ListReactionsRequest(
            conversation_id=conversation_id, seq=seq, page_size=page_size
        )
        while True:
            answer = await self._call(
                f"{_MESSAGES}/ListReactions",
                request,
                message_service_pb2.ListReactionsResponse.FromString,
            )
            for one in answer.reactions:
                yield one.user_id, one.reaction
            if not answer.next_page_token:
                return
            request.page_token = answer.next_page_token

    async def set_pin(
        self, conversation_id: str, seq: int, *, pinned: bool = True, request_id: str | None = None
    ) -> int:
        """Pin a message, or end that.

        Returns the position of the change, 0 when it was so already.
        """
        answer = await self._call(
            f"{_MESSAGES}/SetPin",
            message_pb2.SetPinRequest(
                conversation_id=conversation_id,
                request_id=request_id or self._new_id(),
                seq=seq,
                pinned=pinned,
            ),
            message_pb2.SetPinResponse.FromString,
        )
        return answer.seq

    async def pins(self, conversation_id: str) -> list[events.Message]:
        """The pinned messages that the caller may read, those that were pinned last first; at most 50."""
        user_id = await self._own_user_id()
        answer = await self._call(
            f"{_MESSAGES}/ListPins",
            message_service_pb2.ListPinsRequest(conversation_id=conversation_id),
            message_service_pb2.ListPinsResponse.FromString,
        )
        found = _convert.entries_of(answer.events, user_id)
        return [entry for entry in found if isinstance(entry, events.Message)]

    async def edits(self, conversation_id: str, seq: int) -> list[events.MessageEdited]:
        """The edits of a message, the oldest first. What it said at first is in its own entry."""
        message = await self.get_message(conversation_id, seq=seq)
        state = message.state if isinstance(message, events.Message) else None
        found = []
        for edit_seq in state.edit_seqs if state is not None else ():
            edit = await self.get_message(conversation_id, seq=edit_seq)
            if isinstance(edit, events.MessageEdited):
                found.append(edit)
        return found

    # Receipts

    async def mark_read(self, conversation_id: str, seq: int) -> models.UnreadCount:
        """The caller has read everything up to a position; returns what is left unread."""
        answer = await self._call(
            f"{_RECEIPTS}/MarkRead",
            receipt_service_pb2.MarkReadRequest(conversation_id=conversation_id, seq=seq),
            receipt_service_pb2.MarkReadResponse.FromString,
        )
        return models.UnreadCount(conversation_id, answer.unread_count, answer.read_seq)

    async def mark_delivered(self, conversation_id: str, seq: int) -> int:
        """A device of the caller has got everything up to a position; returns the mark in force.

        Applied entries are marked as delivered by themselves.
        """
        answer = await self._call(
            f"{_RECEIPTS}/MarkDelivered",
            receipt_service_pb2.MarkDeliveredRequest(conversation_id=conversation_id, seq=seq),
            receipt_service_pb2.MarkDeliveredResponse.FromString,
        )
        return answer.delivered_seq

    async def receipts(
        self, conversation_id: str, *, page_size: int = _MEMBER_PAGE
    ) -> AsyncIterator[models.Receipt]:
        """The marks of all members who have one, by user id; pages are fetched as they are needed."""
        request = receipt_service_pb2.ListReceiptsRequest(
            conversation_id=conversation_id, page_size=page_size
        )
        while True:
            answer = await self._call(
                f"{_RECEIPTS}/ListReceipts",
                request,
                receipt_service_pb2.ListReceiptsResponse.FromString,
            )
            for receipt in answer.receipts:
                yield models.Receipt(receipt.user_id, receipt.delivered_seq, receipt.read_seq)
            if not answer.next_page_token:
                return
            request.page_token = answer.next_page_token

    async def unread(self, conversation_ids: Iterable[str] = ()) -> models.Unread:
        """What is unread in some conversations, at most 1,000, or without any in all of the caller's."""
        answer = await self._call(
            f"{_RECEIPTS}/GetUnread",
            receipt_service_pb2.GetUnreadRequest(conversation_ids=conversation_ids),
            receipt_service_pb2.GetUnreadResponse.FromString,
        )
        return models.Unread(
            answer.total,
            {
                count.conversation_id: models.UnreadCount(
                    count.conversation_id,
                    count.unread_count,
                    count.read_seq,
                    count.unread_mention_count,
                )
                for count in answer.counts
            },
            answer.total_mentions,
        )

    # Presence

    async def presence(self, user_ids: Iterable[str]) -> dict[str, models.Presence]:
        """What is known of some users, from 1 to 500; those with whom the caller shares nothing are left out."""
        answer = await self._call(
            f"{_PRESENCE}/GetPresence",
            presence_service_pb2.GetPresenceRequest(user_ids=user_ids),
            presence_service_pb2.GetPresenceResponse.FromString,
        )
        return {one.user_id: _convert.presence_of(one) for one in answer.presences}

    async def set_status(
        self,
        availability: models.Availability = models.Availability.AVAILABLE,
        status_text: str = "",
    ) -> models.Presence:
        """Set what the caller says of being there; the text is at most 256 bytes of UTF-8."""
        answer = await self._call(
            f"{_PRESENCE}/SetStatus",
            presence_service_pb2.SetStatusRequest(
                availability=presence_service_pb2.Availability.ValueType(availability),
                status_text=status_text,
            ),
            presence_service_pb2.SetStatusResponse.FromString,
        )
        return _convert.presence_of(answer.presence)
