"""The unary operations about conversations and who is in them; see `_calls`."""

from __future__ import annotations

import abc
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import datetime
from typing import TypeVar

from google.protobuf import field_mask_pb2
from google.protobuf.message import Message as ProtoMessage

from . import _convert, models
from .v1 import conversation_pb2, conversation_service_pb2

_ResponseT = TypeVar("_ResponseT", bound=ProtoMessage)

_CONVERSATIONS = "tidings.v1.ConversationService"

_CONVERSATION_PAGE = 100
_MEMBER_PAGE = 500


class ConversationOperations(abc.ABC):
    """What can be asked of conversations."""

    @abc.abstractmethod
    async def _call(
        self, method: str, request: ProtoMessage, parse: Callable[[bytes], _ResponseT]
    ) -> _ResponseT:
        """Carry out one operation."""

    @abc.abstractmethod
    def _new_id(self) -> str:
        """A new UUIDv7."""

    async def create_direct(self, user_id: str) -> models.Conversation:
        """The direct conversation with a user, created if need be."""
        request = conversation_service_pb2.CreateConversationRequest(
            kind=conversation_pb2.CONVERSATION_KIND_DIRECT, user_ids=[user_id]
        )
        return await self._create(request)

    async def create_group(
        self, title: str = "", user_ids: Iterable[str] = (), *, request_id: str | None = None
    ) -> models.Conversation:
        """Create a group with the caller as its owner.

        Args:
            title: At most 256 bytes of UTF-8.
            user_ids: The other members, at most 499.
            request_id: A UUIDv7 that names the request, to repeat it over restarts without creating a second group;
                made here if not given.
        """
        request = conversation_service_pb2.CreateConversationRequest(
            request_id=request_id or self._new_id(),
            kind=conversation_pb2.CONVERSATION_KIND_GROUP,
            title=title,
            user_ids=user_ids,
        )
        return await self._create(request)

    async def _create(
        self, request: conversation_service_pb2.CreateConversationRequest
    ) -> models.Conversation:
        answer = await self._call(
            f"{_CONVERSATIONS}/CreateConversation",
            request,
            conversation_service_pb2.CreateConversationResponse.FromString,
        )
        return _convert.conversation_of(answer.conversation)

    async def get_conversation(self, conversation_id: str) -> models.Conversation:
        """One conversation, of which the caller is or was a member."""
        answer = await self._call(
            f"{_CONVERSATIONS}/GetConversation",
            conversation_service_pb2.GetConversationRequest(conversation_id=conversation_id),
            conversation_service_pb2.GetConversationResponse.FromString,
        )
        return _convert.conversation_of(answer.conversation)

    async def conversations(
        self, *, page_size: int = _CONVERSATION_PAGE
    ) -> AsyncIterator[models.Conversation]:
        """All conversations of the caller, the latest active first; pages are fetched as they are needed."""
        request = conversation_service_pb2.ListConversationsRequest(page_size=page_size)
        while True:
            answer = await self._call(
                f"{_CONVERSATIONS}/ListConversations",
                request,
                conversation_service_pb2.ListConversationsResponse.FromString,
            )
            for conversation in answer.conversations:
                yield _convert.conversation_of(conversation)
            if not answer.next_page_token:
                return
            request.page_token = answer.next_page_token

    async def members(
        self, conversation_id: str, *, page_size: int = _MEMBER_PAGE
    ) -> AsyncIterator[models.Member]:
        """All members of a conversation, by user id; pages are fetched as they are needed."""
        request = conversation_service_pb2.ListMembersRequest(
            conversation_id=conversation_id, page_size=page_size
        )
        while True:
            answer = await self._call(
                f"{_CONVERSATIONS}/ListMembers",
                request,
                conversation_service_pb2.ListMembersResponse.FromString,
            )
            for member in answer.members:
                yield _convert.member_of(member)
            if not answer.next_page_token:
                return
            request.page_token = answer.next_page_token

    async def add_members(
        self,
        conversation_id: str,
        members: Iterable[str | models.Member],
        *,
        request_id: str | None = None,
    ) -> int:
        """Add users to a group, with roles below the caller's unless they own it.

        Args:
            conversation_id: The group.
            members: User ids, or Members to give a role; from 1 to 500.
            request_id: A UUIDv7 that names the change; made here if not given.

        Returns:
            The position of the entry, 0 when all were members already.
        """
        added = [
            conversation_pb2.Member(user_id=member)
            if isinstance(member, str)
            else conversation_pb2.Member(
                user_id=member.user_id, role=conversation_pb2.MemberRole.ValueType(member.role)
            )
            for member in members
        ]
        answer = await self._call(
            f"{_CONVERSATIONS}/AddMembers",
            conversation_service_pb2.AddMembersRequest(
                conversation_id=conversation_id,
                request_id=request_id or self._new_id(),
                members=added,
            ),
            conversation_service_pb2.AddMembersResponse.FromString,
        )
        return answer.seq

    async def remove_member(
        self, conversation_id: str, user_id: str, *, request_id: str | None = None
    ) -> int:
        """Remove a member of lower rank from a group; returns the entry's position, 0 when it was no member."""
        answer = await self._call(
            f"{_CONVERSATIONS}/RemoveMember",
            conversation_service_pb2.RemoveMemberRequest(
                conversation_id=conversation_id,
                request_id=request_id or self._new_id(),
                user_id=user_id,
            ),
            conversation_service_pb2.RemoveMemberResponse.FromString,
        )
        return answer.seq

    async def leave(self, conversation_id: str, *, request_id: str | None = None) -> int:
        """Leave a group; returns the position of the entry, the last that the caller may read.

        The only owner can't while others are members: see `transfer_ownership`.
        """
        answer = await self._call(
            f"{_CONVERSATIONS}/LeaveConversation",
            conversation_service_pb2.LeaveConversationRequest(
                conversation_id=conversation_id, request_id=request_id or self._new_id()
            ),
            conversation_service_pb2.LeaveConversationResponse.FromString,
        )
        return answer.seq

    async def update_conversation(
        self,
        conversation_id: str,
        *,
        title: str | None = None,
        description: str | None = None,
        picture: str | None = None,
        custom_data: str | None = None,
        frozen: bool | None = None,
        rights: Iterable[models.RightOverride] | None = None,
        history_for_newcomers: bool | None = None,
        request_id: str | None = None,
    ) -> int:
        """Change settings of a group; what is None stays as it is.

        Args:
            conversation_id: The group.
            title: At most 256 bytes of UTF-8.
            description: What it is for, at most 1,024 bytes of UTF-8.
            picture: A URL or the id of a medium, at most 512 bytes of UTF-8.
            custom_data: Data of an integrator, at most 2,048 bytes of UTF-8.
            frozen: Whether only those with the right POST_FROZEN may post, edit and react.
            rights: Rights that are otherwise than by default, in the place of all that were given before.
            history_for_newcomers: Whether those who are added from here on may read what came before, from history.
            request_id: A UUIDv7 that names the change; made here if not given.

        Returns:
            The position of the entry, 0 when all was so already.
        """
        given = {
            "title": title,
            "description": description,
            "picture": picture,
            "custom_data": custom_data,
            "frozen": frozen,
            "history_for_newcomers": history_for_newcomers,
            "rights": None
            if rights is None
            else [
                conversation_pb2.RightOverride(
                    role=conversation_pb2.MemberRole.ValueType(one.role),
                    right=conversation_pb2.ConversationRight.ValueType(one.right),
                    allowed=one.allowed,
                )
                for one in rights
            ],
        }
        changes = {name: value for name, value in given.items() if value is not None}
        answer = await self._call(
            f"{_CONVERSATIONS}/UpdateConversation",
            conversation_service_pb2.UpdateConversationRequest(
                conversation_id=conversation_id,
                request_id=request_id or self._new_id(),
                settings=conversation_pb2.ConversationSettings(**changes),  # type: ignore[arg-type]
                update_mask=field_mask_pb2.FieldMask(paths=changes),
            ),
            conversation_service_pb2.UpdateConversationResponse.FromString,
        )
        return answer.seq

    async def set_role(
        self,
        conversation_id: str,
        user_id: str,
        role: models.MemberRole,
        *,
        request_id: str | None = None,
    ) -> int:
        """Give a member of a group a role below the caller's, or as an owner any.

        Returns the position of the entry, 0 when the member had the role already.
        """
        answer = await self._call(
            f"{_CONVERSATIONS}/SetRole",
            conversation_service_pb2.SetRoleRequest(
                conversation_id=conversation_id,
                request_id=request_id or self._new_id(),
                user_id=user_id,
                role=conversation_pb2.MemberRole.ValueType(role),
            ),
            conversation_service_pb2.SetRoleResponse.FromString,
        )
        return answer.seq

    async def transfer_ownership(
        self, conversation_id: str, user_id: str, *, request_id: str | None = None
    ) -> int:
        """Make another member an owner of a group, and the caller, who is one, an admin.

        Returns the position of the entry.
        """
        answer = await self._call(
            f"{_CONVERSATIONS}/TransferOwnership",
            conversation_service_pb2.TransferOwnershipRequest(
                conversation_id=conversation_id,
                request_id=request_id or self._new_id(),
                user_id=user_id,
            ),
            conversation_service_pb2.TransferOwnershipResponse.FromString,
        )
        return answer.seq

    async def set_mute(
        self,
        conversation_id: str,
        user_id: str,
        until: datetime | None,
        *,
        request_id: str | None = None,
    ) -> int:
        """Keep a member of lower rank from posting, editing and reacting until a time; None takes that back.

        Args:
            conversation_id: The group.
            user_id: The member.
            until: A time in the future, with a time zone; `tidings.models.FOR_GOOD` is the latest.
            request_id: A UUIDv7 that names the change; made here if not given.

        Returns:
            The position of the entry, 0 when it was so already.
        """
        answer = await self._call(
            f"{_CONVERSATIONS}/SetMute",
            conversation_service_pb2.SetMuteRequest(
                conversation_id=conversation_id,
                request_id=request_id or self._new_id(),
                user_id=user_id,
                expire_time=_convert.to_timestamp(until),
            ),
            conversation_service_pb2.SetMuteResponse.FromString,
        )
        return answer.seq

    async def set_ban(
        self,
        conversation_id: str,
        user_id: str,
        until: datetime | None,
        *,
        request_id: str | None = None,
    ) -> int:
        """Remove a member of lower rank, and let nobody add them again until a time; None takes that back.

        Args:
            conversation_id: The group.
            user_id: A member or ex-member.
            until: A time in the future, with a time zone; `tidings.models.FOR_GOOD` is the latest.
            request_id: A UUIDv7 that names the change; made here if not given.

        Returns:
            The position of the entry, 0 when it was so already.
        """
        answer = await self._call(
            f"{_CONVERSATIONS}/SetBan",
            conversation_service_pb2.SetBanRequest(
                conversation_id=conversation_id,
                request_id=request_id or self._new_id(),
                user_id=user_id,
                expire_time=_convert.to_timestamp(until),
            ),
            conversation_service_pb2.SetBanResponse.FromString,
        )
        return answer.seq

    async def set_invitation(
        self,
        conversation_id: str,
        code: str,
        uses: int,
        until: datetime | None = None,
        *,
        request_id: str | None = None,
    ) -> int:
        """Let whoever has a code join a group, or no longer.

        Args:
            conversation_id: The group.
            code: From 16 to 128 characters of A-Z, a-z, 0-9, "-" and "_", made at random:
                `secrets.token_urlsafe(24)`. A link to the group has it and the conversation's id.
            uses: How many may join by it, at most 100,000; 0 takes it back.
            until: A time in the future, with a time zone, unless it is taken back.
            request_id: A UUIDv7 that names the change; made here if not given.

        Returns:
            The position of the entry, 0 when it was so already.
        """
        answer = await self._call(
            f"{_CONVERSATIONS}/SetInvitation",
            conversation_service_pb2.SetInvitationRequest(
                conversation_id=conversation_id,
                request_id=request_id or self._new_id(),
                code=code,
                uses=uses,
                expire_time=_convert.to_timestamp(until),
            ),
            conversation_service_pb2.SetInvitationResponse.FromString,
        )
        return answer.seq

    async def join(self, conversation_id: str, code: str, *, request_id: str | None = None) -> int:
        """Join a group by the code of an invitation; returns the entry's position, 0 for whoever is a member already.

        Raises NotFound where the code is none that holds.
        """
        answer = await self._call(
            f"{_CONVERSATIONS}/JoinConversation",
            conversation_service_pb2.JoinConversationRequest(
                conversation_id=conversation_id,
                request_id=request_id or self._new_id(),
                code=code,
            ),
            conversation_service_pb2.JoinConversationResponse.FromString,
        )
        return answer.seq
